import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ProgramName } from '../../src/cli/option-spec.js';
import { run } from './run.js';

const LEVEL = 'expects a compression level between 1 and 9 (default at -1)';
let directory: string;
beforeAll(async () => {
  directory = await mkdtemp(join(tmpdir(), 'walkeep-cli-'));
});
afterAll(() => rm(directory, { recursive: true }));

describe('usage errors of pg_receivewal', () => {
  const hint = 'pg_receivewal: hint: Try "pg_receivewal --help" for more information.\n';
  // Each line as PostgreSQL's own program printed it.
  it.each<[string[], string, 'hint' | 'no hint']>([
    [['-x'], "invalid option -- 'x'", 'hint'],
    [['--bogus'], "unrecognized option '--bogus'", 'hint'],
    [['-s', 'x'], 'error: invalid value "x" for option -s/--status-interval', 'no hint'],
    [['-s', '5 x'], 'error: invalid value "5 x" for option -s/--status-interval', 'no hint'],
    [['-s', '-1'], 'error: -s/--status-interval must be in range 0..2147483', 'no hint'],
    [['-s', '2147484'], 'error: -s/--status-interval must be in range 0..2147483', 'no hint'],
    [['-E', 'zz'], 'error: could not parse end position "zz"', 'no hint'],
    [['a', 'b'], 'error: too many command-line arguments (first is "a")', 'hint'],
    [['-D', '/x', '-'], 'error: too many command-line arguments (first is "-")', 'hint'],
    [
      ['--drop-slot', '--create-slot'],
      'error: cannot use --create-slot together with --drop-slot',
      'hint',
    ],
    [['--create-slot'], 'error: --create-slot needs a slot to be specified using --slot', 'hint'],
    [['--drop-slot'], 'error: --drop-slot needs a slot to be specified using --slot', 'hint'],
    [
      ['--synchronous', '--no-sync'],
      'error: cannot use --synchronous together with --no-sync',
      'hint',
    ],
    [[], 'error: no target directory specified', 'hint'],
    [['-s', ' 5 '], 'error: no target directory specified', 'hint'],
    [['-s', ''], 'error: no target directory specified', 'hint'],
    [['-D/none', '-Zfoo'], 'error: unrecognized compression algorithm: "foo"', 'no hint'],
    [
      ['-D/none', '-Z12'],
      `error: invalid compression specification: compression algorithm "gzip" ${LEVEL}`,
      'no hint',
    ],
    [
      ['-D/no/such', '-Z0', '-E0/0'],
      'error: could not open directory "/no/such": No such file or directory',
      'no hint',
    ],
    [
      ['-D/etc/passwd'],
      'error: could not open directory "/etc/passwd": Not a directory',
      'no hint',
    ],
    [['--progress'], "unrecognized option '--progress'", 'hint'],
    [['--accept-gap'], "unrecognized option '--accept-gap'", 'hint'],
    [['--ensure-slot'], "unrecognized option '--ensure-slot'", 'hint'],
    [['--receive-timeout=3'], "unrecognized option '--receive-timeout=3'", 'hint'],
  ])('%j', async (argv, message, hinted) => {
    const expected = `pg_receivewal: ${message}\n${hinted === 'hint' ? hint : ''}`;
    expect(await run('pg_receivewal', ...argv)).toEqual({ code: 1, stdout: '', stderr: expected });
  });

  it('says the connection string is wrong before it connects', async () => {
    const { code, stderr } = await run('pg_receivewal', '-D', directory, '-d', 'nonsense');
    expect(code).toBe(1);
    expect(stderr).toBe(
      'pg_receivewal: error: missing "=" after "nonsense" in connection info string\n',
    );
  });
});

describe('usage errors of walkeep', () => {
  it.each<[string[], string]>([
    [[], 'error: no command specified'],
    [['bogus'], 'error: unrecognized command "bogus"'],
    [['constructor'], 'error: unrecognized command "constructor"'],
    [['--bogus', 'receive'], "unrecognized option '--bogus'"],
    [['--', 'receive'], 'error: no command specified'],
  ])('%j', async (argv, message) => {
    expect(await run('walkeep', ...argv)).toEqual({
      code: 1,
      stdout: '',
      stderr: `walkeep: ${message}\nwalkeep: hint: Try "walkeep --help" for more information.\n`,
    });
  });

  it.each<[string[], string]>([
    [['-x'], "invalid option -- 'x'"],
    [['-D/x', '--ensure-slot'], 'error: --ensure-slot needs a slot to be specified using --slot'],
    [[], 'error: no target directory specified'],
  ])('receive %j', async (argv, message) => {
    const hint = 'walkeep: hint: Try "walkeep receive --help" for more information.\n';
    const { code, stderr } = await run('walkeep', 'receive', ...argv);
    expect({ code, stderr }).toEqual({ code: 1, stderr: `walkeep: ${message}\n${hint}` });
  });

  it('checks --receive-timeout', async () => {
    const { stderr } = await run('walkeep', 'receive', '--receive-timeout', 'x');
    expect(stderr).toBe('walkeep: error: invalid value "x" for option --receive-timeout\n');
  });
});

describe('help', () => {
  const helps: [ProgramName, string[]][] = [
    ['pg_receivewal', ['--help']],
    ['pg_receivewal', ['-?']],
    ['walkeep', ['--help']],
    ['walkeep', ['receive', '--help']],
  ];

  it.each(helps)('%s %j fits 80 columns', async (program, argv) => {
    const { code, stdout, stderr } = await run(program, ...argv);
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toContain('Usage:');
    const longest = Math.max(...stdout.split('\n').map((line) => line.length));
    expect(longest).toBeLessThanOrEqual(80);
  });

  it('names every option, and only those of the program', async () => {
    const { stdout: own } = await run('walkeep', 'receive', '--help');
    const { stdout: dropIn } = await run('pg_receivewal', '--help');
    for (const option of ['--directory', '--if-not-exists', '--compress', '--password']) {
      expect(own).toContain(option);
      expect(dropIn).toContain(option);
    }
    for (const option of ['--accept-gap', '--ensure-slot', '--receive-timeout', '--progress']) {
      expect(own).toContain(option);
      expect(dropIn).not.toContain(option);
    }
    for (const group of ['Options:', 'Safety:', 'Connection options:', 'Optional actions:']) {
      expect(own).toContain(`\n${group}\n`);
      expect(dropIn).toContain(`\n${group}\n`);
    }
  });

  it('wins as the first argument over whatever follows', async () => {
    expect((await run('pg_receivewal', '--help', '--bogus')).code).toBe(0);
    expect((await run('pg_receivewal', '--bogus', '--help')).code).toBe(1);
  });
});

describe('version', () => {
  it.each(['-V', '--version'])('pg_receivewal %s can be read as PostgreSQL’s', async (flag) => {
    const { code, stdout, stderr } = await run('pg_receivewal', flag, '--bogus');
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    expect(stdout).toMatch(/^pg_receivewal \(PostgreSQL\) 18\.0 \(walkeep \d+\.\d+\.\d+\S*\)\n$/);
  });

  it.each([[['--version']], [['-V']], [['receive', '-V']]])('walkeep %j', async (argv) => {
    expect((await run('walkeep', ...argv)).stdout).toMatch(/^walkeep \d+\.\d+\.\d+\S*\n$/);
  });
});
