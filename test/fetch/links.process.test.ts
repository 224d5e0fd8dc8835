import { execFileSync } from 'node:child_process';
import fs, {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { afterEach, describe, expect, test, vi } from 'vitest';
import { cleanupArchive, planCleanup } from '../../src/cleanup/cleanup.js';
import { exitCodeOf } from '../../src/cli/commands/fetch.js';
import { orderAhead, readAhead, spoolName, takePrefetched } from '../../src/fetch/ahead.js';
import { fetchFile } from '../../src/fetch/fetch.js';
import { run } from '../cli/run.js';
import { check, sampleArchive } from '../support/archives.js';
import { scratchDir } from '../support/scratch.js';
import { archiveOf, segmentOf } from '../support/wal-archive.js';

const seg = (n: number, timeline = 1) =>
  `0000000${timeline}00000000${n.toString(16).toUpperCase().padStart(8, '0')}`;
const isRoot = process.getuid?.() === 0;

afterEach(() => vi.restoreAllMocks());

/** What a name can be instead of a regular file. */
const KINDS = ['fifo', 'directory', 'dangling link', 'link to a device'] as const;
type Kind = (typeof KINDS)[number];

function plant(path: string, kind: Kind): void {
  rmSync(path, { force: true });
  if (kind === 'fifo') execFileSync('mkfifo', [path]);
  else if (kind === 'directory') mkdirSync(path);
  else symlinkSync(kind === 'dangling link' ? 'nowhere' : '/dev/zero', path);
}

describe('fetch', () => {
  const fetch = async (archive: ReturnType<typeof archiveOf>, name: string) => {
    const { dir, target } = archive;
    try {
      return (await fetchFile({ places: [dir], name, target })).found ? 0 : 1;
    } catch (error) {
      return exitCodeOf(error);
    } finally {
      expect(readdirSync(archive.out).filter((n) => n.startsWith('.'))).toEqual([]);
    }
  };

  test.each(KINDS)('a segment that is a %s is no answer', async (kind) => {
    const archive = archiveOf('switch');
    plant(join(archive.dir, seg(7)), kind);
    expect(await fetch(archive, seg(7))).toBe(205);
    // The last one: without it nothing would say that there is more.
    plant(join(archive.dir, `${seg(12)}.partial`), kind);
    expect(await fetch(archive, seg(12))).toBe(205);
    expect(readdirSync(archive.out)).toEqual([]);
    // Its neighbours are served all the same.
    expect(await fetch(archive, seg(6))).toBe(0);
    expect(await fetch(archive, seg(8))).toBe(0);
  });

  test.each(KINDS)('a history file that is a %s is no answer', async (kind) => {
    const archive = archiveOf('switch');
    for (const name of ['00000002.history', `${seg(7)}.00000028.backup`]) {
      plant(join(archive.dir, name), kind);
      expect(await fetch(archive, name)).toBe(205);
    }
    expect(readdirSync(archive.out)).toEqual([]);
  });

  test('a link to a good segment is served, to something else it is damaged', async () => {
    const archive = archiveOf('switch');
    const elsewhere = join(scratchDir('tier'), 'x');
    renameSync(join(archive.dir, seg(7)), elsewhere);
    symlinkSync(elsewhere, join(archive.dir, seg(7)));
    expect(await fetch(archive, seg(7))).toBe(0);
    expect(lstatSync(archive.target).isFile()).toBe(true);
    rmSync(archive.target);
    writeFileSync(elsewhere, 'root:x:0:0');
    expect(await fetch(archive, seg(7))).toBe(201);
    expect(readdirSync(archive.out)).toEqual([]);
  });

  test('an archive that is itself a link is one', async () => {
    const archive = archiveOf('switch');
    const link = join(scratchDir('link'), 'archive');
    symlinkSync(archive.dir, link);
    expect(await fetch({ ...archive, dir: link }, seg(7))).toBe(0);
  });

  test('what is restored is as readable as its directory, whatever the umask', async () => {
    const archive = archiveOf('switch');
    chmodSync(archive.out, 0o750);
    const umask = process.umask(0o077);
    try {
      for (const name of [seg(7), `${seg(12)}`]) {
        expect(await fetch(archive, name)).toBe(0);
        expect(statSync(archive.target).mode & 0o777).toBe(0o640);
      }
    } finally {
      process.umask(umask);
    }
  });
});

describe('the spool', () => {
  const order = (archive: ReturnType<typeof archiveOf>) => ({
    places: [archive.dir],
    name: seg(6),
    count: 2,
    dataDir: undefined,
    near: archive.out,
  });
  /** A spool with the next segment, not verified by anyone. */
  async function fill(archive: ReturnType<typeof archiveOf>, spool: string): Promise<string> {
    mkdirSync(spool, { recursive: true, mode: 0o700 });
    const name = (await spoolName(archive.dir, seg(7), undefined)) as string;
    writeFileSync(join(spool, name), segmentOf('switch', seg(7)), { mode: 0o600 });
    return name;
  }
  const take = (archive: ReturnType<typeof archiveOf>, spool: string) =>
    takePrefetched(spool, [archive.dir], seg(7), undefined, archive.target);

  test('of our own is used', async () => {
    const archive = archiveOf('switch');
    const spool = join(archive.out, '.walkeep-spool');
    await fill(archive, spool);
    expect(await take(archive, spool)).toBe(true);
    expect(existsSync(archive.target)).toBe(true);
  });

  test.skipIf(!isRoot)('of another user is not (needs root)', async () => {
    const archive = archiveOf('switch');
    const spool = join(archive.out, '.walkeep-spool');
    const name = await fill(archive, spool);
    chownSync(join(spool, name), 65534, 65534);
    expect(await take(archive, spool)).toBe(false);
    chownSync(join(spool, name), 0, 0);
    chownSync(spool, 65534, 65534);
    expect(await take(archive, spool)).toBe(false);
    expect(readdirSync(archive.out)).toEqual(['.walkeep-spool']);
  });

  test('that others may write to is not', async () => {
    const archive = archiveOf('switch');
    const spool = join(archive.out, '.walkeep-spool');
    await fill(archive, spool);
    for (const mode of [0o770, 0o702]) {
      chmodSync(spool, mode);
      expect(await take(archive, spool)).toBe(false);
    }
    expect(readdirSync(archive.out)).toEqual(['.walkeep-spool']);
  });

  test('that is a link is neither read, written nor cleared', async () => {
    const archive = archiveOf('switch');
    const elsewhere = scratchDir('elsewhere');
    const spool = join(archive.out, '.walkeep-spool');
    const name = await fill(archive, elsewhere);
    writeFileSync(join(elsewhere, 'alive'), 'not ours');
    symlinkSync(elsewhere, spool);
    const before = readdirSync(elsewhere);
    expect(await take(archive, spool)).toBe(false);
    await orderAhead(spool, order(archive));
    await readAhead(spool);
    expect(readdirSync(elsewhere)).toEqual(before);
    expect(readFileSync(join(elsewhere, 'alive'), 'utf8')).toBe('not ours');
    expect(before).toContain(name);
  });

  test('with a link in place of the segment does not give it', async () => {
    const archive = archiveOf('switch');
    const spool = join(archive.out, '.walkeep-spool');
    const name = await fill(archive, spool);
    rmSync(join(spool, name));
    symlinkSync('/etc/passwd', join(spool, name));
    expect(await take(archive, spool)).toBe(false);
  });
});

/** An archive with hostile names beside good segments. */
function hostile() {
  const archive = sampleArchive(4);
  const { directory } = archive;
  const outside = scratchDir('outside');
  const victim = join(outside, 'victim');
  writeFileSync(victim, 'stays');
  const names = [
    'a\nwalkeep: error: forged',
    '\x1b]0;owned\x07\x1b[2J.tmp',
    '\u009b31m',
    '\u202etxt.exe',
    `${'x'.repeat(251)}.tmp`,
    '000000010000000000000001\n',
    '0000000100000000000000FF.gz\x1b[31m',
    '..\\..\\x',
    '$(touch pwned)',
    '-rf',
    '--',
  ];
  for (const name of names) writeFileSync(join(directory, name), '');
  fs.writeFileSync(
    Buffer.concat([Buffer.from(`${directory}/`), Buffer.from([0xff, 0xfe, 0x80])]),
    '',
  );
  fs.writeFileSync(
    Buffer.concat([Buffer.from(`${directory}/0000000100000000000000`), Buffer.from([0xff, 0x41])]),
    '',
  );
  plant(join(directory, '0000000100000000000000E1'), 'fifo');
  plant(join(directory, '0000000100000000000000E2'), 'directory');
  plant(join(directory, '0000000100000000000000E3'), 'dangling link');
  plant(join(directory, '0000000100000000000000E4'), 'link to a device');
  symlinkSync('/etc/passwd', join(directory, '0000000100000000000000E5'));
  plant(join(directory, '00000002.history'), 'fifo');
  symlinkSync(victim, join(directory, '0000000100000000000000E6.partial'));
  return { ...archive, outside, victim };
}

/** Nothing that a terminal obeys, and no line that a name began. */
function expectTame(text: string): void {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: that is what is looked for
  expect(text).not.toMatch(/[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]/);
  expect(text).not.toMatch(/^walkeep: error: forged/m);
}

describe('hostile names', () => {
  test('verify, list and find go on, and print nothing that a terminal obeys', async () => {
    const { directory } = hostile();
    const good = sampleArchive(4);
    for (const command of ['verify', 'list', 'find']) {
      for (const args of [[], ['--json'], ...(command === 'verify' ? [['-v']] : [])]) {
        const { code, stdout, stderr } = await run('walkeep', command, ...args, directory);
        const without = await run('walkeep', command, ...args, good.directory);
        // verify complains of the names; what may be WAL in a form unknown was not searched by find.
        const expected = { verify: 1, find: 2, list: without.code }[command];
        expect([command, code]).toEqual([command, expected]);
        expectTame(stdout);
        expectTame(stderr);
        if (args.includes('--json'))
          for (const line of stdout.split('\n').filter((l) => l !== '')) JSON.parse(line);
      }
    }
    const { stdout } = await run('walkeep', 'verify', '-v', directory);
    expect(stdout).toContain('a\\nwalkeep: error: forged');
    expect(stdout).toContain('\\x1b[2J');
    expect(await check(directory)).toContain('warning stray-file 0000000100000000000000E1');
  });

  test('names in JSON are what they are', async () => {
    const { directory } = hostile();
    const { stdout } = await run('walkeep', 'verify', '--json', directory);
    const files = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line).file);
    expect(files).toContain('\u009b31m');
    expect(files).toContain('a\nwalkeep: error: forged');
  });

  test('cleanup removes what is in the directory, and nothing else', async () => {
    const { directory, victim, names } = hostile();
    const plan = await planCleanup(directory, '0000000100000000000000F0');
    await cleanupArchive(plan);
    expect(readFileSync(victim, 'utf8')).toBe('stays');
    expect(existsSync('/etc/passwd')).toBe(true);
    for (const name of names.filter((n) => !n.endsWith('.partial'))) {
      expect(existsSync(join(directory, name))).toBe(false);
    }
    // What is no file of WAL stays where it is.
    expect(readdirSync(directory)).toEqual(
      expect.arrayContaining(['-rf', '0000000100000000000000E1', '0000000100000000000000E2']),
    );
    for (const name of plan.remove) expect(basename(name)).toBe(name);
  });

  test.each(['../x', '000000010000000000000001/../../x', 'a\0b', '/etc/passwd', '..'])(
    'cleanup and fetch refuse the name %j',
    async (name) => {
      const archive = archiveOf('switch');
      await expect(planCleanup(archive.dir, name)).rejects.toMatchObject({ code: 'WK_USAGE' });
      const options = { places: [archive.dir], name, target: archive.target };
      await expect(fetchFile(options)).rejects.toMatchObject({ code: 'WK_USAGE' });
    },
  );
});
