import fs, {
  copyFileSync,
  mkdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { LEDGER_FILE } from '../../src/archive/ledger.js';
import { openDirectory } from '../../src/archive/places/directory-archive.js';
import { segmentAt } from '../../src/archive/segment-source.js';
import { compressFile } from '../../src/codec/codec.js';
import { StorageError, UsageError } from '../../src/errors.js';
import type { Lsn } from '../../src/lsn.js';
import { copyFinding } from '../../src/verify/copies.js';
import { verifyArchive } from '../../src/verify/verify.js';
import { parseSegmentFileName, segmentStart } from '../../src/wal/file-name.js';
import { run } from '../cli/run.js';
import {
  check,
  edit,
  fixtureArchive,
  randomNumbers,
  SEGMENT,
  SYSTEM_ID,
  sampleArchive,
  writeLedger,
} from '../support/archives.js';
import { scratchDir } from '../support/scratch.js';
import { FIXTURES, loadFixture, unusedIn } from '../wal/fixtures.js';
import { makeWal } from '../wal/synthetic.js';

afterEach(() => vi.restoreAllMocks());

describe('nothing is found in', () => {
  test.each(FIXTURES)('%s, real WAL', async (name) => {
    const found = await check(fixtureArchive(name));
    expect(found.filter((f) => !f.startsWith('info'))).toEqual([]);
  });

  test.each(['gzip', 'lz4', 'zstd'] as const)('segments compressed with %s', async (method) => {
    const { directory, names } = sampleArchive(4);
    for (const [i, name] of names.entries()) {
      const path = join(directory, name);
      const suffix = { gzip: '.gz', lz4: '.lz4', zstd: '.zst' }[method];
      const target = path.replace(/(\.partial)?$/, (partial) => suffix + partial);
      const length = i === 3 ? 300_000 : SEGMENT;
      await compressFile(path, target, length, { method, sync: false });
      rmSync(path);
    }
    const found = await check(directory);
    expect(found.filter((f) => !f.startsWith('info torn-tail'))).toEqual([]);
  });

  test('an archive that is checked in pieces of one segment', async () => {
    const { directory } = sampleArchive(8);
    expect(await check(directory, { jobBytes: 1 })).toEqual([]);
    const across = fixtureArchive('record-across-segments');
    expect(await check(across, { jobBytes: 1 })).toEqual([]);
    expect(await check(fixtureArchive('promoted'), { jobBytes: 1 })).toEqual([]);
  });

  test('a partial that a receiver completes between the look at its name and the opening', async () => {
    const { directory, names } = sampleArchive(4);
    rmSync(join(directory, names[3]!));
    const path = join(directory, names[2]!);
    renameSync(path, `${path}.partial`);
    const real = fs.openSync;
    let asked = 0;
    vi.spyOn(fs, 'openSync').mockImplementation(((...args: Parameters<typeof fs.openSync>) => {
      if (args[0] === `${path}.partial` && asked++ === 0) renameSync(`${path}.partial`, path);
      return real(...args);
    }) as typeof fs.openSync);
    expect(await check(directory)).toEqual([]);
    expect(asked).toBe(1);
  });

  test('an archive with what belongs beside segments', async () => {
    const { directory, names } = sampleArchive(2);
    writeFileSync(join(directory, '.anything'), '');
    writeFileSync(join(directory, `${names[0]}.00000028.backup`), '');
    mkdirSync(join(directory, 'archive_status'));
    expect(await check(directory)).toEqual([]);
  });
});

describe('damage is found', () => {
  /** An archive of five segments to damage; finds the same in one piece and in many. */
  async function findings(damage: (a: ReturnType<typeof sampleArchive>) => void) {
    const archive = sampleArchive(5);
    damage(archive);
    const found = await check(archive.directory);
    const pieces = await check(archive.directory, { jobBytes: 1 });
    expect(pieces).toEqual(found);
    return { ...archive, found };
  }
  const path = (a: { directory: string; names: string[] }, i: number) =>
    join(a.directory, a.names[i]!);

  test('a removed segment', async () => {
    const { found, names } = await findings((a) => rmSync(path(a, 2)));
    expect(found).toEqual([`error gap ${names[2]}`]);
  });

  test('a truncated segment', async () => {
    const { found, names } = await findings((a) => edit(path(a, 2), (b) => b.subarray(0, 700_000)));
    expect(found).toEqual([`error wrong-size ${names[2]}`]);
  });

  test('an empty segment, and one that is too long', async () => {
    const { found, names } = await findings((a) => {
      edit(path(a, 1), () => Buffer.alloc(0));
      edit(path(a, 3), (b) => Buffer.concat([b, Buffer.alloc(1)]));
    });
    expect(found).toEqual([`error wrong-size ${names[1]}`, `error wrong-size ${names[3]}`]);
  });

  test('two segments that changed places', async () => {
    const { found, names } = await findings((a) => {
      renameSync(path(a, 1), `${path(a, 1)}.x`);
      renameSync(path(a, 2), path(a, 1));
      renameSync(`${path(a, 1)}.x`, path(a, 2));
    });
    expect(found).toEqual([`error wrong-segment ${names[1]}`, `error wrong-segment ${names[2]}`]);
  });

  test('a segment that was renamed', async () => {
    const { found, names } = await findings((a) =>
      renameSync(path(a, 2), join(a.directory, '000000010000000100000000')),
    );
    expect(found[0]).toBe(`error gap ${names[2]}`);
    expect(found).toContain('error wrong-segment 000000010000000100000000');
  });

  test('a segment of another cluster', async () => {
    const { found, names } = await findings((a) => {
      const foreign = sampleArchive(5, { systemId: 78n });
      copyFileSync(path(foreign, 2), path(a, 2));
    });
    expect(found).toEqual([`error foreign-cluster ${names[2]}`]);
  });

  test('a page of zeros, in the middle and at the end', async () => {
    const middle = await findings((a) => edit(path(a, 2), (b) => void b.fill(0, 81_920, 90_112)));
    expect(middle.found).toEqual([`error zeros ${middle.names[2]}`]);
    const end = await findings((a) => edit(path(a, 2), (b) => void b.fill(0, SEGMENT - 8192)));
    expect(end.found[0]).toBe(`error zeros ${end.names[2]}`);
    const all = await findings((a) => edit(path(a, 2), (b) => void b.fill(0)));
    expect(all.found).toEqual([`error zeros ${all.names[2]}`]);
  });

  test('a segment of noise, without a finding for each page', async () => {
    const random = randomNumbers();
    const { found, names } = await findings((a) =>
      edit(path(a, 2), (b) => {
        for (let i = 0; i < b.length; i++) b[i] = random() * 256;
      }),
    );
    expect(found).toEqual([`error page-magic ${names[2]}`]);
  });

  test('faults behind the first one', async () => {
    const { found, names } = await findings((a) =>
      edit(path(a, 2), (b) => {
        for (const at of [100_000, 400_000, 900_000]) b[at] = b[at]! ^ 1;
      }),
    );
    expect(found.filter((f) => f.endsWith(names[2]!)).length).toBe(3);
  });

  test('a compressed segment that is damaged or cut', async () => {
    const { directory, names } = sampleArchive(3);
    const plain = join(directory, names[1]!);
    await compressFile(plain, `${plain}.gz`, SEGMENT, { method: 'gzip', sync: false });
    rmSync(plain);
    const whole = readFileSync(`${plain}.gz`);
    const damaged = (change: Parameters<typeof edit>[1]) => {
      writeFileSync(`${plain}.gz`, whole);
      edit(`${plain}.gz`, change);
      return check(directory);
    };
    const file = `${names[1]}.gz`;
    const flipped = await damaged((b) => void b.writeUInt8(b[b.length >> 1]! ^ 4, b.length >> 1));
    expect(flipped).toContain(`error compression-damaged ${file}`);
    expect(await damaged((b) => b.subarray(0, -4))).toEqual([`error compression-damaged ${file}`]);
    expect(await damaged((b) => Buffer.concat([b, Buffer.from('x')]))).toEqual([
      `warning trailing-garbage ${file}`,
    ]);
  });

  const FLIPS = Number(process.env.WALKEEP_FLIPS ?? 200);
  test(`each of ${FLIPS} flipped bits`, { timeout: 30_000 + FLIPS * 100 }, async () => {
    const { directory, names, segmentStart } = sampleArchive(3);
    const file = join(directory, names[1]!);
    const good = readFileSync(file);
    const isUnused = unusedIn(good, { startLsn: segmentStart(1), segmentSize: SEGMENT });
    const random = randomNumbers(FLIPS);
    const missed: string[] = [];
    for (let i = 0; i < FLIPS; i++) {
      const at = Math.floor(random() * SEGMENT);
      const bit = 1 << Math.floor(random() * 8);
      if ((at % 8192 === 2 && bit === 4) || isUnused(at)) continue;
      edit(file, (b) => void b.writeUInt8(b[at]! ^ bit, at));
      // In turns as one stream and with a job of its own for each segment.
      const found = await check(directory, i % 2 === 0 ? {} : { jobBytes: 1 });
      if (!found.some((f) => f.startsWith('error'))) missed.push(`${at} ^ ${bit}`);
      writeFileSync(file, good);
    }
    expect(missed).toEqual([]);
  });
});

describe('partial segments', () => {
  test('a torn tail is information, anything else behind its end is not', async () => {
    const { directory, names, lsns } = sampleArchive(3);
    const file = join(directory, names[2]!);
    const last = lsns.at(-1)!;
    edit(file, (b) => void b.fill(0, Number(last % BigInt(SEGMENT)) + 30));
    expect(await check(directory)).toEqual([`info torn-tail ${names[2]}`]);
    edit(file, (b) => void b.fill(7, SEGMENT - 100));
    expect(await check(directory)).toEqual([`warning zeros ${names[2]}`]);
  });

  test('what was acknowledged must be there', async () => {
    const { directory, names, end, segmentStart } = sampleArchive(3);
    const file = join(directory, names[2]!);
    const good = readFileSync(file);
    const flushed = { type: 'flushed', lsn: end as Lsn, timeline: 1 } as const;
    await writeLedger(directory, flushed);
    expect(await check(directory)).toEqual([]);
    const used = Number(end - segmentStart(2));
    const error = [`error flushed-damaged ${names[2]}`];
    edit(file, (b) => void b.fill(0, used - 2000));
    expect(await check(directory)).toEqual(error);
    writeFileSync(file, good.subarray(0, used - 2000));
    expect(await check(directory)).toEqual(error);
    writeFileSync(file, '');
    expect(await check(directory)).toEqual(error);
    writeFileSync(file, good);
    edit(file, (b) => void b.writeUInt8(b[200_000]! ^ 1, 200_000));
    expect(await check(directory)).toEqual(error);
  });

  test('damage behind what was acknowledged is information', async () => {
    const { directory, names, segmentStart } = sampleArchive(3);
    const lsn = (segmentStart(2) + 9000n) as Lsn;
    await writeLedger(directory, { type: 'flushed', lsn, timeline: 1 });
    edit(join(directory, names[2]!), (b) => void b.fill(0, 81_920, 90_112));
    expect(await check(directory)).toEqual([`info zeros ${names[2]}`]);
  });

  test('an empty one is none', async () => {
    const { directory, names } = sampleArchive(3);
    writeFileSync(join(directory, names[2]!), '');
    expect(await check(directory)).toEqual([]);
  });

  test('one in the middle is a hole, unless only its name is wrong', async () => {
    const { directory, names } = sampleArchive(4);
    const name = `${names[1]}.partial`;
    renameSync(join(directory, names[1]!), join(directory, name));
    expect(await check(directory)).toEqual([`warning not-renamed ${name}`]);
    edit(join(directory, name), (b) => void b.fill(0, 500_000));
    const found = await check(directory);
    expect(found.filter((f) => f.startsWith('error'))).toEqual([`error partial-inside ${name}`]);
  });
});

describe('copies of a segment', () => {
  test('are compared', async () => {
    const { directory, names } = sampleArchive(3);
    const file = join(directory, names[1]!);
    await compressFile(file, `${file}.gz`, SEGMENT, { method: 'gzip', sync: false });
    await compressFile(file, `${file}.lz4`, SEGMENT, { method: 'lz4', sync: false });
    writeFileSync(`${file}.partial`, readFileSync(file).fill(0, 300_000));
    const others = [`${names[1]}.gz`, `${names[1]}.lz4`, `${names[1]}.partial`];
    expect(await check(directory)).toEqual(others.map((name) => `info duplicate ${name}`));

    edit(`${file}.partial`, (b) => void b.writeUInt8(b[4000]! ^ 1, 4000));
    const other = readFileSync(file);
    other[999_999] = other[999_999]! ^ 1;
    writeFileSync(join(directory, 'other'), other);
    const options = { method: 'gzip', sync: false } as const;
    await compressFile(join(directory, 'other'), `${file}.gz`, SEGMENT, options);
    rmSync(join(directory, 'other'));
    const { findings } = await verifyArchive(directory, { jobs: 1 });
    expect(
      findings.map((f) => [f.severity, f.code, f.file, Number(f.lsn ?? 0n) % SEGMENT]),
    ).toEqual([
      ['error', 'duplicate-differs', others[0], 999_999],
      ['info', 'duplicate', others[1], 0],
      ['error', 'duplicate-differs', others[2], 4000],
    ]);
  });
});

describe('two partials of a segment', () => {
  /** The plain one was left behind; the compressed one has all there is. */
  async function archive() {
    const { directory, names, end } = sampleArchive(3);
    const used = Number(end % BigInt(SEGMENT));
    const short = names[2]!;
    const long = short.replace('.partial', '.gz.partial');
    const content = readFileSync(join(directory, short)).subarray(0, used);
    writeFileSync(join(directory, long), gzipSync(content));
    edit(join(directory, short), (b) => b.fill(0, 200_000));
    await writeLedger(directory, { type: 'flushed', lsn: end as Lsn, timeline: 1 });
    return { directory, short, long, content };
  }

  test('the one that holds more is checked, the other is the duplicate', async () => {
    const { directory, short, long, content } = await archive();
    const { findings } = await verifyArchive(directory, { jobs: 1 });
    expect(findings).toMatchObject([
      { severity: 'info', code: 'duplicate', file: short, message: `the same WAL as in ${long}` },
    ]);
    const bad = Buffer.from(content).fill(7, 300_000, 300_100);
    writeFileSync(join(directory, long), gzipSync(bad));
    expect(await check(directory)).toContain(`error flushed-damaged ${long}`);
    // Damaged before the end of the other one, it is the worse one.
    writeFileSync(join(directory, long), gzipSync(bad.fill(7, 100_000, 100_100)));
    const found = await check(directory);
    expect(found).toContain(`error flushed-damaged ${short}`);
    expect(found).toContain(`error duplicate-differs ${long}`);
  });

  test('one that grew since is not called superfluous', async () => {
    const { directory, short, long } = await archive();
    const original = { ...parseSegmentFileName(short, SEGMENT)!, name: short };
    const file = segmentAt(join(directory, short), original.compression, { partial: true });
    const start = segmentStart(original.segment, SEGMENT);
    const place = openDirectory(directory);
    const finding = await copyFinding(place, { ...original, file, start }, long, SEGMENT);
    expect(finding).toMatchObject({ severity: 'warning', code: 'duplicate', file: long });
    expect(finding!.message).toContain('and more');
  });
});

describe('the ledger', () => {
  test('warns of accepted gaps, which are no error then', async () => {
    const { directory, names, segmentStart } = sampleArchive(6);
    for (const i of [2, 3]) rmSync(join(directory, names[i]!));
    expect(await check(directory)).toEqual([`error gap ${names[2]}`]);
    const gap = { from: segmentStart(2), to: segmentStart(4), timeline: 1, why: 'known' };
    await writeLedger(directory, { type: 'gap', ...gap });
    expect(await check(directory)).toEqual([`warning accepted-gap ${LEDGER_FILE}`]);
    const plain = await run('walkeep', 'verify', '-j', '1', directory);
    expect(plain.code).toBe(1);
    expect(plain.stdout).toMatch(/warning +\.walkeep-ledger at \S+ \(accepted-gap\)/);
    // Once nothing from before it is kept, no recovery comes by it.
    for (const i of [0, 1]) rmSync(join(directory, names[i]!));
    expect(await check(directory)).toEqual([`info accepted-gap ${LEDGER_FILE}`]);
    expect((await run('walkeep', 'verify', '-j', '1', directory)).code).toBe(0);
  });

  test('tells an accepted gap that was filled since for information', async () => {
    const { directory, segmentStart } = sampleArchive(6);
    const gap = { from: (segmentStart(1) + 8n) as Lsn, to: segmentStart(4), timeline: 1, why: '' };
    await writeLedger(directory, { type: 'gap', ...gap });
    expect(await check(directory)).toEqual([`info accepted-gap ${LEDGER_FILE}`]);
  });

  test('accepts a gap that begins inside a partial segment', async () => {
    const { directory, names, segmentStart } = sampleArchive(6);
    const partial = `${names[1]}.partial`;
    renameSync(join(directory, names[1]!), join(directory, partial));
    edit(join(directory, partial), (b) => void b.fill(0, 500_000));
    rmSync(join(directory, names[2]!));
    const from = (segmentStart(1) + 400_000n) as Lsn;
    await writeLedger(directory, { type: 'gap', from, to: segmentStart(3), timeline: 1, why: '' });
    const found = await check(directory);
    const known = `warning accepted-gap ${LEDGER_FILE}`;
    expect(found.filter((f) => !f.startsWith('info'))).toEqual([known]);
  });

  test('accepts a gap on its own way only', async () => {
    const directory = fixtureArchive('promoted');
    const child = '000000020000000000000008.partial';
    const content = readFileSync(join(directory, child));
    const { bytes } = makeWal([{ body: Buffer.alloc(100) }], {
      ...{ start: 0x900000n, timeline: 2, systemId: loadFixture('promoted').systemId },
      magic: content.readUInt16LE(0),
    });
    const nine = Buffer.alloc(SEGMENT);
    bytes.copy(nine);
    writeFileSync(join(directory, '000000020000000000000009.partial'), nine);
    const holes = async (timeline: number, from: bigint) => {
      const gap = { from: from as Lsn, to: 0x900000n as Lsn, timeline, why: 'known' };
      rmSync(join(directory, LEDGER_FILE), { force: true });
      await writeLedger(directory, { type: 'gap', ...gap });
      return (await check(directory)).filter((f) => f.includes('partial-inside'));
    };
    expect(await holes(2, 0x810000n)).toEqual([]);
    expect(await holes(1, 0x810000n)).toEqual([`error partial-inside ${child}`]);
    // The other way round: one of the child is none of the parent that went on.
    const parent = '000000010000000000000008.partial';
    writeFileSync(join(directory, parent), content.fill(0, 0x2f0f8));
    writeFileSync(join(directory, '000000010000000000000009.partial'), '');
    expect(await holes(2, 0x830000n)).toEqual([`error partial-inside ${parent}`]);
  });

  test('knows what is missing at the end', async () => {
    const { directory, names, end } = sampleArchive(4);
    await writeLedger(directory, { type: 'flushed', lsn: end as Lsn, timeline: 1 });
    expect(await check(directory)).toEqual([]);
    rmSync(join(directory, names[3]!));
    const missing = names[3]!.replace('.partial', '');
    expect(await check(directory)).toEqual([`error missing-end ${missing}`]);
    for (const name of names.slice(0, 3)) rmSync(join(directory, name));
    await writeLedger(directory, { type: 'timeline', timeline: 1, start: 1n as Lsn, why: '' });
    expect((await check(directory))[0]).toMatch(/^error missing-end/);
  });

  test('knows what was bad when it came', async () => {
    const { directory, segmentStart } = sampleArchive(3);
    await writeLedger(directory, { type: 'damage', lsn: segmentStart(1), timeline: 1, why: 'so' });
    expect(await check(directory)).toEqual([`info known-damage ${LEDGER_FILE}`]);
    expect(await check(directory, { since: segmentStart(2) })).toEqual([]);
  });

  test('decides whose cluster it is, and is checked itself', async () => {
    const { directory, names } = sampleArchive(3, { systemId: 5n });
    await writeLedger(directory);
    const foreign = names.map((name) => `error foreign-cluster ${name}`);
    expect(await check(directory)).toEqual(foreign);
    writeFileSync(join(directory, LEDGER_FILE), 'nonsense\n');
    expect(await check(directory)).toEqual([`error ledger-damaged ${LEDGER_FILE}`]);
  });
});

describe('timelines', () => {
  test('need their history files, which must agree', async () => {
    const directory = fixtureArchive('promoted');
    const history = join(directory, '00000002.history');
    const text = readFileSync(history, 'utf8');
    rmSync(history);
    expect(await check(directory)).toEqual(['warning history-missing 00000002.history']);
    writeFileSync(history, 'nonsense\n');
    expect((await check(directory))[0]).toBe('error history-damaged 00000002.history');
    writeFileSync(history, text);
    writeFileSync(join(directory, '00000003.history'), `1\t0/1000\twrong\n2\t0/830000\tx\n`);
    expect(await check(directory)).toEqual(['error history-conflict 00000003.history']);
  });

  test('must be those of the pages', async () => {
    const directory = fixtureArchive('promoted');
    const history = join(directory, '00000002.history');
    edit(history, (b) => Buffer.from(b.toString().replace(/0\/\w+/, '0/840000')));
    const found = await check(directory);
    expect(found).toEqual([
      'error page-timeline 000000020000000000000008.partial'.replace('error', 'warning'),
    ]);
  });

  test('have no hole where they branch', async () => {
    const directory = fixtureArchive('promoted');
    rmSync(join(directory, '000000010000000000000007'));
    expect(await check(directory)).toEqual(['error gap 000000010000000000000007']);
  });

  test('need what is between the end of a partial and the fork', async () => {
    const directory = fixtureArchive('promoted');
    const seven = join(directory, '000000010000000000000007');
    edit(seven, (b) => b.fill(0, 20_000));
    renameSync(seven, `${seven}.partial`);
    const hole = 'error partial-inside 000000010000000000000007.partial';
    expect(await check(directory)).toContain(hole);
    expect(await check(directory, { jobBytes: 1 })).toContain(hole);
    const gap = { from: 0x701000n as Lsn, to: 0x800000n as Lsn, timeline: 2, why: 'known' };
    await writeLedger(directory, { type: 'gap', ...gap });
    expect(await check(directory)).not.toContain(hole);
  });

  test('need the WAL of the segment in which they branch, of the parent or their own', async () => {
    const directory = fixtureArchive('promoted');
    const child = join(directory, '000000020000000000000008.partial');
    const parent = join(directory, '000000010000000000000008.partial');
    const content = readFileSync(child);
    const short = Buffer.from(content).fill(0, 0x10000);
    writeFileSync(parent, short);
    // The child's file has the WAL before the fork as well.
    expect(await check(directory)).toEqual(['info torn-tail 000000010000000000000008.partial']);
    rmSync(child);
    expect(await check(directory)).toContain(
      'error partial-inside 000000010000000000000008.partial',
    );
    writeFileSync(parent, content.fill(0, 0x2f0f8));
    expect(await check(directory)).toEqual([]);
  });

  test('that have nothing yet need what their parent had', async () => {
    const directory = fixtureArchive('promoted');
    const child = join(directory, '000000020000000000000008.partial');
    const parent = join(directory, '000000010000000000000008.partial');
    const content = readFileSync(child);
    for (const partial of [undefined, '', Buffer.alloc(SEGMENT)]) {
      rmSync(child, { force: true });
      if (partial !== undefined) writeFileSync(child, partial);
      const { findings } = await verifyArchive(directory, { jobs: 1 });
      expect(findings).toMatchObject([
        { severity: 'error', code: 'gap', file: '000000020000000000000008', lsn: 0x800000n },
      ]);
      expect(findings[0]!.message).toBe('one segment is missing: WAL from 0/800000 to 0/82F0F8');
      // Its receiver has only begun with it.
      writeFileSync(parent, Buffer.from(content).fill(0, 0x2f0f8));
      expect(await check(directory)).toEqual([]);
      writeFileSync(parent, Buffer.from(content).fill(0, 0x10000));
      const found = await check(directory);
      expect(found).toContain('error partial-inside 000000010000000000000008.partial');
      rmSync(parent);
    }
    rmSync(child);
    // A later timeline that branched off in the same segment has it all.
    writeFileSync(join(directory, '00000003.history'), '1\t0/82F0F8\t\n2\t0/830000\t\n');
    writeFileSync(join(directory, '000000030000000000000008'), content);
    expect((await check(directory)).filter((f) => f.includes(' gap '))).toEqual([]);
    // An archive that begins with the new timeline.
    const fresh = scratchDir('archive');
    copyFileSync(join(directory, '00000002.history'), join(fresh, '00000002.history'));
    expect(await check(fresh)).toEqual([]);
    writeFileSync(join(fresh, '000000020000000000000008.partial'), Buffer.alloc(SEGMENT));
    expect(await check(fresh)).toEqual([]);
  });

  test('a record that a promotion cut is checked with the new timeline', async () => {
    const directory = fixtureArchive('promoted');
    const last = join(directory, '000000010000000000000007');
    edit(last, (b) => void b.writeUInt8(b[9000]! ^ 1, 9000));
    expect(await check(directory)).toContain('error record-crc 000000010000000000000007');
    edit(last, (b) => void b.writeUInt8(b[9000]! ^ 1, 9000));
    // The last bytes of the old timeline's last complete segment: behind its XLOG_SWITCH.
    edit(last, (b) => void b.writeUInt8(1, SEGMENT - 1));
    expect((await check(directory)).filter((f) => f.includes('000000010000000000000007'))).toEqual(
      [],
    );
  });
});

describe('what to check', () => {
  test('--since and --timeline leave out the rest', async () => {
    const { directory, names, segmentStart } = sampleArchive(4);
    edit(join(directory, names[0]!), (b) => void b.writeUInt8(b[9000]! ^ 1, 9000));
    expect(await check(directory)).toHaveLength(1);
    expect(await check(directory, { since: segmentStart(1) })).toEqual([]);
    expect(await check(directory, { timeline: 1 })).toHaveLength(1);
    await expect(check(directory, { timeline: 2 })).rejects.toThrow(UsageError);
  });

  test('--quick sees headers and sizes', async () => {
    const { directory, names } = sampleArchive(6);
    edit(join(directory, names[0]!), (b) => void b.writeUInt8(b[9000]! ^ 1, 9000));
    edit(join(directory, names[1]!), (b) => b.subarray(1));
    rmSync(join(directory, names[2]!));
    edit(join(directory, names[3]!), (b) => void b.writeUInt8(1, 24));
    edit(join(directory, names[4]!), (b) => void b.fill(0));
    expect(await check(directory, { quick: true })).toEqual([
      `error wrong-size ${names[1]}`,
      `error page-magic ${names[1]}`,
      `error gap ${names[2]}`,
      `error foreign-cluster ${names[3]}`,
      `error zeros ${names[4]}`,
    ]);
  });

  test('stray files are named', async () => {
    const { directory } = sampleArchive(2);
    writeFileSync(join(directory, 'notes.txt'), '');
    writeFileSync(join(directory, '00000002.history.tmp'), '');
    mkdirSync(join(directory, 'sub'));
    expect(await check(directory)).toEqual([
      'info temporary-file 00000002.history.tmp',
      'warning stray-file notes.txt',
      'warning stray-file sub',
    ]);
  });

  test('no archive, no answer', async () => {
    const empty = scratchDir('empty');
    await expect(check(empty)).rejects.toThrow(StorageError);
    await expect(check(join(empty, 'none'))).rejects.toThrow(/No such file or directory/);
  });

  test('an aborted check ends with the reason', async () => {
    const { directory } = sampleArchive(2);
    const signal = AbortSignal.abort(new Error('enough'));
    await expect(verifyArchive(directory, { signal, jobs: 1 })).rejects.toThrow('enough');
  });

  test('progress and summary count all bytes', async () => {
    const { directory } = sampleArchive(4);
    let last = { bytes: 0, totalBytes: 0 };
    const onProgress = (progress: typeof last) => {
      last = progress;
    };
    const { summary } = await verifyArchive(directory, { jobs: 1, onProgress });
    expect(last).toEqual({ bytes: 4 * SEGMENT, totalBytes: 4 * SEGMENT });
    expect(summary).toMatchObject({
      systemId: SYSTEM_ID,
      segmentSize: SEGMENT,
      segments: 4,
      timelines: 1,
      bytes: 4 * SEGMENT,
      errors: 0,
      warnings: 0,
    });
  });
});
