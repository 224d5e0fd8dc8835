import { execFileSync } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { expect, test } from 'vitest';
import { pushFile } from '../../src/push/push.js';
import { randomNumbers } from '../support/archives.js';
import { disposer } from '../support/cleanup.js';
import { type CliRun, runCli } from '../support/cli.js';
import { killInSwitch, paintTail } from '../support/killed-switch.js';
import { MAJORS, PostgresServer } from '../support/postgres.js';
import { type Program, receive } from '../support/receiving.js';
import { scratchDir, serverUser } from '../support/scratch.js';
import { walkeepForServer } from '../support/server-program.js';
import { findTool } from '../support/tools.js';
import { waitFor } from '../support/wait.js';

/** `WALKEEP_SWITCH_KILLS=20` for the full run, `WALKEEP_SWITCH_SEED` repeats one. */
const KILLS = Number(process.env.WALKEEP_SWITCH_KILLS ?? 2);
const SEED = Number(process.env.WALKEEP_SWITCH_SEED ?? Date.now() % 100_000);
const keep = disposer();

/** A receiver that is started again and again on its directory. */
class Kept {
  readonly directory = scratchDir('wal', { forServer: true });
  readonly #conninfo: string;
  readonly #args: string[];
  readonly #program: Program;
  #run: CliRun | undefined;
  #told = '';

  constructor(server: PostgresServer, name: string, program: Program, args: string[]) {
    this.#conninfo = server.conninfo({ application_name: name });
    this.#args = ['-S', name, ...args];
    this.#program = program;
  }

  async start(): Promise<void> {
    this.#run = keep(
      receive(this.directory, this.#conninfo, this.#args, { program: this.#program }),
    );
    await this.#run.waitForOutput(/starting log streaming/);
  }

  async kill(): Promise<void> {
    await this.#run?.stop('SIGKILL');
    this.#told += this.#run?.stderr ?? '';
  }

  async stop(): Promise<{ code: number | null }> {
    const status = (await this.#run?.stop()) ?? { code: null };
    this.#told += this.#run?.stderr ?? '';
    return status;
  }

  get running(): boolean {
    return this.#run?.running ?? false;
  }

  get told(): string {
    return this.#told + (this.#run?.stderr ?? '');
  }
}

const run = async (args: string[]) => {
  const cli = keep(runCli(args));
  const { code } = await cli.exit;
  return { code, output: cli.stdout + cli.stderr };
};

const complete = (directory: string) =>
  readdirSync(directory)
    .filter((name) => /^[0-9A-F]{24}$/.test(name))
    .sort();

/** Rows of a server that recovered from a base backup with `walkeep fetch`. */
async function recovered(server: PostgresServer, backup: string, directory: string) {
  if (serverUser.uid) execFileSync('chown', ['-R', `${serverUser.uid}`, directory]);
  await using copy = await server.recoverFrom({
    backup,
    restoreCommand: `${walkeepForServer()} fetch "${directory}" %f %p`,
    settings: { synchronous_standby_names: '', archive_mode: 'off' },
  });
  await waitFor(async () => (await copy.sql('SELECT pg_is_in_recovery() AS r'))[0]?.r === false, {
    what: 'the recovery to end',
    timeoutMs: 60_000 + KILLS * 60_000,
  });
  return new Set((await copy.sql<{ n: number }>('SELECT n FROM t')).map((row) => row.n));
}

const settings = { max_wal_size: '256MB', min_wal_size: '128MB', wal_keep_size: '0' };
const CASES = (
  [
    [15, { ...settings, wal_buffers: '64kB' }],
    [18, { ...settings, shared_buffers: '128MB' }],
  ] as const
).filter(([major]) => MAJORS.includes(major));

test.each(CASES)(
  `a server that is killed while it fills a segment up (PostgreSQL %i, ${KILLS} times)`,
  async (major, own) => {
    const random = randomNumbers(SEED);
    const pushed = scratchDir('wal', { forServer: true });
    const server = keep(
      await PostgresServer.create({
        major,
        segmentSizeMb: 16,
        settings: {
          ...own,
          archive_mode: 'on',
          archive_command: `${walkeepForServer()} push "${pushed}" %p`,
        },
      }),
    );
    const receivers = [
      new Kept(server, 'plain', 'walkeep', ['--synchronous']),
      new Kept(server, 'gzip', 'walkeep', ['-Z', 'gzip:1']),
      new Kept(server, 'drop', 'pg_receivewal', ['--synchronous']),
    ];
    for (const name of ['plain', 'gzip', 'drop']) {
      await server.sql('SELECT pg_create_physical_replication_slot($1, true)', [name]);
    }
    await server.sql('CREATE TABLE t (n int PRIMARY KEY)');
    for (const one of receivers) await one.start();
    const backup = await server.baseBackup();
    await server.configure({ synchronous_standby_names: 'ANY 1 (plain)' });
    let rows = 0;
    let hits = 0;
    for (let kill = 0; kill < KILLS; kill++) {
      await server.sql('INSERT INTO t VALUES ($1)', [++rows]);
      const killed = await killInSwitch(server, random() * 0.4);
      if (killed.hit) hits += 1;
      // What a server had sent of the rest, and what it has now, may be anything. On a busy machine
      // it was often faster than the kill.
      const paint = Math.floor(random() * 6);
      if (paint < 3) paintTail(killed, server.segmentSize, [0, 0x55, 0xd1][paint]!);
      else if (!killed.hit) paintTail(killed, server.segmentSize, 0xa7);
      for (const one of receivers) if (random() < 0.4) await one.kill();
      await server.start();
      for (const one of receivers) if (!one.running) await one.start();
      await server.sql('INSERT INTO t VALUES ($1)', [++rows]);
    }
    await server.switchWal();
    const lsn = await server.currentLsn();
    await waitFor(
      async () => {
        const { length } = await server.sql(
          'SELECT 1 FROM pg_stat_replication WHERE coalesce(flush_lsn, write_lsn) >= $1::pg_lsn',
          [`${lsn >> 32n}/${(lsn & 0xffff_ffffn).toString(16)}`],
        );
        const [row] = await server.sql('SELECT last_archived_wal AS last FROM pg_stat_archiver');
        return length >= 2 && row?.last === complete(receivers[0]!.directory).at(-1);
      },
      { what: 'all WAL to be everywhere', timeoutMs: 60_000 },
    ).catch((error) => {
      throw new Error(`${error.cause ?? error}\n${receivers.map((r) => r.told).join('\n---\n')}`);
    });
    for (const one of receivers) {
      expect(await one.stop()).toMatchObject({ code: 0 });
      expect(one.told).not.toMatch(/WK_REFILL|lost acknowledged|damaged|differ|other bytes/);
    }
    await server.stop();

    const directories = [...receivers.map((one) => one.directory), pushed];
    for (const directory of directories) {
      const verify = await run(['verify', directory]);
      expect(verify, verify.output).toMatchObject({ code: 0 });
      expect(verify.output).not.toMatch(/error|warning/);
      // Every copy is the same WAL as every other one.
      for (const name of complete(pushed)) {
        await expect(pushFile(directory, join(pushed, name))).resolves.toMatchObject({
          outcome: 'present',
        });
      }
    }
    const waldump = findTool('pg_waldump', major);
    const names = complete(pushed);
    if (waldump) execFileSync(waldump, ['-q', '-p', pushed, names[0]!, names.at(-1)!]);
    for (const directory of [receivers[1]!.directory, pushed]) {
      const there = await recovered(server, backup, directory);
      for (let n = 1; n <= rows; n++) expect(there.has(n), `row ${n}`).toBe(true);
    }
    console.log(
      `PostgreSQL ${major}, seed ${SEED}: ${hits} of ${KILLS} kills within a fill, ${rows} rows`,
    );
  },
  240_000 + KILLS * 120_000,
);
