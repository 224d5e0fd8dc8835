import { createHash } from 'node:crypto';
import fc from 'fast-check';
import { expect, test } from 'vitest';
import { BackupObjects } from '../../src/backup/objects.js';
import { BackupSink } from '../../src/backup/sink.js';
import { VolumeMemory } from '../../src/backup/volumes.js';
import { bytesOf } from '../../src/store/content.js';
import { MemoryStore } from '../../src/store/memory.js';
import { checksumOf } from '../support/checksum.js';
import { pseudo, tarOf } from './fake-server.js';

const sha256 = (bytes: Uint8Array) => createHash('sha256').update(bytes).digest('hex');

/** Feeds two tars to a sink whose frames are small. */
async function take(
  sizes: readonly number[],
  chunk: number,
  frame: number,
  codec: 'none' | 'gzip',
  algorithm: 'CRC32C' | 'SHA256',
) {
  const store = new MemoryStore();
  const area = { place: 'memory:', store, prefix: '', close: async () => {} };
  const memory = new VolumeMemory({ codec, threads: 2, uploads: 2, frame, volume: 2 * frame });
  const onFailure = (e: unknown) => expect.unreachable(String(e));
  const objects = new BackupObjects(area, 'id', {
    claim: { name: 'claim.json', size: 0, sha256: '' },
  });
  const sink = new BackupSink({ memory, objects, algorithm, onFailure });
  const files = sizes.map((size, i) => ({ name: `f/${i}`, content: pseudo(size, i) }));
  const tars = [tarOf(files), tarOf(files.toReversed(), false)];
  for (const [i, tar] of tars.entries()) {
    sink.onArchive({ name: `${i}.tar`, oid: i === 0 ? 1 : undefined });
    for (let at = 0; at < tar.length; at += chunk) {
      // As on a connection: the memory is used again.
      const piece = Buffer.from(tar.subarray(at, at + chunk));
      sink.onData(piece);
      piece.fill(0xff);
    }
  }
  const result = await sink.end();
  await sink.close();
  return { came: result.tars, sink, files, store, sent: tars };
}

test('the digests of files and frames are theirs, wherever frames are cut', async () => {
  const size = fc.oneof(fc.constantFrom(0, 1, 511, 512, 513), fc.nat(5000));
  await fc.assert(
    fc.asyncProperty(
      fc.array(size, { maxLength: 8 }),
      fc.integer({ min: 1, max: 3000 }),
      fc.oneof(fc.constantFrom(512, 1024, 1536), fc.integer({ min: 300, max: 6000 })),
      fc.constantFrom('none', 'gzip'),
      fc.constantFrom('SHA256', 'CRC32C'),
      async (sizes, chunk, frame, codec, algorithm) => {
        const { came, sink, files, store, sent } = await take(
          ...([sizes, chunk, frame, codec, algorithm] as const),
        );
        const expected = ['pg_tblspc/1/', ''].flatMap((root) =>
          files.map(({ name, content }) => [`${root}${name}`, checksumOf(algorithm, content)]),
        );
        const digests = [...sink.files].map(([path, file]) => {
          expect(file.size).toBe(files.find(({ name }) => path.endsWith(name))?.content.length);
          return [path, Buffer.from(file.digest, 'latin1').toString('hex')];
        });
        expect(new Map(digests as [string, string][])).toEqual(
          new Map(expected as [string, string][]),
        );
        for (const [i, { index, size: length, volumes }] of came.entries()) {
          const whole = Buffer.concat([sent[i] as Buffer, Buffer.alloc(i === 1 ? 1024 : 0)]);
          expect(length).toBe(whole.length);
          const last = index.frames.at(-1);
          expect((last?.offset ?? 0) + (last?.length ?? 0)).toBe(whole.length);
          for (const one of index.frames) {
            const key = `backups/id/${volumes[one.volume]}`;
            const got = await store.get(key);
            const bytes = (await bytesOf(got!.body)).subarray(one.at, one.at + one.stored);
            expect(one.sha256).toBe(sha256(bytes));
            if (codec === 'none') {
              expect(bytes).toEqual(whole.subarray(one.offset, one.offset + one.length));
            }
          }
        }
      },
    ),
    { numRuns: 40 },
  );
});
