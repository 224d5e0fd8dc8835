import fs, {
  copyFileSync,
  existsSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { gzipSync } from 'node:zlib';
import { afterEach, describe, expect, test, vi } from 'vitest';
import type { Archive } from '../../src/archive/archive.js';
import type { Finding } from '../../src/archive/findings.js';
import { Ledger } from '../../src/archive/ledger.js';
import { openDirectory } from '../../src/archive/places/directory-archive.js';
import { readCatalog } from '../../src/archive/read-catalog.js';
import { readArchiveFacts } from '../../src/check/archive-facts.js';
import { compressFile } from '../../src/codec/codec.js';
import { RewriteError } from '../../src/errors.js';
import { nodeFileSystem } from '../../src/files/file-system.js';
import { acquireDirectoryLock, type DirectoryLock } from '../../src/files/lock.js';
import type { TransactionEvent, WalEvent } from '../../src/find/event.js';
import { findEvents, findMoment } from '../../src/find/find.js';
import { listArchive } from '../../src/list/list.js';
import type { Lsn } from '../../src/lsn.js';
import { pushFile } from '../../src/push/push.js';
import { planJobs } from '../../src/verify/plan.js';
import { runJob } from '../../src/verify/stream.js';
import { verifyArchive } from '../../src/verify/verify.js';
import { compressionSuffix } from '../../src/wal/file-name.js';
import { run } from '../cli/run.js';
import {
  check,
  edit,
  fixtureArchive,
  SEGMENT,
  sampleArchive,
  writeLedger,
} from '../support/archives.js';
import { scratchDir } from '../support/scratch.js';
import { loadFixture } from '../wal/fixtures.js';

/** What a receiver, or another tool, does at a moment between a listing and the reading. */
const hooks = vi.hoisted(() => ({
  listed: undefined as ((directory: string) => void) | undefined,
  listing: undefined as ((names: { name: string }[]) => void) | undefined,
}));

vi.mock('../../src/archive/read-catalog.js', async (original) => {
  const real = (await original()) as typeof import('../../src/archive/read-catalog.js');
  const hooked = (read: typeof real.readCatalog) => async (archive: Archive) => {
    const catalog = await read(archive);
    const { listed } = hooks;
    hooks.listed = undefined;
    listed?.(archive.place);
    return catalog;
  };
  return {
    ...real,
    readCatalog: hooked(real.readCatalog),
    readArchive: hooked(real.readArchive),
  };
});

vi.mock('node:fs/promises', async (original) => {
  const real = (await original()) as typeof import('node:fs/promises');
  const listed = async (...args: Parameters<typeof real.readdir>) => {
    const entries = await real.readdir(...args);
    hooks.listing?.(entries as unknown as { name: string }[]);
    return entries;
  };
  const hooked = { readdir: listed };
  return { ...real, default: { ...real, ...hooked }, ...hooked };
});

let lock: DirectoryLock | undefined;
afterEach(async () => {
  vi.restoreAllMocks();
  hooks.listed = hooks.listing = undefined;
  await lock?.release();
  lock = undefined;
});

const zip = (path: string, target: string) => {
  writeFileSync(target, gzipSync(readFileSync(path)));
  rmSync(path);
};

/** What may become of `NAME.partial` between the listing and the reading. */
const FATES: Record<string, (path: string) => void> = {
  completed: (path) => renameSync(path, path.slice(0, -8)),
  compressed: (path) => zip(path, path.replace('.partial', '.gz')),
  'stopped with -Z': (path) => zip(path, path.replace('.partial', '.gz.partial')),
};
/** The same where it was partial and compressed, and a receiver goes on with it. */
const CONTINUED: Record<string, (path: string) => void> = {
  'gone on with': (path) => renameSync(path, path.replace('.gz', '')),
  'gone on with, and completed': (path) => renameSync(path, path.replace('.gz.partial', '')),
};

const isCommit = (e: WalEvent): e is TransactionEvent => e.kind === 'commit';

describe('find reads a segment whatever its name has become', () => {
  const directory = () => fixtureArchive('mixed-15');
  const partial = (dir: string) => join(dir, readdirSync(dir).find((n) => n.endsWith('.partial'))!);

  async function events(dir: string) {
    const found: WalEvent[] = [];
    const result = await findEvents(dir, {}, (event) => {
      found.push(event);
      return false;
    });
    return { found, result };
  }

  test.each(Object.entries(FATES))('%s', async (_, fate) => {
    const dir = directory();
    const before = await events(dir);
    expect(before.found.filter(isCommit).length).toBeGreaterThan(5);
    hooks.listed = () => fate(partial(dir));
    expect(await events(dir)).toEqual(before);
    expect(existsSync(join(dir, '0'))).toBe(false);
  });

  test('and says so where it cannot be told under which', async () => {
    const dir = directory();
    const path = partial(dir).slice(0, -8);
    hooks.listed = () => {
      rmSync(`${path}.partial`);
      // Nobody can look through it.
      symlinkSync(`${path}.gz`, `${path}.gz`);
    };
    const { found, result } = await events(dir);
    expect(result.complete).toBe(false);
    const damages = found.filter((e) => e.kind === 'damage').map((e) => e.message);
    expect(damages).toEqual([expect.stringMatching(/could not look at ".*\.gz"/)]);
  });

  test.each(Object.entries(FATES))('for a moment, %s', async (_, fate) => {
    const dir = directory();
    const time = (await events(dir)).found.filter(isCommit).at(-1)!.time;
    const before = await findMoment(dir, time, {});
    hooks.listed = () => fate(partial(dir));
    expect(await findMoment(dir, time, {})).toEqual(before);
  });

  test('--target is of the event that it is of without a race', async () => {
    const dir = directory();
    const drops = (await events(dir)).found.filter((e) => isCommit(e) && e.dropped.length > 0);
    const { xid } = drops.at(-1) as TransactionEvent;
    const args = ['walkeep', 'find', '--target', `--xid=${xid}`, dir] as const;
    const before = await run(...args);
    expect(before).toMatchObject({ code: 0, stderr: '' });
    hooks.listed = () => FATES.completed!(partial(dir));
    expect(await run(...args)).toEqual(before);
  });

  test('WAL that is moved away meanwhile makes every answer a doubt', async () => {
    const moved = async (...args: string[]) => {
      const dir = directory();
      hooks.listed = () => rmSync(partial(dir));
      return run('walkeep', 'find', ...args, dir);
    };
    for (const args of [
      [],
      ['--target', '--drops'],
      ['--at=2030-01-01 00:00:00+00'],
      ['--xid=1'],
    ]) {
      const { code, stdout, stderr } = await moved(...args);
      expect({ args, code, stdout }).toEqual({ args, code: 2, stdout: '' });
      expect(stderr).toMatch(/could not read file .*: No such file or directory/);
      expect(stderr).toMatch(/^walkeep: error: not all WAL in the range could be read/m);
    }
  });
});

describe('find, where WAL of the range is not there,', () => {
  const { systemId, start } = loadFixture('mixed-15');

  /** What came behind the first segment was moved away; the ledger knows of it. */
  async function shortened() {
    const dir = fixtureArchive('mixed-15');
    const ledger = (await Ledger.open(dir, { create: true, sync: false }))!;
    await ledger.append(
      { type: 'open', systemId, segmentSize: SEGMENT, version: '0' },
      { type: 'timeline', timeline: 1, start, why: 'first start' },
      { type: 'flushed', lsn: 0x78_0000n as Lsn, timeline: 1 },
    );
    await ledger.close();
    return dir;
  }

  test('tells what it found and that there may be more', async () => {
    const dir = await shortened();
    const { code, stdout, stderr } = await run('walkeep', 'find', dir);
    expect(code).toBe(2);
    expect(stdout).toContain('commit');
    expect(stderr).toMatch(/WAL is missing: 0\/700000 to 0\/780000/);
    expect((await run('walkeep', 'find', '--until=0/700000', dir)).code).toBe(0);
    expect((await run('walkeep', 'find', '--limit=1', dir)).code).toBe(0);
    expect((await run('walkeep', 'find', '--since=0/780000', dir)).code).toBe(1);
    const later = await run('walkeep', 'find', '--since=0/740000', dir);
    expect(later).toMatchObject({ code: 2, stderr: expect.stringMatching(/WAL is missing/) });
  });

  test('prints no target, but for a range that is whole', async () => {
    const dir = await shortened();
    const args = ['--target', '--restore-point=before the drop'];
    const { code, stdout, stderr } = await run('walkeep', 'find', ...args, dir);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr).toMatch(/--since and --until/);
    const whole = await run('walkeep', 'find', ...args, '--until=0/700000', dir);
    expect(whole).toMatchObject({ code: 0, stdout: expect.stringMatching(/recovery_target_name/) });
  });

  test('also where a place in the middle is damaged', async () => {
    const dir = fixtureArchive('mixed-15');
    const name = readdirSync(dir).find((n) => n.endsWith('.partial'))!;
    edit(join(dir, name), (b) => void b.fill(0x11, 300_000, 300_100));
    expect((await run('walkeep', 'find', dir)).code).toBe(2);
    const { code, stdout } = await run('walkeep', 'find', '--target', '--drops', dir);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
  });
});

describe('a partial that a receiver writes to', () => {
  test.each([100_000, 123_457, 300_003, 500_009])('ends at %i within a record', async (length) => {
    const dir = fixtureArchive('mixed-15');
    const path = join(dir, readdirSync(dir).find((n) => n.endsWith('.partial'))!);
    edit(path, (b) => b.fill(0, length));
    expect(await findEvents(dir, {}, () => false)).toMatchObject({ damaged: 0, complete: true });
  });

  test('and grows while it is read', async () => {
    const dir = fixtureArchive('mixed-15');
    const path = join(dir, readdirSync(dir).find((n) => n.endsWith('.partial'))!);
    const whole = readFileSync(path);
    edit(path, (b) => b.fill(0, 100_000));
    // More comes once the end of the content was looked for: it would be seen behind zeros.
    const { read } = nodeFileSystem;
    const { openSync } = fs;
    let looked = false;
    let grown = 0;
    vi.spyOn(nodeFileSystem, 'read').mockImplementation((...args) => {
      looked = true;
      return read(...args);
    });
    vi.spyOn(fs, 'openSync').mockImplementation((...args) => {
      if (looked && args[0] === path) {
        looked = false;
        grown += 1;
        edit(path, (b) => void whole.copy(b, 500_000, 500_000));
      }
      return openSync(...args);
    });
    const found = await findEvents(dir, {}, () => false);
    expect(found).toMatchObject({ damaged: 0, complete: true });
    expect(grown).toBe(1);
    edit(path, (b) => b.fill(0, 100_000));
    const [job] = planJobs(await readCatalog(openDirectory(dir)), {});
    const findings: string[] = [];
    const finding = ({ severity, code }: Finding) => void findings.push(`${severity} ${code}`);
    await runJob(job!, openDirectory(dir), { finding, progress: () => {}, vanished: () => {} });
    expect(findings).toEqual(['info torn-tail']);
    expect(grown).toBe(2);
  });
});

describe('list shows of a segment whatever its name has become', () => {
  test.each(Object.entries(FATES))('%s', async (fateName, fate) => {
    const dir = fixtureArchive('promoted');
    const path = join(dir, '000000020000000000000008.partial');
    const before = await listArchive(dir);
    hooks.listed = () => fate(path);
    const { timelines, ...after } = await listArchive(dir);
    const [range] = timelines[1]!.ranges;
    const [expected] = before.timelines[1]!.ranges;
    expect([range!.firstCommit, range!.lastCommit]).toEqual([
      expected!.firstCommit,
      expected!.lastCommit,
    ]);
    if (fateName === 'stopped with -Z') {
      expect(range).toMatchObject({ to: expected!.to, partial: expect.stringMatching(/\.gz\.pa/) });
    } else expect(range!.partial).toBeUndefined();
    if (fateName === 'completed') expect(after.size).toBe(before.size);
    expect(after.size).toBeGreaterThan(2 * SEGMENT);
  });
});

test.each(Object.entries(FATES))('check: the end of what is here, %s', async (fateName, fate) => {
  const { directory, names, end, segmentStart } = sampleArchive(3);
  const path = join(directory, names[2]!);
  hooks.listed = () => fate(path);
  const facts = await readArchiveFacts(openDirectory(directory), undefined);
  expect(facts.end?.timeline).toBe(1);
  expect(facts.end!.lsn).toBeGreaterThan(segmentStart(2) + 100_000n);
  expect([fateName, facts.end!.lsn <= end]).toEqual([fateName, true]);
});

describe('verify beside a receiver', () => {
  test.each(Object.entries(FATES))('a partial at the end, %s', async (_, fate) => {
    const { directory, names } = sampleArchive(4);
    // Full, as one is that gets its name.
    rmSync(join(directory, names[3]!));
    const path = join(directory, names[2]!);
    renameSync(path, `${path}.partial`);
    hooks.listed = () => fate(`${path}.partial`);
    expect(await check(directory)).toEqual([]);
    for (const quick of [true, false]) expect(await check(directory, { quick })).toEqual([]);
  });

  test.each(Object.entries(FATES))('a partial before the newest, %s', async (name, fate) => {
    const { directory, names } = sampleArchive(4);
    const path = join(directory, names[2]!);
    renameSync(path, `${path}.partial`);
    hooks.listed = () => fate(`${path}.partial`);
    // After a stop it is a left one.
    const left = name === 'stopped with -Z' ? [`warning not-renamed ${names[2]}.gz.partial`] : [];
    expect(await check(directory)).toEqual(left);
  });

  test.each(Object.entries(CONTINUED))('a compressed partial, %s', async (_, fate) => {
    const { directory, names } = sampleArchive(4);
    rmSync(join(directory, names[3]!));
    const path = join(directory, names[2]!);
    writeFileSync(`${path}.gz.partial`, gzipSync(readFileSync(path)));
    const plain = readFileSync(path);
    rmSync(path);
    hooks.listed = () => {
      fate(`${path}.gz.partial`);
      writeFileSync(existsSync(path) ? path : `${path}.partial`, plain);
    };
    expect(await check(directory)).toEqual([]);
  });

  test('the plain file that goes once the compressed one has its name', async () => {
    const { directory, names } = sampleArchive(4);
    const path = join(directory, names[1]!);
    await compressFile(path, `${path}.gz`, SEGMENT, { method: 'gzip', sync: false });
    renameSync(path, `${path}.partial`);
    hooks.listed = () => rmSync(`${path}.partial`);
    expect(await check(directory)).toEqual([]);
  });

  test('segments that are full and have no name yet are none of the faults, while it runs', async () => {
    const { directory, names } = sampleArchive(5);
    const waiting = [2, 3].map((i) => {
      renameSync(join(directory, names[i]!), join(directory, `${names[i]}.partial`));
      return `${names[i]}.partial`;
    });
    lock = await acquireDirectoryLock(directory);
    expect(await check(directory)).toEqual([]);
    expect(await check(directory, { jobBytes: 1 })).toEqual([]);
    await lock.release();
    // Nobody is at work on them.
    expect(await check(directory)).toEqual(waiting.map((name) => `warning not-renamed ${name}`));
  });

  test('one that it left behind others that have their names remains a finding', async () => {
    const { directory, names } = sampleArchive(5);
    const left = `${names[1]}.partial`;
    renameSync(join(directory, names[1]!), join(directory, left));
    lock = await acquireDirectoryLock(directory);
    expect(await check(directory)).toEqual([`warning not-renamed ${left}`]);
  });

  test('a hole in a full-looking one is a fault, whoever runs', async () => {
    const { directory, names } = sampleArchive(4);
    const short = `${names[2]}.partial`;
    renameSync(join(directory, names[2]!), join(directory, short));
    edit(join(directory, short), (b) => void b.fill(0, 500_000));
    lock = await acquireDirectoryLock(directory);
    const found = await check(directory);
    expect(found).toContain(`error partial-inside ${short}`);
  });

  test('what is moved away meanwhile counts as it would have before', async () => {
    const begin = sampleArchive(5);
    hooks.listed = () => rmSync(join(begin.directory, begin.names[0]!));
    expect(await check(begin.directory)).toEqual([]);

    const middle = sampleArchive(5);
    hooks.listed = () => rmSync(join(middle.directory, middle.names[2]!));
    expect(await check(middle.directory)).toEqual([`error gap ${middle.names[2]}`]);

    const end = sampleArchive(5);
    await writeLedger(end.directory, { type: 'flushed', lsn: end.end as Lsn, timeline: 1 });
    hooks.listed = () => rmSync(join(end.directory, end.names[4]!));
    const missing = end.names[4]!.replace('.partial', '');
    expect(await check(end.directory)).toEqual([`error missing-end ${missing}`]);

    const all = sampleArchive(3);
    const away = `${all.directory}.away`;
    hooks.listed = () => renameSync(all.directory, away);
    await expect(verifyArchive(all.directory, { jobs: 1 })).rejects.toThrow(/could not open dir/);
  });

  test('the same in threads', async () => {
    const { directory, names } = sampleArchive(5);
    hooks.listed = () => {
      rmSync(join(directory, names[0]!));
      const path = join(directory, names[2]!);
      zip(path, `${path}.gz`);
    };
    expect(await check(directory, { jobs: 2, jobBytes: 1 })).toEqual([]);
  });
});

describe('a listing in which a file is seen under neither name', () => {
  /** Hides entries from the first listings that are made. */
  function hide(...rounds: string[][]) {
    const left = [...rounds];
    hooks.listing = (entries) => {
      const hidden = left.shift() ?? [];
      for (const name of hidden) {
        const at = entries.findIndex((entry) => entry.name === name);
        if (at >= 0) entries.splice(at, 1);
      }
    };
    return left;
  }

  test('is made again', async () => {
    const { directory, names, end } = sampleArchive(5);
    await writeLedger(directory, { type: 'flushed', lsn: end as Lsn, timeline: 1 });
    hide([names[2]!]);
    expect((await readCatalog(openDirectory(directory))).gaps).toEqual([]);
    // Another one each time, and the last.
    hide([names[2]!], [names[3]!], [names[4]!]);
    const catalog = await readCatalog(openDirectory(directory));
    expect(catalog.gaps).toEqual([]);
    expect(catalog.timelines[0]!.segments).toHaveLength(5);
    hide([names[4]!]);
    expect(await check(directory)).toEqual([]);
  });

  test('is believed the second time', async () => {
    const { directory, names, segmentStart } = sampleArchive(5);
    rmSync(join(directory, names[1]!));
    const left = hide([], [], ['never asked for']);
    expect((await readCatalog(openDirectory(directory))).gaps).toMatchObject([
      { from: segmentStart(1), to: segmentStart(2) },
    ]);
    expect(left).toHaveLength(1);
  });

  test('of a history file too', async () => {
    const directory = fixtureArchive('promoted');
    hide(['00000002.history']);
    expect(
      (await readCatalog(openDirectory(directory))).timelines[1]!.history?.ancestors,
    ).toHaveLength(1);
  });
});

describe('push compares with what a receiver has made of its partial', () => {
  const { directory: pushed, names } = sampleArchive(3);
  const name = names[1]!;
  const suffix = compressionSuffix('gzip');

  function archive(content: Buffer): string {
    const directory = scratchDir('archive');
    copyFileSync(join(pushed, names[0]!), join(directory, names[0]!));
    const path = join(directory, `${name}.partial`);
    writeFileSync(path, Buffer.from(content).fill(0, 700_000));
    const { statSync } = fs;
    const looked = vi.spyOn(fs, 'statSync').mockImplementation((...args) => {
      const stats = statSync(...args);
      if (args[0] !== path) return stats;
      looked.mockRestore();
      writeFileSync(join(directory, `${name}${suffix}`), gzipSync(content));
      rmSync(path);
      return stats;
    });
    return directory;
  }

  test('the same is there already', async () => {
    const content = readFileSync(join(pushed, name));
    const directory = archive(content);
    const result = await pushFile(directory, join(pushed, name));
    expect(result).toEqual({ outcome: 'present', name: `${name}.gz` });
  });

  test('what differs is refused, and not stored beside it', async () => {
    const content = readFileSync(join(pushed, name));
    content[900_000]! ^= 1;
    const directory = archive(content);
    await expect(pushFile(directory, join(pushed, name))).rejects.toThrow(RewriteError);
    expect(existsSync(join(directory, name))).toBe(false);
  });
});
