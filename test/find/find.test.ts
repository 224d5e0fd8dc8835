import { readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { beforeAll, describe, expect, test } from 'vitest';
import { compressFile } from '../../src/codec/codec.js';
import { UsageError } from '../../src/errors.js';
import type { TransactionEvent, WalEvent } from '../../src/find/event.js';
import { type FindOptions, findEvents, findMoment } from '../../src/find/find.js';
import { recoveryTarget, targetLines } from '../../src/find/target.js';
import { type Lsn, parseLsn } from '../../src/lsn.js';
import { segmentFileName, segmentOf } from '../../src/wal/file-name.js';
import type { TimestampTz } from '../../src/wal/records/timestamp.js';
import { run } from '../cli/run.js';
import { scratchDir } from '../support/scratch.js';
import { loadFixture, type WalFixture } from '../wal/fixtures.js';
import { makeWal } from '../wal/synthetic.js';

/** Writes a fixture's segments as an archive; the last one is partial. */
async function archive(
  f: WalFixture,
  suffix: '' | '.gz' | '.lz4' = '',
  change: (name: string, bytes: Buffer) => Buffer | undefined = (_, bytes) => bytes,
): Promise<string> {
  const dir = scratchDir('archive');
  for (let at = 0; at < f.bytes.length; at += f.segmentSize) {
    const lsn = f.start + BigInt(at);
    const last = at + f.segmentSize >= f.bytes.length;
    const timeline = f.history && last ? f.history.timeline : 1;
    const plain = segmentFileName(timeline, segmentOf(lsn, f.segmentSize), f.segmentSize);
    const bytes = change(plain, Buffer.from(f.bytes.subarray(at, at + f.segmentSize)));
    if (!bytes) continue;
    const path = join(dir, `${plain}${suffix}${last ? '.partial' : ''}`);
    if (suffix === '.gz') writeFileSync(path, gzipSync(bytes));
    else if (suffix === '.lz4') {
      writeFileSync(join(dir, '.plain'), bytes);
      await compressFile(join(dir, '.plain'), path, bytes.length, { method: 'lz4' });
    } else writeFileSync(path, bytes);
  }
  const [parent] = f.history?.ancestors ?? [];
  if (parent) {
    const text = `1\t${f.info.switchPoint}\t${parent.reason}\n`;
    writeFileSync(join(dir, '00000002.history'), text);
  }
  return dir;
}

async function events(dir: string, options: FindOptions = {}): Promise<WalEvent[]> {
  const found: WalEvent[] = [];
  await findEvents(dir, options, (event) => {
    found.push(event);
    return false;
  });
  return found;
}

const isCommit = (e: WalEvent): e is TransactionEvent => e.kind === 'commit';
const xids = (found: readonly WalEvent[]) => found.filter(isCommit).map((e) => e.xid);

const promoted = loadFixture('promoted');
const mixed = loadFixture('mixed-15');
let all: WalEvent[];
let dir: string;

beforeAll(async () => {
  dir = await archive(mixed);
  all = await events(dir);
});

describe('the way through an archive', () => {
  test.each(['', '.gz', '.lz4'] as const)('packed as "%s": the same events', async (suffix) => {
    expect(await events(await archive(mixed, suffix))).toEqual(all);
    const kinds = (await events(await archive(promoted, suffix))).map((e) => e.kind);
    expect(kinds.slice(-3)).toEqual(['branch', 'end-of-recovery', 'commit']);
    expect(kinds.filter((k) => k === 'damage')).toEqual([]);
  });

  test('a partial that is cut off ends where it ends', async () => {
    const cut = await archive(mixed, '', (_, bytes) => bytes.subarray(0, 300_000));
    const some = await events(cut);
    expect(some.length).toBeGreaterThan(3);
    expect(some).toEqual(all.slice(0, some.length));
  });

  test('follows the newest timeline, or another one to its end', async () => {
    const both = await archive(promoted);
    const branch = parseLsn(promoted.info.switchPoint as string);
    const newest = await events(both);
    expect(newest.filter((e) => e.kind === 'branch')).toMatchObject([
      { lsn: branch, parent: 1, child: 2, followed: true, reason: 'no recovery target specified' },
    ]);
    const timelines = newest.filter(isCommit).map((e) => [e.lsn < branch, e.onTimeline]);
    expect(new Set(timelines.map(String))).toEqual(new Set(['true,1', 'false,2']));
    // Without its copy of the segment in which it branches off, nothing of the child is left.
    const old = await events(both, { timeline: 1 });
    expect(xids(old)).toEqual(xids(newest.filter((e) => e.lsn < 0x80_0000n)));
    await expect(events(both, { timeline: 7 })).rejects.toThrow(UsageError);
    rmSync(join(both, '00000002.history'));
    const result = await findEvents(both, {}, () => false);
    expect(result).toMatchObject({ timeline: 2, orphan: true });
    await expect(events(scratchDir('empty'))).rejects.toThrow(/has no WAL/);
  });

  test('a complete copy comes before a partial one, which fills in where it is short', async () => {
    const [name] = [segmentFileName(1, segmentOf(mixed.start, mixed.segmentSize), 1 << 20)];
    const two = await archive(mixed);
    writeFileSync(join(two, `${name}.gz.partial`), gzipSync(mixed.bytes).subarray(0, 60_000));
    expect(await events(two)).toEqual(all);
    const short = await archive(mixed, '', (_, bytes) => bytes.subarray(0, 100_000));
    writeFileSync(join(short, `${name}.gz.partial`), gzipSync(mixed.bytes));
    expect(await events(short)).toEqual(all);
  });
});

describe('of several partials of a segment the one that holds most is read first', () => {
  test('on one timeline', async () => {
    const [name] = [segmentFileName(1, segmentOf(mixed.start, mixed.segmentSize), 1 << 20)];
    const two = await archive(mixed, '', (_, bytes) => bytes.fill(0, 30_000));
    expect((await events(two)).length).toBeLessThan(all.length);
    writeFileSync(join(two, `${name}.gz.partial`), gzipSync(mixed.bytes));
    expect(await events(two)).toEqual(all);
  });

  test("and where a timeline begins, the parent's", async () => {
    const both = await archive(promoted);
    const child = join(both, '000000020000000000000008.partial');
    const content = readFileSync(child);
    const fork = parseLsn(promoted.info.switchPoint as string);
    const whole = await events(both);
    const before = xids(whole.filter((e) => e.lsn < fork));
    writeFileSync(
      join(both, '000000010000000000000008.partial'),
      Buffer.from(content).fill(0, Number(fork % (1n << 20n))),
    );
    expect(xids(await events(both))).toEqual(xids(whole));
    for (const begun of [0, 30_000]) {
      writeFileSync(child, Buffer.from(content).fill(0, begun));
      const found = await events(both);
      expect(xids(found)).toEqual(before);
      expect(found.filter((e) => e.kind === 'damage')).toEqual([]);
    }
  });
});

describe('damage', () => {
  test('a flipped byte costs one page or record; the rest is found', async () => {
    for (const at of [123_456, 300_000, 500_017]) {
      const broken = await archive(mixed, '', (_, bytes) => {
        bytes[at]! ^= 0x10;
        return bytes;
      });
      const found = await events(broken);
      const damages = found.filter((e) => e.kind === 'damage');
      expect(damages.length).toBe(1);
      const [damage] = damages;
      expect(damage!.from).toBeLessThanOrEqual(mixed.start + BigInt(at));
      const resumed = damage!.resumedAt as Lsn;
      expect(resumed).toBeGreaterThan(damage!.from);
      expect(resumed - damage!.from).toBeLessThan(40_000n);
      const rest = found.filter((e) => e.kind !== 'damage');
      const sound = all.filter((e) => e.lsn < damage!.from || e.lsn >= resumed + 8192n);
      expect(rest.map((e) => e.lsn)).toEqual(expect.arrayContaining(sound.map((e) => e.lsn)));
      expect(new Set(rest.map((e) => e.lsn)).size).toBe(rest.length);
    }
  });

  test('pages of zeros and of noise in between', async () => {
    for (const fill of [0, 0xa5]) {
      const broken = await archive(mixed, '', (_, bytes) => bytes.fill(fill, 262_000, 300_000));
      const found = await events(broken);
      const damages = found.filter((e) => e.kind === 'damage');
      expect(damages.length).toBe(1);
      expect(damages[0]!.resumedAt).toBeGreaterThan(mixed.start + 299_000n);
      const end = mixed.start + 320_000n;
      expect(xids(found.filter((e) => e.lsn > end))).toEqual(xids(all.filter((e) => e.lsn > end)));
    }
  });

  test('a missing segment, one of another cluster, one that is no WAL', async () => {
    const wal = promoted;
    const whole = await events(await archive(wal));
    const behind = (found: WalEvent[]) => xids(found.filter((e) => e.lsn >= 0x80_2000n));
    const foreign = makeWal(
      Array.from({ length: 40 }, () => ({ body: new Uint8Array(25_000) })),
      { start: 0x70_0000n, systemId: 4n },
    );
    const changes: [string, (bytes: Buffer) => Buffer | undefined, RegExp][] = [
      ['missing', () => undefined, /WAL is missing: 0\/700000 to 0\/800000/],
      [
        'foreign',
        (bytes) => Buffer.concat([foreign.bytes, bytes.subarray(foreign.bytes.length)]),
        /another cluster|magic/,
      ],
      ['noise', (bytes) => bytes.fill(0x77), /magic/],
      ['zeros', (bytes) => bytes.fill(0), /zeros/],
      ['short', (bytes) => bytes.subarray(0, 50_000), /missing/],
    ];
    for (const [what, change, message] of changes) {
      const broken = await archive(wal, '', (name, bytes) =>
        name.endsWith('07') ? change(bytes) : bytes,
      );
      const found = await events(broken);
      const damages = found.filter((e) => e.kind === 'damage');
      expect({ what, n: damages.length }).toEqual({ what, n: 1 });
      expect(damages[0]!.message).toMatch(message);
      expect(behind(found)).toEqual(behind(whole));
      const result = await findEvents(broken, {}, () => false);
      expect(result.damaged).toBe(1);
    }
    const garbled = await archive(wal, '.gz');
    const path = join(garbled, '000000010000000000000007.gz');
    const bytes = readFileSync(path);
    bytes.fill(0x11, 15_000, 15_100);
    writeFileSync(path, bytes);
    const found = await events(garbled);
    expect(found.filter((e) => e.kind === 'damage')[0]!.message).toMatch(/could not decompress/);
    expect(behind(found)).toEqual(behind(whole));
  });
});

describe('a complete file at the end of an archive', () => {
  const commits = Array.from({ length: 40 }, () => ({ body: new Uint8Array(50_000) }));
  const wal = makeWal(commits, { start: 0x70_0000n });
  const size = 1 << 20;
  const whole = wal.bytes.subarray(0, size);
  const name = segmentFileName(1, 7n, size);

  async function damages(files: Record<string, Uint8Array>): Promise<string[]> {
    const at = scratchDir('archive');
    for (const [file, bytes] of Object.entries(files)) writeFileSync(join(at, file), bytes);
    const found = await events(at);
    return found.flatMap((e) => (e.kind === 'damage' ? [e.message] : []));
  }

  test('is not the end of the WAL where it is cut short', async () => {
    expect(await damages({ [name]: whole })).toEqual([]);
    const missing = ['WAL is missing: 0/77A120 to 0/800000'];
    expect(await damages({ [name]: whole.subarray(0, 500_000) })).toEqual(missing);
    expect(await damages({ [`${name}.partial`]: whole.subarray(0, 500_000) })).toEqual([]);
    const zeros = Buffer.from(whole).fill(0, 500_000);
    expect(await damages({ [name]: zeros })).toEqual([expect.stringContaining('zeros')]);
    // What a partial has instead is not all either.
    const both = { [name]: whole.subarray(0, 400_000), [`${name}.partial`]: zeros };
    expect(await damages(both)).toEqual([expect.stringContaining('zeros')]);
  });

  test('is not, compressed and cut short', async () => {
    const zipped = gzipSync(whole, { level: 0 });
    const cut = zipped.subarray(0, zipped.length >> 1);
    expect(await damages({ [`${name}.gz`]: cut })).toEqual([
      expect.stringMatching(/^WAL is missing: 0\/7\w+ to 0\/800000$/),
    ]);
    expect(await damages({ [`${name}.gz.partial`]: cut })).toEqual([]);
    const garbled = Buffer.from(gzipSync(wal.bytes)).fill(0x11, 300, 400);
    expect((await damages({ [`${name}.gz`]: garbled })).length).toBe(1);
  });

  test('makes "not found" a doubt', async () => {
    const at = scratchDir('archive');
    writeFileSync(join(at, name), whole.subarray(0, 500_000));
    expect((await run('walkeep', 'find', '--xid', '424242', at)).code).toBe(2);
    writeFileSync(join(at, name), whole);
    expect((await run('walkeep', 'find', '--xid', '424242', at)).code).toBe(1);
  });
});

describe('what is wanted', () => {
  test('LSNs, xids, names, drops, limits', async () => {
    const commits = all.filter(isCommit);
    const [a, b] = [commits[3]!, commits[7]!];
    expect(await events(dir, { since: a.lsn, until: b.lsn })).toEqual(
      all.filter((e) => e.lsn >= a.lsn && e.lsn < b.lsn),
    );
    const parent = commits.find((e) => e.subxids.length > 0)!;
    expect(await events(dir, { xid: parent.xid })).toEqual([parent]);
    expect(await events(dir, { xid: parent.subxids[0]! })).toEqual([parent]);
    const points = await events(dir, { restorePoint: 'before the drop' });
    expect(points.map((e) => e.kind)).toEqual(['restore-point']);
    expect(await events(dir, { restorePoint: 'Before the drop' })).toEqual([]);
    const drops = (await events(dir, { drops: true })) as TransactionEvent[];
    expect(drops.length).toBe(2);
    expect(drops[1]!.droppedStatistics[0]!.objectId).toBe(BigInt(drops[0]!.dropped[0]!.relNumber));
    let n = 0;
    await findEvents(dir, {}, () => ++n >= 3);
    expect(n).toBe(3);
  });

  test('times, to the microsecond', async () => {
    const commits = all.filter(isCommit);
    const [a, b] = [commits[2]!, commits[9]!];
    const found = await events(dir, { after: a.time, before: b.time });
    expect(xids(found)).toEqual(xids(commits.slice(2, 10)));
    const inside = { after: (a.time + 1n) as TimestampTz, before: (b.time - 1n) as TimestampTz };
    expect(xids(await events(dir, inside))).toEqual(xids(commits.slice(3, 9)));
    for (const [time, last, next] of [
      [a.time, a, commits[3]],
      [(a.time - 1n) as TimestampTz, commits[1], a],
      [(commits[0]!.time - 1n) as TimestampTz, undefined, commits[0]],
      [(commits.at(-1)!.time + 5n) as TimestampTz, commits.at(-1), undefined],
    ] as const) {
      const moment = await findMoment(dir, time, {});
      expect([moment.last?.xid, moment.next?.xid]).toEqual([last?.xid, next?.xid]);
      expect(await findMoment(dir, time, { full: true })).toEqual(moment);
    }
  });

  test('the search by halves begins at the right segment', async () => {
    const hour = 3_600_000_000n;
    // 16 segments with a commit each, four hours apart; some have none.
    const records = Array.from({ length: 16 }, (_, i) => {
      const commit = Buffer.alloc(2 + 8);
      commit.set([255, 8]);
      commit.writeBigInt64LE(BigInt(i) * 4n * hour, 2);
      const filler = { body: new Uint8Array(1_040_000), rmgr: 21 };
      return i % 7 === 3 ? [filler] : [{ body: commit, rmgr: 1, info: 0, xid: i + 100 }, filler];
    });
    const wal = makeWal(records.flat(), { start: 0x500_0000n });
    const many = scratchDir('archive');
    for (let at = 0; at < wal.bytes.length; at += wal.segmentSize) {
      const name = segmentFileName(1, segmentOf(wal.start + BigInt(at), 1 << 20), 1 << 20);
      const bytes = wal.bytes.subarray(at, at + wal.segmentSize);
      writeFileSync(join(many, bytes.length < 1 << 20 ? `${name}.partial` : name), bytes);
    }
    for (const i of [0, 3, 4, 9, 10, 15]) {
      const time = (BigInt(i) * 4n * hour + 7n) as TimestampTz;
      const moment = await findMoment(many, time, {});
      const full = await findMoment(many, time, { full: true });
      expect(moment.last?.xid).toBe(full.last?.xid);
      expect(moment.next?.xid).toBe(full.next?.xid);
      if (i === 15) expect(moment.from).toBeGreaterThan(full.from! + 10n * (1n << 20n));
      const after = await events(many, { after: time });
      expect(xids(after)).toEqual(xids(await events(many, { after: time, full: true })));
    }
  });
});

describe('walkeep find', () => {
  const find = (...args: string[]) => run('walkeep', 'find', ...args);

  test('a table of at most 80 columns, of one time where zones are equal', async () => {
    const { code, stdout, stderr } = await find(dir);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const lines = stdout.trimEnd().split('\n');
    expect(lines[0]).toMatch(/^LSN +TIME +(UTC +)?EVENT$/);
    for (const line of lines) expect(line.length).toBeLessThanOrEqual(80);
    expect(stdout).toContain('             "before the drop"\n');
    expect(stdout).toMatch(
      /^0\/68A8A8 +2026-11-2\d \d\d:\d\d:19\.704643[+-]\d\d\S* .*commit 748$/m,
    );
    const isUtc = [0, 6].every((month) => new Date(2026, month).getTimezoneOffset() === 0);
    expect(/UTC/.test(lines[0] ?? '')).toBe(!isUtc);
    expect(stdout).toContain('             dropped relations (OID): 16399\n');
    expect((await find('--help')).stdout.split('\n').filter((l) => l.length > 80)).toEqual([]);
  });

  test('drops without names come with the query that has them', async () => {
    const { stderr } = await find(dir, '--drops');
    expect(stderr).toMatch(/^walkeep: hint: The WAL has no names .* pg_class WHERE oid IN \(\d+/);
    expect((await find(dir, '--drops', '--json')).stderr).toBe('');
    expect((await find(dir, '--drops', '--target')).stderr).not.toMatch(/pg_class/);
  });

  test('exit codes: found, nothing, trouble', async () => {
    expect(await find(dir, '--xid', '4000000')).toEqual({
      ...{ code: 1, stdout: '', stderr: 'walkeep: nothing found\n' },
    });
    expect((await find(dir, '--at', '1999-01-01 00:00Z')).code).toBe(1);
    const broken = await archive(mixed, '', (_, bytes) => bytes.fill(1, 90_000, 91_000));
    const hidden = await find(broken, '--xid', '4000000');
    expect(hidden).toMatchObject({ code: 2, stdout: '' });
    expect(hidden.stderr).toMatch(/^walkeep: warning: .* \(at 0\/61\w+; reading went on at 0\/61/);
    for (const args of [
      [],
      [dir, 'more'],
      [dir, '--at', 'noon'],
      [dir, '--since', 'x'],
      [dir, '--xid', '0'],
      [dir, '--stop', 'before'],
      [dir, '--target', '--stop', 'there'],
      [dir, '--at', '2026-11-20', '--drops'],
      [join(dir, 'none')],
    ]) {
      const { code, stdout, stderr } = await find(...args);
      expect({ args, code, stdout }).toEqual({ args, code: 2, stdout: '' });
      expect(stderr).toMatch(/^walkeep: error: /);
    }
  });

  test('--target prints settings, or says what is ambiguous', async () => {
    const { stdout } = await find(dir, '--xid', '748', '--target');
    expect(stdout).toBe(
      [
        '# Recovers to just behind the commit of transaction 748 at 2026-11-20 22:04:19.704643+00.',
        `# From a backup of walkeep: walkeep restore --to 0/68A8A8 --timeline 1 ${dir} PGDATA`,
        `restore_command = 'walkeep fetch ${dir} %f %p'`,
        `recovery_target_timeline = '1'`,
        `recovery_target_lsn = '0/68A8A8'`,
        'recovery_target_inclusive = true',
        `#recovery_target_xid = '748'  # instead`,
        '',
      ].join('\n'),
    );
    const before = await find(dir, '--xid', '748', '--target', '--stop', 'before');
    expect(before.stdout).toContain('recovery_target_inclusive = false\n');
    expect(before.stdout).toMatch(
      /walkeep restore --to 0\/[0-9A-F]+ --before --timeline 1 \S+ PGDATA\n/,
    );
    const prepared = await find(dir, '--xid', '741', '--target', '--json');
    const { settings, restore, event } = JSON.parse(prepared.stdout);
    expect(restore).toBe(`walkeep restore --to 0/66AC08 --timeline 1 ${dir} PGDATA`);
    expect(settings.recovery_target_lsn).toBe('0/66AC08');
    expect(event).toMatchObject({ kind: 'commit', prepared: true, gid: 'one' });
    const many = await find(dir, '--drops', '--target');
    expect(many).toMatchObject({ code: 2, stdout: '' });
    expect(many.stderr).toMatch(/--target needs one event, and 2 were found\n.*commit 747\n/);
    const none = await find(dir, '--restore-point', 'x', '--target');
    expect(none).toMatchObject({ code: 1, stdout: '' });
    const at = await find(dir, '--at', '2026-11-20 22:04:19.704643+00', '--target');
    expect(at.stdout).toBe(stdout);
  });
});

test('names with quotes, blanks, percent signs and newlines stay what they are', () => {
  const place = { lsn: 5n as Lsn, endLsn: 9n as Lsn, onTimeline: 3 };
  const time = 0n as TimestampTz;
  const point: WalEvent = { kind: 'restore-point', name: `it's\\ "so"`, time, ...place };
  const lines = targetLines(recoveryTarget(point, 'after'), [`/a b/100%/it's`]);
  expect(lines).toEqual([
    `# Recovers to just behind restore point "it's\\ "so"" at 2000-01-01 00:00:00.000000+00.`,
    `# From a backup of walkeep: walkeep restore --to 'name:it'\\''s\\ "so"' --timeline 3 '/a b/100%/it'\\''s' PGDATA`,
    `restore_command = 'walkeep fetch ''/a b/100%%/it''\\\\''''s'' %f %p'`,
    `recovery_target_timeline = '3'`,
    `recovery_target_name = 'it''s\\\\ "so"'`,
    `#recovery_target_lsn = '0/5'  # instead`,
  ]);
  const evil = { ...point, name: "x\nshared_preload_libraries = 'evil'" };
  for (const directory of ['/a', "/a\nshared_preload_libraries = 'evil'"]) {
    const lines = targetLines(recoveryTarget(evil, 'before'), [directory]);
    for (const line of lines.filter((one) => one.startsWith('#'))) expect(line).not.toContain('\n');
  }
  const damage: WalEvent = { kind: 'damage', lsn: 5n as Lsn, from: 5n as Lsn, message: '' };
  expect(() => recoveryTarget(damage, 'after')).toThrow(UsageError);
});

describe('WAL in a form that cannot be read', () => {
  const commits = Array.from({ length: 80 }, () => ({ body: new Uint8Array(50_000) }));
  const wal = makeWal(commits, { start: 0x70_0000n });
  const lsnOf = (n: number) => (wal.start + BigInt(n) * BigInt(wal.segmentSize)) as Lsn;
  const name = (n: number) =>
    segmentFileName(1, segmentOf(lsnOf(n), wal.segmentSize), wal.segmentSize);
  /** The first three segments, some of them as another program compresses them. */
  const stored = (...unread: number[]) => {
    const dir = scratchDir('archive');
    for (const n of [0, 1, 2]) {
      const bytes = wal.bytes.subarray(n * wal.segmentSize, (n + 1) * wal.segmentSize);
      writeFileSync(join(dir, `${name(n)}${unread.includes(n) ? '.xz' : ''}`), bytes);
    }
    return dir;
  };
  const result = (dir: string, options: FindOptions = {}) => findEvents(dir, options, () => false);

  test.each([0, 1, 2])('is told where the range covers it: %i', async (n) => {
    const dir = stored(n);
    const found = await events(dir);
    const damages = found.filter((e) => e.kind === 'damage');
    expect(damages).toHaveLength(1);
    expect(damages[0]!.message).toMatch(
      n === 1 ? /WAL is missing/ : `"${name(n)}.xz" is in a form`,
    );
    expect(await result(dir)).toMatchObject({ damaged: 1, complete: false });
    const other = n === 0 ? { since: lsnOf(1) } : { until: lsnOf(n) };
    expect(await result(dir, other)).toMatchObject({ damaged: 0, complete: true });
    expect(await run('walkeep', 'find', dir)).toMatchObject({ code: 2 });
  });

  test('is none where it can be read all the same, or is on another way', async () => {
    const dir = stored();
    writeFileSync(join(dir, `${name(2)}.xz`), '');
    writeFileSync(join(dir, `${name(1)}.partial.gz`), '');
    writeFileSync(join(dir, '00000002.history.xz'), '');
    expect(await result(dir)).toMatchObject({ damaged: 0, complete: true });
    // A later timeline would be followed; asked for this one it is none of its WAL.
    writeFileSync(join(dir, `${name(2).replace(/^0{7}1/, '00000002')}.xz`), '');
    expect(await result(dir)).toMatchObject({ damaged: 1, complete: false });
    expect(await result(dir, { timeline: 1 })).toMatchObject({ damaged: 0, complete: true });
  });

  test('is told behind a partial file of the same segment', async () => {
    const dir = stored(2);
    writeFileSync(
      join(dir, `${name(2)}.partial`),
      wal.bytes.subarray(2 * wal.segmentSize, 2 * wal.segmentSize + 9000),
    );
    expect(await result(dir)).toMatchObject({ damaged: 1, complete: false });
  });

  test('is named where it is all that is here', async () => {
    const error = await result(stored(0, 1, 2)).catch((e) => e);
    expect(error).toBeInstanceOf(UsageError);
    expect(error.hint).toContain(`${name(0)}.xz`);
  });
});
