// Stores random objects, four at a time, and says of each what came of it and how much memory was used:
// node store-child.mjs PLACE COUNT SIZE
import { createHash, randomBytes } from 'node:crypto';
import { parsePlace } from '../../dist/store/place.js';
import { S3Store } from '../../dist/store/s3/store.js';

const [place, count, size] = process.argv.slice(2);
const store = new S3Store(parsePlace(place));
const say = (what) =>
  console.log(JSON.stringify({ ...what, rss: process.resourceUsage().maxRSS * 1024 }));
let next = 0;

async function work(body) {
  while (next < Number(count)) {
    const key = `wal/00000001/${String(next++).padStart(24, '0')}`;
    // All bytes random would take longer than to send them.
    randomBytes(64).copy(body, (next * 4096) % (body.length - 64));
    const sha256 = createHash('sha256').update(body).digest('hex');
    const began = performance.now();
    let outcome;
    try {
      const { created } = await store.create(key, {
        size: body.length,
        sha256,
        open: () => [body],
      });
      outcome = { created };
    } catch (error) {
      outcome = { created: false, error: String(error) };
    }
    say({ key, sha256, ...outcome, ms: performance.now() - began });
  }
}

await Promise.all(Array.from({ length: 4 }, () => work(randomBytes(Number(size)))));
await store.close();
say({});
