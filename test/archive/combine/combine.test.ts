import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { describe, expect, it } from 'vitest';
import { CorruptObjectError } from '../../../src/errors.js';
import { MemoryObjects, MemoryStore } from '../../../src/store/memory.js';
import { Random } from '../../simulation/random.js';
import { incrementalFile } from '../../support/incremental-file.js';
import { ModelTable } from '../../support/model-table.js';
import { scratchDir } from '../../support/scratch.js';
import {
  type BackupFiles,
  combinedFiles,
  manifestOf,
  storeChain,
} from '../../support/stored-chain.js';

const GEOMETRY = { blockSize: 1024, segmentBlocks: 8 };
const TABLE = 'base/5/16384';
const MOVED = 'pg_tblspc/16388/PG_18_202506291/5/16390';

/** Names and contents, in an order that compares well. */
function listed(files: BackupFiles) {
  return [...files].map(([path, content]) => [path, content.toString('hex')] as const).sort();
}

function change(table: ModelTable, random: Random): void {
  const block = random.below(table.length);
  const act = random.below(8);
  if (table.length === 0 || act === 0) table.grow(1 + random.below(4));
  else if (act === 1 && table.heap.limit === undefined) table.grow(random.below(3), false);
  else if (act === 2) table.truncate(block);
  else if (act === 3) table.lock(block);
  else if (act < 6) table.vacuum(block);
  else table.change(block);
}

describe('a chain of backups', () => {
  it('is combined to what the tables were, with true maps, over random histories', async () => {
    const random = new Random(23);
    let compared = 0;
    for (let round = 0; round < 20; round++) {
      const tables = [TABLE, MOVED].map((path) => ({ path, table: new ModelTable(GEOMETRY) }));
      for (const { table } of tables) table.grow(8 + random.below(12));
      for (const { table } of tables) for (let b = 0; b < table.length; b++) table.vacuum(b);
      const backups: Map<string, Buffer>[] = [];
      let real = new Map<string, Buffer>();
      for (let n = 0; n < 5; n++) {
        const made = tables.map(({ path, table }) => table.backUp(path, n === 0));
        backups.push(new Map(made.flatMap(({ backup }) => [...backup])));
        real = new Map(made.flatMap((one) => [...one.real]));
        if (n === 4) break;
        for (const { table } of tables)
          for (let i = random.below(7); i > 0; i--) change(table, random);
      }
      const chain = await storeChain(backups, { geometry: GEOMETRY });
      const { files } = await combinedFiles(chain);
      const expected = new Map([...real].filter(([path]) => files.has(path)));
      expect(listed(files)).toEqual(listed(expected));
      compared += files.size;
    }
    expect(compared).toBeGreaterThan(50);
  });

  it('tells of a map of several pages what its table has in several files', async () => {
    const geometry = { blockSize: 1024, segmentBlocks: 3000 };
    const table = new ModelTable(geometry);
    table.grow(8500);
    for (let block = 0; block < table.length; block++) table.vacuum(block);
    const backups = [table.backUp(TABLE, true).backup];
    // On either side of where a file, and a page of the map, ends.
    for (const block of [0, 2999, 3000, 3999, 4000, 5999, 6000, 7999, 8000]) table.change(block);
    for (const block of [1, 3001, 8001]) table.lock(block);
    table.vacuum(3000);
    table.truncate(8400);
    const { backup, real } = table.backUp(TABLE);
    backups.push(backup);
    table.grow(100);
    const last = table.backUp(TABLE);
    backups.push(last.backup);
    expect(real.size).toBe(4);
    const { files } = await combinedFiles(await storeChain(backups, { geometry, frame: 1 << 20 }));
    expect(listed(files)).toEqual(listed(last.real));
  });

  it('is read frame by frame, each about once, with as much memory as it has backups', async () => {
    const tables = Array.from({ length: 60 }, (_, n) => {
      const table = new ModelTable(GEOMETRY);
      table.grow(3);
      return { path: `base/5/${20_000 + n}`, table };
    });
    const made = (full: boolean) =>
      new Map(tables.flatMap(({ path, table }) => [...table.backUp(path, full).backup]));
    const backups = [made(true)];
    for (let n = 0; n < 4; n++) {
      for (const { table } of tables) table.change(n % 3);
      backups.push(made(false));
    }
    const chain = await storeChain(backups, { geometry: GEOMETRY });
    const { files, frames } = await combinedFiles(chain);
    const stored = chain.records.reduce((sum, { size }) => sum + Math.ceil(size / 5000), 0);
    expect(files.size).toBe(60);
    expect(frames.reads).toBeLessThan(stored * 1.2);
    const few = await combinedFiles(chain, 1);
    expect(listed(few.files)).toEqual(listed(files));
  });
});

describe('a chain of encrypted backups', () => {
  it('is read volume by volume, and of each its frames, each about once', async () => {
    const identity = await generateX25519Identity();
    const file = join(scratchDir('identity'), 'identity');
    writeFileSync(file, identity);
    const recipients = [await identityToRecipient(identity)];
    const geometry = { blockSize: 1024, segmentBlocks: 200 };
    const tables = Array.from({ length: 4 }, (_, n) => {
      const table = new ModelTable(geometry);
      table.grow(100);
      return { path: `base/5/${20_000 + n}`, table };
    });
    let real = new Map<string, Buffer>();
    const made = (full: boolean) => {
      const all = tables.map(({ path, table }) => table.backUp(path, full));
      real = new Map(all.flatMap((one) => [...one.real]));
      return new Map(all.flatMap(({ backup }) => [...backup]));
    };
    const backups = [made(true)];
    for (let n = 0; n < 4; n++) {
      for (const { table } of tables) for (let b = n; b < 100; b += 3) table.change(b);
      backups.push(made(false));
    }
    for (const codec of ['none', 'gzip'] as const) {
      const objects = new MemoryObjects();
      const store = new MemoryStore({ objects });
      const sizes = { frame: 1000, volume: 30_000 };
      const chain = await storeChain(backups, { geometry, store, codec, recipients, ...sizes });
      const { files, frames } = await combinedFiles(chain, undefined, { identityFiles: [file] });
      expect(listed(files)).toEqual(listed(new Map([...real].filter(([path]) => files.has(path)))));
      expect(files.size).toBe(4);
      const stored = chain.records.reduce((sum, { size }) => sum + Math.ceil(size / 1000), 0);
      const volumes = chain.records.flatMap(({ tars }) => tars.flatMap((tar) => tar.volumes));
      expect(stored / volumes.length).toBeGreaterThan(20);
      expect(frames.reads).toBeLessThan(stored * 1.2);
      const got = store.calls.filter(({ op, key }) => op === 'get' && /\.tar/.test(key));
      expect(got.length).toBeLessThan(volumes.length * 1.2);
    }
  });
});

describe('what cannot be combined', () => {
  const blocks = (...numbers: number[]) =>
    new Map(numbers.map((n) => [n, Buffer.alloc(1024, n + 1)]));
  const part = (...numbers: number[]) => incrementalFile(blocks(...numbers), 4, GEOMETRY);
  const whole = Buffer.alloc(4096, 7);
  const PART = 'base/5/INCREMENTAL.16384';

  async function problem(
    backups: BackupFiles[],
    options: Partial<Parameters<typeof storeChain>[1]> = {},
  ): Promise<Error & { key?: string }> {
    const chain = await storeChain(backups, { geometry: GEOMETRY, ...options });
    return combinedFiles(chain).then(
      () => expect.unreachable(),
      (e) => e,
    );
  }

  it.each<[string, [string, Buffer][][], RegExp]>([
    [
      'a file that an older backup lacks',
      [[[TABLE, whole]], [], [[PART, part(1)]]],
      /"base\/5\/16384" of backup 20261128T010100I-3fa91c is not there, and base\/5\/INCREM/,
    ],
    [
      'one that is nowhere whole',
      [[[PART, part(1)]], [[PART, part(1)]]],
      /INCREMENTAL.16384" of backup 20261128T010000F-3fa91c is there in part/,
    ],
    [
      'one that is there twice',
      [
        [[TABLE, whole]],
        [
          [TABLE, whole],
          [PART, part(1)],
        ],
      ],
      /"base\/5\/16384" of backup 20261128T010100I-3fa91c is there whole and in part/,
    ],
    [
      'an incremental file that is none',
      [[[TABLE, whole]], [[PART, whole]]],
      /INCREMENTAL.16384" of backup 20261128T010100I-3fa91c is no whole incremental file/,
    ],
  ])('%s', async (_, backups, message) => {
    const e = await problem(backups.map((files) => new Map(files)));
    expect(e).toBeInstanceOf(CorruptObjectError);
    expect(e.message).toMatch(message);
  });

  it('a file that is not what the manifest of its own backup says, used or not', async () => {
    const full = new Map([[TABLE, whole]]);
    // Its blocks are all in the newer one; it is read, and compared, all the same.
    const middle = new Map([[PART, part(2)]]);
    const last = new Map([[PART, part(1, 2)]]);
    for (const [n, [path, content]] of [...full, ...middle, ...last].entries()) {
      const other = Buffer.from(content);
      other.writeUInt8(other.readUInt8(other.length - 1) ^ 1, other.length - 1);
      const e = await problem([full, middle, last], {
        manifests: { [n]: manifestOf(new Map([[path, other]])) },
      });
      expect(e).toBeInstanceOf(CorruptObjectError);
      expect(e.message).toMatch(/is not what the manifest of that backup says/);
      expect(e.message).toContain(`"${path}" of backup 20261128T010${n}00`);
      const none = await problem([full, middle, last], {
        manifests: { [n]: manifestOf(new Map()) },
      });
      expect(none.message).toMatch(/is not in its manifest/);
    }
  });

  it('a backup that was made from another one', async () => {
    const backups = [new Map([[TABLE, whole]]), new Map([[PART, part(1)]])];
    const elsewhere = (label: string) =>
      label.replace('FROM LSN: 0/2000028', 'FROM LSN: 0/2000128');
    const wrong = await problem(backups, { labels: { 1: elsewhere } });
    expect(wrong.message).toMatch(
      /is based on 0\/2000128 on timeline 1, and 2026\S+ begins at 0\/2/,
    );
    const full = await problem(backups, {
      labels: { 1: (l) => l.replace(/INCREMENTAL.*\n/g, '') },
    });
    expect(full.message).toMatch(/it is a full one/);
  });
});
