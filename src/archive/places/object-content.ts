import { Readable } from 'node:stream';
import { createGunzip } from 'node:zlib';
import { CorruptObjectError, NotSupportedError } from '../../errors.js';

/** How the content of an object begins, whatever its key says. */
const MAGIC: readonly (readonly [stage: string, bytes: Uint8Array])[] = [
  ['age', Buffer.from('age-encryption.org/')],
  ['gzip', Uint8Array.of(0x1f, 0x8b)],
  ['lz4', Uint8Array.of(0x04, 0x22, 0x4d, 0x18)],
  ['zstd', Uint8Array.of(0x28, 0xb5, 0x2f, 0xfd)],
];
const LONGEST = Math.max(...MAGIC.map(([, bytes]) => bytes.length));

/**
 * The plain bytes of an object, by what it begins with.
 * @throws CorruptObjectError if it cannot be decoded; what reading it throws
 */
export async function* plainBytes(
  key: string,
  body: AsyncIterable<Uint8Array>,
): AsyncGenerator<Uint8Array> {
  const whole = beginning(body);
  const { value: head } = await whole.next();
  const stage = head && MAGIC.find(([, magic]) => startsWith(head, magic))?.[0];
  const all = (async function* () {
    if (head) yield head;
    yield* whole;
  })();
  switch (stage) {
    case undefined:
      yield* all;
      return;
    case 'gzip':
      yield* gunzip(key, all);
      return;
    default:
      await whole.return(undefined);
      throw new NotSupportedError(`"${key}" cannot be read: ${stage} is not supported here`, {
        key,
      });
  }
}

/** The same pieces, of which the first one has all that tells what they are. */
async function* beginning(body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  let head: Uint8Array | undefined = new Uint8Array(0);
  for await (const piece of body) {
    if (!head) yield piece;
    else {
      head = head.length === 0 ? piece : Buffer.concat([head, piece]);
      if (head.length < LONGEST) continue;
      yield head;
      head = undefined;
    }
  }
  if (head?.length) yield head;
}

function startsWith(bytes: Uint8Array, magic: Uint8Array): boolean {
  return Buffer.compare(bytes.subarray(0, magic.length), magic) === 0;
}

async function* gunzip(key: string, body: AsyncIterable<Uint8Array>): AsyncGenerator<Uint8Array> {
  const source = Readable.from(body, { objectMode: false });
  const stream = createGunzip();
  source.on('error', (e) => stream.destroy(e));
  source.pipe(stream);
  try {
    yield* stream as AsyncIterable<Buffer>;
  } catch (e) {
    const { code, message } = e as NodeJS.ErrnoException;
    if (!code?.startsWith('Z_')) throw e;
    throw new CorruptObjectError(`"${key}" cannot be decompressed: ${message}`, { key, cause: e });
  } finally {
    source.destroy();
    stream.destroy();
  }
}
