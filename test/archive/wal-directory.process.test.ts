import { spawn, spawnSync } from 'node:child_process';
import { mkdir, readdir, readFile, symlink, unlink, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import fc from 'fast-check';
import { beforeEach, describe, expect, it } from 'vitest';
import { newestIdentity } from '../../src/archive/identity.js';
import { checkSegment, scanDirectory } from '../../src/archive/wal-directory.js';
import { compressFile } from '../../src/codec/codec.js';
import { parseSegmentFileName, segmentFileName } from '../../src/wal/file-name.js';
import { PostgresServer } from '../support/postgres.js';
import { killAtEnd, scratchDir } from '../support/scratch.js';
import { findTool } from '../support/tools.js';
import { waitFor } from '../support/wait.js';
import { workload } from '../support/workload.js';

const MB = 1 << 20;
const pgReceivewal = findTool('pg_receivewal', 15);

let dir: string;
beforeEach(() => {
  dir = scratchDir('scan');
});

const put = (name: string, content: Uint8Array | string = '') =>
  writeFile(join(dir, name), content);
const full = () => Buffer.alloc(MB);
const name = (segment: number, timeline = 1) => segmentFileName(timeline, BigInt(segment), MB);
const newest = async () => (await scanDirectory(dir, MB)).newest?.name;

describe('the newest segment', () => {
  it('is absent in an empty directory', async () => {
    expect(await scanDirectory(dir, MB)).toEqual({
      directory: dir,
      segmentSize: MB,
      segments: [],
      histories: [],
      newest: undefined,
      atNewest: [],
      lostLinks: [],
      warnings: [],
    });
  });

  it('has the highest number, then timeline, then is complete', async () => {
    await put(`${name(7, 1)}.partial`);
    expect(await newest()).toBe(`${name(7, 1)}.partial`);
    await put(name(7, 1), full());
    expect(await newest()).toBe(name(7, 1));
    await put(`${name(7, 2)}.partial`);
    expect(await newest()).toBe(`${name(7, 2)}.partial`);
    await put(name(6, 9), full());
    await put(`${name(7, 2)}.gz.partial`);
    const scan = await scanDirectory(dir, MB);
    expect(scan.newest).toMatchObject({ segment: 7n, timeline: 2, partial: true, size: 0 });
    expect(scan.atNewest.map((f) => f.name)).toEqual([
      `${name(7, 2)}.partial`,
      `${name(7, 2)}.gz.partial`,
      name(7, 1),
      `${name(7, 1)}.partial`,
    ]);
    expect(scan.segments.at(-1)?.name).toBe(name(6, 9));
  });

  it("follows upstream's rule whatever the order of the directory", () => {
    const file = fc.record({
      segment: fc.integer({ min: 1, max: 3 }),
      timeline: fc.integer({ min: 1, max: 3 }),
      partial: fc.boolean(),
      gz: fc.boolean(),
    });
    const property = fc.asyncProperty(
      fc.array(file, { minLength: 1, maxLength: 8 }),
      async (fs) => {
        for (const left of await readdir(dir)) await unlink(join(dir, left));
        let best = { segment: 0, timeline: 0, partial: false };
        for (const f of fs) {
          const base = name(f.segment, f.timeline) + (f.gz ? '.gz' : '');
          const content = f.gz ? gzipSync(full(), { level: 1 }) : full();
          await put(f.partial ? `${base}.partial` : base, content);
          // The condition of FindStreamingStart, word by word.
          if (
            f.segment > best.segment ||
            (f.segment === best.segment && f.timeline > best.timeline) ||
            (f.segment === best.segment &&
              f.timeline === best.timeline &&
              best.partial &&
              !f.partial)
          ) {
            best = f;
          }
        }
        const found = (await scanDirectory(dir, MB)).newest;
        expect({ ...found, segment: Number(found?.segment) }).toMatchObject({
          segment: best.segment,
          timeline: best.timeline,
          partial: best.partial,
        });
      },
    );
    return fc.assert(property, { numRuns: 60 });
  });

  it('skips complete files of another size, with a warning', async () => {
    await put(name(1), full());
    await put(name(3), full().subarray(1));
    await put(name(4), '');
    await put(`${name(5)}.gz`, gzipSync(full().subarray(0, 1000)));
    await put(`${name(6)}.gz`, 'abc');
    const scan = await scanDirectory(dir, MB);
    expect(scan.newest?.name).toBe(name(1));
    expect(scan.warnings).toEqual([
      `compressed segment file "${name(6)}.gz" has incorrect uncompressed size 0, skipping`,
      `compressed segment file "${name(5)}.gz" has incorrect uncompressed size 1000, skipping`,
      `segment file "${name(4)}" has incorrect size 0, skipping`,
      `segment file "${name(3)}" has incorrect size ${MB - 1}, skipping`,
    ]);
    expect(scan.segments.map((s) => s.problem)).toEqual([
      ...Array(4).fill('incorrect size'),
      undefined,
    ]);
  });

  it('measures lz4 by decompressing, and no further than needed', async () => {
    await put('plain', Buffer.alloc(3 * MB));
    const plain = join(dir, 'plain');
    const pack = (n: string, size: number) =>
      compressFile(plain, join(dir, n), size, { method: 'lz4' });
    await pack(`${name(1)}.lz4`, MB);
    await pack(`${name(2)}.lz4`, MB - 1);
    await pack(`${name(3)}.lz4`, 3 * MB);
    await put(`${name(4)}.lz4`, 'not a frame');
    await put(`${name(5)}.lz4`, '');
    const scan = await scanDirectory(dir, MB);
    expect(scan.newest?.name).toBe(`${name(1)}.lz4`);
    expect(scan.warnings).toEqual([
      `compressed segment file "${name(5)}.lz4" has incorrect uncompressed size 0, skipping`,
      `could not decompress file "${name(4)}.lz4": no LZ4 frame, skipping`,
      `compressed segment file "${name(3)}.lz4" has incorrect uncompressed size ${MB + 1}, skipping`,
      `compressed segment file "${name(2)}.lz4" has incorrect uncompressed size ${MB - 1}, skipping`,
    ]);
    await put(`${name(9)}.lz4.partial`, 'anything');
    expect(await newest()).toBe(`${name(9)}.lz4.partial`);
  });

  it('is looked for from the end, unless every file is to be checked', async () => {
    await put(name(1), 'short');
    await put(name(2), full());
    expect((await scanDirectory(dir, MB)).warnings).toEqual([]);
    const all = await scanDirectory(dir, MB, { check: 'all' });
    expect(all.warnings).toEqual([`segment file "${name(1)}" has incorrect size 5, skipping`]);
    expect(all.newest?.name).toBe(name(2));
  });

  it('zst: is measured by what it holds', async () => {
    await put(`${name(3)}.zst`, 'no zstd');
    await put(name(4), full());
    expect(await newest()).toBe(name(4));
    await unlink(join(dir, name(4)));
    expect(await newest()).toBeUndefined();
    await put('plain', full());
    const path = join(dir, `${name(5)}.zst`);
    await compressFile(join(dir, 'plain'), path, MB, { method: 'zstd' });
    expect(await newest()).toBe(`${name(5)}.zst`);
    await compressFile(join(dir, 'plain'), path, MB - 1, { method: 'zstd' });
    expect(await newest()).toBeUndefined();
  });
});

describe('other things in the directory', () => {
  it('do no harm', async () => {
    const outside = scratchDir('outside');
    await writeFile(join(outside, 'file'), full());
    await put(name(1), full());
    await mkdir(join(dir, name(5)));
    await symlink(join(outside, 'file'), join(dir, name(6)));
    await symlink(join(outside, 'file'), join(dir, `${name(3)}.partial`));
    await symlink('nowhere', join(dir, name(4)));
    await symlink('nowhere', join(dir, `${name(7)}.partial`));
    const server = createServer();
    await new Promise<void>((done) => server.listen(join(dir, name(8)), done));
    for (const other of [
      'archive_status',
      '.walkeep-ledger',
      `.${name(9)}.tmp`,
      `${name(9)}.tmp`,
      name(10).toLowerCase(),
      `${name(11)}.bz2`,
      '0000000100000000FFFFFFFF',
      '00000002.history.tmp',
    ]) {
      await put(other);
    }
    await put('0000000A.history');
    await put('00000002.history');
    await symlink('nowhere', join(dir, '00000003.history'));
    const scan = await scanDirectory(dir, MB);
    server.close();
    // A link is what it leads to, as for pg_receivewal; nobody writes through one.
    expect(scan.newest?.name).toBe(name(6));
    expect(scan.segments).toHaveLength(2);
    expect(scan.lostLinks.map((file) => file.name)).toEqual([name(4)]);
    expect(scan.histories.map((h) => h.timeline)).toEqual([2, 10]);
    expect(scan.warnings.sort()).toEqual(
      [name(4), name(5), `${name(7)}.partial`, `${name(3)}.partial`, name(8), '00000003.history']
        .sort()
        .map((n) => `"${n}" is not a regular file, skipping`),
    );
  });

  it('a missing directory is a typed error', async () => {
    await expect(scanDirectory(join(dir, 'no'), MB)).rejects.toMatchObject({
      code: 'WK_STORAGE',
      message: `could not open directory "${join(dir, 'no')}": No such file or directory`,
    });
  });

  it('100,000 files are no hindrance', async () => {
    const names = Array.from({ length: 100_000 }, (_, i) => name(i + 1));
    const script = 'while read f; do : > "$f"; done';
    spawnSync('sh', ['-c', script], { cwd: dir, input: `${names.join('\n')}\n` });
    for (const last of names.slice(-3)) await put(last, full());
    await put(`${name(100_001)}.partial`);
    const before = process.cpuUsage();
    const scan = await scanDirectory(dir, MB);
    expect(scan.newest?.name).toBe(`${name(100_001)}.partial`);
    expect(scan.segments).toHaveLength(100_001);
    // About 0.6 s of this process; opening every file would take many seconds.
    const { user, system } = process.cpuUsage(before);
    expect((user + system) / 1000).toBeLessThan(3000);
  }, 240_000);
});

describe('of a real server', () => {
  it('its own pg_wal is read', async () => {
    const server = await PostgresServer.create({ major: 15 });
    try {
      const scan = await scanDirectory(join(server.dataDir, 'pg_wal'), server.segmentSize);
      const identity = await newestIdentity(scan);
      expect(String(identity?.systemId)).toBe(await server.systemIdentifier());
      expect(identity).toMatchObject({ timeline: 1, segmentSize: MB, blockSize: 8192 });
    } finally {
      await server.destroy();
    }
  });

  it.skipIf(!pgReceivewal)(
    `a compressed partial reopened by pg_receivewal 15 (defect 1) is skipped with its warning${pgReceivewal ? '' : ' (pg_receivewal is absent)'}`,
    async () => {
      const server = await PostgresServer.create({
        major: 15,
        settings: { wal_keep_size: '64MB' },
      });
      const receive = (...args: string[]) => {
        const child = spawn(
          pgReceivewal as string,
          ['-D', dir, '-Z', 'gzip:1', '-n', '--synchronous', '-d', server.conninfo(), ...args],
          { stdio: ['ignore', 'ignore', 'pipe'] },
        );
        killAtEnd(child);
        let stderr = '';
        child.stderr.on('data', (text) => {
          stderr += text;
        });
        const exit = new Promise<string>((done) => child.once('close', () => done(stderr)));
        return { child, exit };
      };
      try {
        // A long first stream of a segment, ended in the middle.
        const first = receive();
        await waitFor(async () => (await readdir(dir)).length > 0);
        await workload(server, { transactions: 5, toastBytes: 100_000 });
        const partial = `${await server.currentSegment()}.gz.partial`;
        const bytes = async () => (await readFile(join(dir, partial)).catch(() => '')).length;
        await waitFor(async () => (await bytes()) > 10_000);
        first.child.kill('SIGINT');
        await first.exit;
        // Random garbage of the size of a longer earlier stream stands for one.
        const junk = Buffer.from(Array.from({ length: 2 * MB }, (_, i) => (i * 7919) >> 3));
        await put(partial, Buffer.concat([await readFile(join(dir, partial)), junk]));
        const second = receive();
        const finished = partial.slice(0, -'.partial'.length);
        await waitFor(async () => (await bytes()) > 0);
        await server.switchWal();
        await workload(server, { transactions: 1 });
        await waitFor(async () => (await readdir(dir)).includes(finished));
        second.child.kill('SIGINT');
        await second.exit;
        const scan = await scanDirectory(dir, MB, { check: 'all' });
        const warning = scan.warnings.find((w) => w.includes(finished));
        expect(warning).toMatch(/has incorrect uncompressed size -?\d+, skipping/);
        const third = receive('-v');
        third.child.stderr.on('data', () => third.child.kill('SIGINT'));
        expect(await third.exit).toContain(`compressed segment file "${finished}" has incorrect`);
        const parsed = parseSegmentFileName(finished, MB);
        expect(parsed).toMatchObject({ compression: 'gzip', partial: false });
      } finally {
        await server.destroy();
      }
    },
    120_000,
  );
});

it('checkSegment says what it found', async () => {
  await put(name(1), full());
  const file = { name: name(1), ...parseSegmentFileName(name(1), MB)! };
  expect(await checkSegment(dir, file, MB)).toBeUndefined();
  expect(file).toMatchObject({ size: MB });
});
