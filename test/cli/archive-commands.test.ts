import { rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { edit, fixtureArchive, sampleArchive } from '../support/archives.js';
import { run } from './run.js';

const longest = (text: string) => Math.max(...text.split('\n').map((line) => line.length));

describe('walkeep verify', () => {
  test('exits with 0 when all is well', async () => {
    const { directory } = sampleArchive(3);
    const { code, stdout, stderr } = await run('walkeep', 'verify', '-j1', directory);
    expect(stdout).toMatch(/^3 segments of 1 timeline checked \(3\.1 MB in .*\): all is well\n$/);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  });

  test('exits with 1 and says what it found', async () => {
    const { directory, names } = sampleArchive(3);
    edit(join(directory, names[0]!), (b) => void b.writeUInt8(b[9000]! ^ 1, 9000));
    rmSync(join(directory, names[1]!));
    const { code, stdout } = await run('walkeep', 'verify', '--jobs=1', directory);
    expect(code).toBe(1);
    expect(stdout).toContain(`error    ${names[0]} at 0/50`);
    expect(stdout).toContain('WAL record has a wrong checksum: expected 0x');
    expect(stdout).toContain(`error    ${names[1]} at 0/5100000 (gap)`);
    expect(stdout).toMatch(/: 2 errors\n$/);
    expect(longest(stdout)).toBeLessThanOrEqual(100);
  });

  test('--json prints one object a line, the summary last', async () => {
    const { directory, names } = sampleArchive(3);
    rmSync(join(directory, names[1]!));
    const { code, stdout } = await run('walkeep', 'verify', '--json', directory);
    const objects = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(code).toBe(1);
    expect(objects[0]).toMatchObject({ type: 'finding', code: 'gap', lsn: '0/5100000' });
    expect(objects[0].hint).toMatch(/\.$/);
    expect(objects.at(-1)).toMatchObject({ type: 'summary', errors: 1, systemId: '77' });
  });

  test.each([
    [['/no/such'], 'could not open directory "/no/such": No such file or directory'],
    [[], 'no directory specified'],
    [['a', 'b'], 'too many command-line arguments (first is "b")'],
    [['--since=x', 'a'], 'invalid value "x" for option --since'],
    [['-j0', 'a'], '--jobs must be in range 1..1024'],
    [['--timeline=x', 'a'], 'invalid value "x" for option --timeline'],
  ])('exits with 2 when it could not look: %j', async (argv, message) => {
    const { code, stdout, stderr } = await run('walkeep', 'verify', ...argv);
    expect({ code, stdout }).toEqual({ code: 2, stdout: '' });
    expect(stderr.split('\n')[0]).toBe(`walkeep: error: ${message}`);
  });

  test('exits with 2 for an unknown option', async () => {
    const { code, stderr } = await run('walkeep', 'verify', '--bogus');
    expect(code).toBe(2);
    expect(stderr).toContain("unrecognized option '--bogus'");
  });
});

describe('walkeep list', () => {
  test('draws the tree of timelines', async () => {
    const directory = fixtureArchive('promoted');
    writeFileSync(join(directory, '00000003.history'), '1\t0/700000\tearlier\n');
    const { code, stdout } = await run('walkeep', 'list', directory);
    expect(code).toBe(0);
    const lines = stdout.split('\n');
    expect(lines[1]).toMatch(/^system identifier \d+, PostgreSQL 15, segments of 1 MiB$/);
    expect(lines[3]).toBe('timeline 1');
    expect(lines[4]).toMatch(/^│ 0\/600000 - 0\/800000 +2 segments +2\.0 MiB$/);
    expect(stdout).toMatch(
      /^├ timeline 2, branched off 1 at 0\/\w+ \(no recovery target specified\)$/m,
    );
    expect(stdout).toMatch(/^│ {5}the last one is 000000020000000000000008\.partial$/m);
    expect(stdout).toMatch(/^└ timeline 3, branched off 1 at 0\/700000 \(earlier\)$/m);
    expect(stdout).toMatch(/3 segments, 3\.0 MiB on disk\n$/);
    expect(longest(stdout)).toBeLessThanOrEqual(100);
  });

  test('--json prints the archive, its timelines and gaps', async () => {
    const { directory, names } = sampleArchive(3);
    rmSync(join(directory, names[1]!));
    const { code, stdout } = await run('walkeep', 'list', '--json', directory);
    const objects = stdout
      .trim()
      .split('\n')
      .map((line) => JSON.parse(line));
    expect(code).toBe(0);
    expect(objects.map((o) => o.type)).toEqual(['archive', 'timeline', 'gap']);
    expect(objects[1].ranges[0]).toMatchObject({ from: '0/5000000', to: '0/5100000', segments: 1 });
    expect(objects[2]).toMatchObject({ from: '0/5100000', to: '0/5200000', timeline: 1 });
  });

  test('says what is no archive', async () => {
    const { code, stderr } = await run('walkeep', 'list', '/no/such');
    expect(code).toBe(1);
    expect(stderr).toMatch(/^walkeep: error: could not open directory "\/no\/such"/);
  });
});

test.each(['verify', 'list'])('walkeep %s --help fits a terminal', async (name) => {
  const { code, stdout } = await run('walkeep', name, '--help');
  expect(code).toBe(0);
  expect(stdout).toContain(`Usage: walkeep ${name} [OPTION]... PLACE`);
  expect(longest(stdout)).toBeLessThanOrEqual(80);
});
