import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { beforeAll, describe, expect, test } from 'vitest';
import { shapeOf, shortened } from '../../demo/shown.js';
import { linesOf } from '../../demo/terminal.js';
import { formatLsn, type Lsn, parseLsn } from '../../src/lsn.js';
import { disposer } from '../support/cleanup.js';
import { firstDifference } from '../support/compare.js';
import { MAJORS, PostgresServer } from '../support/postgres.js';
import { archiveDirectory, differences, waitEqual, writeWal } from '../support/receiving.js';
import { killAtEnd, packageRoot } from '../support/scratch.js';
import { waitFor } from '../support/wait.js';

const keep = disposer();
const exec = promisify(execFile);

/** A compiled program that runs; killed at the end of its test. */
class Program implements AsyncDisposable {
  readonly child: ChildProcess;
  output = '';
  readonly exit: Promise<number | null>;

  constructor(path: string, args: string[]) {
    this.child = spawn(process.execPath, [join('.build', `${path}.js`), ...args], {
      cwd: packageRoot,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    killAtEnd(this.child);
    for (const stream of [this.child.stdout, this.child.stderr]) {
      stream?.setEncoding('utf8').on('data', (text) => {
        this.output += text;
      });
    }
    this.exit = new Promise((resolve) => this.child.once('close', (code) => resolve(code)));
  }

  says(pattern: RegExp): Promise<RegExpExecArray> {
    return waitFor(() => pattern.exec(this.output), { what: `${pattern}` }).catch((error) => {
      throw new Error(`${error.message}\n${this.output}`);
    });
  }

  async stop(signal: NodeJS.Signals = 'SIGINT'): Promise<number | null> {
    if (this.child.exitCode === null) this.child.kill(signal);
    return this.exit;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.stop('SIGKILL');
  }
}

beforeAll(async () => {
  const tsc = join(packageRoot, 'node_modules', 'typescript', 'bin', 'tsc');
  await exec(process.execPath, [tsc, '-p', 'tsconfig.demo.json'], { cwd: packageRoot });
});

describe.skipIf(MAJORS.length === 0)('the example', () => {
  const create = () => PostgresServer.create({ major: MAJORS.at(-1)!, archive: true });

  test('archive-to-directory stores every segment', async () => {
    const server = keep(await create());
    const directory = archiveDirectory();
    const args = [server.conninfo(), directory, 'example'];
    const example = keep(new Program('examples/archive-to-directory', args));
    await example.says(/streaming from/);
    await writeWal(server, 2_500_000);
    await waitEqual(directory, server);
    expect(await example.stop()).toBe(0);
    expect(example.output).toMatch(/stored .*[0-9A-F]{24}\n(.*\n)*stopped at 0\/\w+\n$/);
    expect(differences(directory, [server])).toEqual([]);
  });

  test('tail-commits prints each commit', async () => {
    const server = keep(await create());
    const example = keep(new Program('examples/tail-commits', [server.conninfo()]));
    await example.says(/commits from/);
    await server.sql('CREATE TABLE t (n int)');
    const client = await server.client();
    const insert = async (end: string) => {
      await client.query('BEGIN');
      const { rows } = await client.query(
        'INSERT INTO t VALUES (1) RETURNING pg_current_xact_id()',
      );
      await client.query(end);
      return rows[0].pg_current_xact_id as string;
    };
    const commits: string[] = [];
    const aborted: string[] = [];
    for (let n = 0; n < 20; n++) {
      aborted.push(await insert('ROLLBACK'));
      commits.push(await insert('COMMIT'));
    }
    await example.says(new RegExp(`^${commits.at(-1)} `, 'm'));
    const lines = example.output.matchAll(/^(\d+) (\d{4}-\S+ \S+\+00) (\w+\/\w+)$/gm);
    const printed = [...lines].map(([, xid, time, lsn]) => ({ xid, time, lsn }));
    const xids = printed.map((p) => p.xid as string);
    expect(xids.filter((xid) => commits.includes(xid))).toEqual(commits);
    expect(xids.filter((xid) => aborted.includes(xid))).toEqual([]);
    for (const { time, lsn } of printed) {
      expect(Math.abs(Date.parse(time as string) - Date.now())).toBeLessThan(60_000);
      expect(parseLsn(lsn as string)).toBeLessThan(await server.currentLsn());
    }
    expect(await example.stop()).toBe(0);
  });

  test('custom-sink is a synchronous standby, over a kill and a restart', async () => {
    const server = keep(await create());
    const directory = archiveDirectory();
    const start = () => keep(new Program('examples/custom-sink', [server.conninfo(), directory]));
    const state = async () => {
      const [row] = await server.sql(
        "SELECT sync_state AS state, flush_lsn::text AS lsn FROM pg_stat_replication WHERE application_name = 'walkeep'",
      );
      return row;
    };
    let example = start();
    await waitFor(async () => (await state())?.lsn);
    await server.configure({ synchronous_standby_names: 'walkeep' });
    await waitFor(async () => (await state())?.state === 'sync');
    for (let i = 0; i < 3; i++) await writeWal(server, 700_000);
    await example.stop('SIGKILL');
    example = start();
    await waitFor(async () => (await state())?.state === 'sync');
    // Commits return because the sink has synced them.
    for (let i = 0; i < 3; i++) await writeWal(server, 700_000);
    const end = await server.currentLsn();
    await waitFor(async () => parseLsn((await state())?.lsn) >= end);
    expect(await example.stop()).toBe(0);
    expect(example.output).toMatch(/^stopped at 0\/\w+\n$/);
    expectSame(server, directory, end);
  });
});

test.skipIf(MAJORS.length === 0)(
  'the demo ends well, and is what its picture shows',
  { timeout: 600_000 },
  async () => {
    const demo = keep(new Program('demo/demo', []));
    expect(await demo.exit, demo.output).toBe(0);
    const picture = readFileSync(join(packageRoot, 'docs', 'pictures', 'demo.svg'), 'utf8');
    // Else draw it again: npm run demo:picture.
    expect(shapeOf(['$ npm run demo', ...shortened(demo.output)])).toEqual(
      shapeOf(linesOf(picture)),
    );
  },
);

/** The sink's file against the server's segments. */
function expectSame(server: PostgresServer, directory: string, end: Lsn): void {
  const [file] = readdirSync(directory);
  const first = BigInt(`0x${file?.slice(0, 16)}`);
  const bytes = readFileSync(join(directory, file as string));
  expect(first + BigInt(bytes.length), formatLsn(end)).toBeGreaterThanOrEqual(end);
  const size = BigInt(server.segmentSize);
  for (let at = first; at < end; at += size) {
    const name = `00000001${'0'.repeat(8)}${(at / size).toString(16).toUpperCase().padStart(8, '0')}`;
    const expected = readFileSync(join(server.dataDir, 'pg_wal', name));
    const offset = Number(at - first);
    const length = Math.min(expected.length, Number(end - at));
    const actual = bytes.subarray(offset, offset + length);
    expect(firstDifference(actual, expected.subarray(0, length)), name).toBe(-1);
  }
}
