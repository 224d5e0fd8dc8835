import { type StdioOptions, spawn, spawnSync } from 'node:child_process';
import fs, { closeSync, mkdirSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate } from 'node:timers/promises';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { fileOutput } from '../../src/cli/file-output.js';
import { sampleArchive } from '../support/archives.js';
import { packageRoot, scratchDir } from '../support/scratch.js';

const LOST = 'error: could not write to standard output: No space left on device\n';
const script = (program: string) => join(packageRoot, 'bin', program);

let full: number;
let archive: string;
beforeAll(() => {
  full = openSync('/dev/full', 'w');
  archive = sampleArchive(2).directory;
});
afterAll(() => closeSync(full));

function run(command: string, stdio: StdioOptions) {
  const [program = '', ...args] = command.replace('ARCHIVE', archive).split(' ');
  const argv = [script(program), ...args];
  const { status, stdout, stderr } = spawnSync(process.execPath, argv, {
    encoding: 'utf8',
    env: {},
    stdio,
  });
  return { status, stdout, stderr };
}

/** Each with the exit code that says of its command that it failed. */
const COMMANDS: [string, number][] = [
  ['walkeep --help', 1],
  ['walkeep --version', 1],
  ['walkeep list ARCHIVE', 1],
  ['walkeep list --json ARCHIVE', 1],
  ['walkeep verify -j1 ARCHIVE', 2],
  ['walkeep verify --json ARCHIVE', 2],
  ['walkeep check --help', 2],
  ['walkeep find --help', 2],
  ['walkeep cleanup --dry-run ARCHIVE 000000010000000100000000', 2],
  ['walkeep receive --help', 1],
  ['walkeep push --version', 1],
  // PostgreSQL must not take it for "not there".
  ['walkeep fetch --help', 200],
  ['pg_receivewal --help', 1],
  ['pg_receivewal --version', 1],
];

describe('output that a full disk does not take is a failure of', () => {
  it.each(COMMANDS)('%s', (command, code) => {
    const { status, stderr } = run(command, ['ignore', full, 'pipe']);
    expect({ status, stderr }).toEqual({
      status: code,
      stderr: `${command.split(' ')[0]}: ${LOST}`,
    });
  });

  it.each(COMMANDS)('%s, where that cannot be told either', (command, code) => {
    expect(run(command, ['ignore', full, full]).status).toBe(code);
  });
});

it('a message that stderr does not take changes nothing', () => {
  expect(run('walkeep list ARCHIVE', ['ignore', 'pipe', full])).toMatchObject({
    status: 0,
    stdout: expect.stringContaining('2 segments'),
  });
  expect(run('walkeep list /no/such', ['ignore', 'pipe', full]).status).toBe(1);
  expect(run('walkeep verify /no/such', ['ignore', 'pipe', full]).status).toBe(2);
  expect(run('pg_receivewal --bogus', ['ignore', 'pipe', full]).status).toBe(1);
});

it('a file that takes only a part of it is a failure too', () => {
  const file = join(scratchDir('short'), 'out');
  // What exceeds a file size limit is cut off as on a disk that is nearly full.
  const line = `trap "" XFSZ; ulimit -f 1; exec "$0" "$1" find --help > "$2"`;
  const argv = ['--norc', '-c', line, process.execPath, script('walkeep'), file];
  const { status, stderr } = spawnSync('bash', argv, { encoding: 'utf8', env: {} });
  expect(status).toBe(2);
  expect(stderr).toMatch(/^walkeep: error: could not write to standard output: .*\n$/);
  expect(readFileSync(file).length).toBe(1024);
});

it('a log file goes on once the disk has space again', () => {
  const path = join(scratchDir('log'), 'log');
  const fd = openSync(path, 'w');
  const log = fileOutput(fd, { lossy: true });
  const { writeSync } = fs;
  let full = true;
  vi.spyOn(fs, 'writeSync').mockImplementation(((...args: [number, Uint8Array, number]) => {
    if (full) throw Object.assign(new Error('full'), { code: 'ENOSPC' });
    return writeSync(...args);
  }) as typeof fs.writeSync);
  log.write('lost\n');
  full = false;
  log.write('told\n');
  vi.restoreAllMocks();
  closeSync(fd);
  expect(readFileSync(path, 'utf8')).toBe('told\n');
});

describe('a pipe', () => {
  /** An archive with so many strangers in it that its findings fill a pipe several times. */
  function manyFindings(): string {
    const { directory } = sampleArchive(2);
    for (let i = 0; i < 2000; i++) writeFileSync(join(directory, `stranger-${i}`), '');
    mkdirSync(join(directory, 'sub'));
    return directory;
  }

  it('whose reader has had enough is none', async () => {
    const child = spawn(process.execPath, [script('walkeep'), 'list', archive], {
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    child.stdout.destroy();
    let stderr = '';
    child.stderr.setEncoding('utf8').on('data', (text) => {
      stderr += text;
    });
    const code = await new Promise((resolve) => child.once('close', resolve));
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
  });

  it('that is read slowly gets all of it', async () => {
    const child = spawn(process.execPath, [script('walkeep'), 'verify', '--json', manyFindings()], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const exited = new Promise((resolve) => child.once('exit', resolve));
    let text = '';
    for await (const chunk of child.stdout) {
      text += chunk;
      await setImmediate();
    }
    expect(await exited).toBe(1);
    const lines = text.trimEnd().split('\n');
    expect(text.length).toBeGreaterThan(200_000);
    expect(lines).toHaveLength(2002);
    expect(JSON.parse(lines.at(-1)!)).toMatchObject({ type: 'summary', warnings: 2001 });
  });
});
