import { execFile } from 'node:child_process';
import { appendFile, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import type { Client } from 'pg';
import { afterEach, describe, expect, test } from 'vitest';
import { type Block, blocksIn, blocksOf, DOCUMENTS, settingsOf } from '../docs/documents.js';
import { commandsOf } from '../docs/shell.js';
import { binDir } from '../support/binaries.js';
import { disposer } from '../support/cleanup.js';
import { type CliRun, runCli, unfolded } from '../support/cli.js';
import { MAJORS, PostgresServer } from '../support/postgres.js';
import { packageRoot, scratchDir, serverUser } from '../support/scratch.js';
import { waitFor } from '../support/wait.js';

const exec = promisify(execFile);
const keep = disposer();
const major = MAJORS.at(-1);
/** Each file of a recovery is a process of its own: slow where all else runs too. */
const PATIENCE = { timeoutMs: 60_000 };

/** The statements of a block. */
const statementsOf = (text: string) =>
  text
    .split(/;\s*$/m)
    .map((statement) => statement.trim())
    .filter((statement) => statement !== '');

/** A session whose own commits wait for no standby. */
async function session(server: PostgresServer): Promise<Client> {
  return server.client({ options: '-c synchronous_commit=local' });
}

describe.skipIf(!major)('on a real server', () => {
  const create = () => PostgresServer.create({ major: major!, settings: { wal_keep_size: '0' } });

  test('the SQL of the documents runs', { timeout: 60_000 }, async () => {
    const server = keep(await create());
    const client = await session(server);
    for (const file of DOCUMENTS) {
      const blocks = blocksOf(file);
      const psql = blocks
        .filter(({ language }) => language === 'sh')
        .flatMap((block) => commandsOf(block.text.replaceAll(/\$\([^()]*\)/g, 'output')))
        .filter(([program]) => program === 'psql')
        .map((words) => words[words.indexOf('-c') + 1] as string);
      const sql = blocks.filter(({ language, info }) => language === 'sql' && info !== 'paused');
      for (const statement of [...psql, ...sql.flatMap(({ text }) => statementsOf(text))]) {
        await client.query(statement).catch((cause) => {
          throw new Error(`${file}: ${statement}: ${cause.message}`, { cause });
        });
      }
      await client.query('ALTER SYSTEM RESET ALL');
      await client.query('SELECT pg_reload_conf()');
    }
  });

  test('the settings of the documents are ones that the server takes', {
    timeout: 60_000,
  }, async () => {
    const server = keep(await create());
    for (const { place, text } of blocksIn('conf')) {
      const settings = Object.entries(settingsOf(text));
      const [first] = settings;
      const args = settings.flatMap(([name, value]) => ['-c', `${name}=${value}`]);
      const postgres = join(binDir(major!), 'postgres');
      const asked = ['-C', first![0], '-D', server.dataDir, ...args];
      const { stdout } = await exec(postgres, asked, serverUser).catch((cause) => {
        throw new Error(`${place}: ${cause.stderr}`, { cause });
      });
      expect(stdout.trim(), place).toBe(first![1]);
    }
  });

  test('the lines for pg_hba.conf are ones that the server takes', {
    timeout: 60_000,
  }, async () => {
    const server = keep(await create());
    const file = join(server.dataDir, 'pg_hba.conf');
    const before = (await readFile(file, 'utf8')).split('\n').length;
    const blocks = blocksIn('hba');
    await appendFile(file, blocks.map(({ text }) => `${text}\n`).join(''));
    const rules = await server.sql('SELECT * FROM pg_hba_file_rules ORDER BY line_number');
    const ours = rules.filter((rule) => rule.line_number >= before);
    expect(ours.length).toBeGreaterThan(1);
    // This server has no TLS; all else is read before that is found.
    for (const { error } of ours) expect(error).toMatch(/^$|SSL is (disabled|not supported)/);
  });
});

/** The archive, the server and the places of the documents, by those of a real run. */
class Cookbook {
  readonly archive = scratchDir('wal', { forServer: true });
  readonly server: PostgresServer;
  readonly known: [string, string][];
  receiver: CliRun | undefined;

  constructor(server: PostgresServer) {
    this.server = server;
    this.known = [
      ['/var/lib/walkeep/main', this.archive],
      ['/var/lib/node_exporter', scratchDir('node-exporter', { forServer: true })],
      ['host=db.example port=5432 user=replicator', server.conninfo({ user: 'replicator' })],
    ];
  }

  /** Gives a text of the documents the values of this run. */
  fill(text: string): string {
    const words = this.known.map(([from]) => from.replaceAll(/[/+]/g, '\\$&'));
    const values = new Map(this.known);
    // In one pass: what was filled in may hold anything.
    return text.replaceAll(new RegExp(words.join('|'), 'g'), (word) => values.get(word) as string);
  }

  /** The commands of walkeep in a document, those that `wanted` picks, in order. */
  commands(file: string, wanted: (words: string[]) => boolean): string[][] {
    return blocksOf(file)
      .filter(({ language }) => language === 'sh')
      .flatMap(({ text }) => commandsOf(this.fill(text)))
      .filter((words) => words[0] === 'walkeep' && wanted(words));
  }

  start(words: readonly string[]): CliRun {
    return runCli(words.slice(1), serverUser);
  }

  /** Runs a command to its end, which must be a good one; gives its output. */
  async run(words: readonly string[]): Promise<string> {
    const cli = this.start(words);
    const { code } = await cli.exit;
    // A disk that is nearly full here is worth a warning.
    const warned = words[1] === 'check' && code === 1 && /disk space/.test(unfolded(cli.stdout));
    const output = `${words.join(' ')}\n${cli.stderr}${cli.stdout}`;
    expect(warned ? 0 : code, output).toBe(0);
    return cli.stdout;
  }

  /** Waits until the receiver has confirmed all that the server has. */
  async received(): Promise<void> {
    const end = await this.server.currentLsn();
    await waitFor(async () => {
      const [row] = await this.server.sql(
        `SELECT flush_lsn >= '0/${end.toString(16)}' AS done FROM pg_stat_replication`,
      );
      return row?.done;
    });
  }

  /** A server that recovers with the settings of a document. */
  async recover(backup: string, text: string): Promise<PostgresServer> {
    const { restore_command, ...targetSettings } = settingsOf(this.fill(text));
    const walkeep = `${process.execPath} ${join(packageRoot, 'bin', 'walkeep')}`;
    const restoreCommand = (restore_command as string).replace(/^walkeep/, walkeep);
    return this.server.recoverFrom({ backup, restoreCommand, targetSettings });
  }
}

describe.skipIf(!major)('the cookbook', () => {
  let book: Cookbook | undefined;
  afterEach(async () => {
    await book?.receiver?.stop('SIGKILL');
  });

  test('leads from archive_command to a restored server', { timeout: 240_000 }, async () => {
    const server = keep(await PostgresServer.create({ major: major!, archive: true }));
    book = new Cookbook(server);
    const guide = 'docs/replace-archive-command.md';
    const statements = blocksOf(guide).filter(({ language }) => language === 'sql');
    const [role, switchOff] = statements as [Block, Block];
    for (const statement of statementsOf(role.text)) await server.sql(statement);
    const commands = book.commands(guide, () => true);
    const upTo = commands.findIndex((words) => words[1] === 'restore');
    expect(commands.slice(0, upTo).map((words) => words[1])).toEqual([
      ...['slot', 'receive', 'backup', 'check', 'verify', 'list'],
    ]);
    for (const words of commands.slice(0, upTo)) {
      if (words[1] === 'receive') {
        book.receiver = book.start(words);
        await book.receiver.waitForOutput(/starting log streaming/);
      } else await book.run(words);
    }
    for (const statement of statementsOf(switchOff.text)) await server.sql(statement);
    await makeHistory(server);
    await book.received();
    // Into the directory of a server that is there for it, and not where the guide has it.
    const restored = keep(
      await server.createRestored(async (dataDir) => {
        book?.known.push(['/var/lib/postgresql/restored', dataDir]);
        const restores = book?.commands(guide, (words) => words[1] === 'restore') ?? [];
        expect(restores.length).toBe(2);
        for (const words of restores) await book?.run(words);
      }),
    );
    await restored.start();
    await promoted(restored);
    expect(await numbers(restored)).toEqual([1, 2, 3, 4]);
    expect(await book.receiver?.stop('SIGTERM')).toMatchObject({ code: 0 });
  });

  test('works as it stands', { timeout: 240_000 }, async () => {
    const server = keep(await PostgresServer.create({ major: major! }));
    book = new Cookbook(server);
    const { known } = book;

    // docs/replace-archive-command.md
    const setUp = 'docs/replace-archive-command.md';
    const [role] = blocksOf(setUp).filter(({ language }) => language === 'sql') as [Block];
    for (const statement of statementsOf(role.text)) await server.sql(statement);
    const [slot] = book.commands(setUp, (w) => w[1] === 'slot') as [string[]];
    await book.run(slot);
    const [receive] = book.commands(setUp, (w) => w[1] === 'receive') as [string[]];
    book.receiver = book.start(receive);
    await book.receiver.waitForOutput(/starting log streaming/);
    const backup = await server.baseBackup();
    const history = await makeHistory(server);
    await book.received();
    for (const words of book.commands(setUp, (w) => ['check', 'verify', 'list'].includes(w[1]!))) {
      await book.run(words);
    }

    // docs/restore.md: what is looked for is found.
    known.push(
      ['2026-08-01 12:00:00+00', history.time],
      ['0/3A5F2E8', history.lsn],
      ['0/3000000', history.start],
      ['771', history.xid],
    );
    const cookbook = 'docs/restore.md';
    const targets: string[] = [];
    // restore-backup.test.ts runs those of a backup.
    for (const words of book.commands(cookbook, (w) => w[1] !== 'restore')) {
      const output = await book.run(words);
      if (words.includes('--target')) targets.push(output);
    }
    expect(targets.length).toBe(3);

    // Each place is where it should be.
    const places: Record<string, number[]> = {
      latest: [1, 2, 3, 4],
      timeline: [1, 2, 3, 4],
      name: [1],
      time: [1, 2],
      lsn: [1, 2],
      xid: [1, 2],
    };
    const recipes = blocksOf(cookbook).filter(({ info }) => info.startsWith('target='));
    const named = new Set(recipes.map(({ info }) => info.slice('target='.length)));
    expect([...named].sort()).toEqual(Object.keys(places).sort());
    await inPairs(recipes, async ({ info, text }) => {
      const recovered = keep(await book!.recover(backup, text));
      await promoted(recovered);
      expect(await numbers(recovered), info).toEqual(places[info.slice('target='.length)]);
      await recovered.destroy();
    });

    // The settings that find prints stop at the place, and what comes then is as described.
    const paused = blocksOf(cookbook).filter(({ info }) => info === 'paused');
    expect(paused.length).toBe(2);
    for (const [i, expected] of [[1, 2], [1, 2], [1]].entries()) {
      const recovered = keep(await book.recover(backup, targets[i] as string));
      const client = await recovered.client();
      await waitFor(async () => {
        const { rows } = await client.query('SELECT pg_get_wal_replay_pause_state() AS state');
        return rows[0].state === 'paused';
      }, PATIENCE);
      expect(await numbers(recovered), targets[i]).toEqual(expected);
      for (const { text } of paused) {
        for (const statement of statementsOf(text)) await client.query(statement);
      }
      await promoted(recovered);
      expect(await numbers(recovered)).toEqual(expected);
      await recovered.destroy();
    }

    // docs/operations.md
    const operations = 'docs/operations.md';
    const label = await readFile(join(backup, 'backup_label'), 'utf8');
    known.push(['000000010000000000000003', /\(file (\w+)\)/.exec(label)?.[1] as string]);
    const [listed, ...removed] = book.commands(operations, (w) => w[1] === 'cleanup');
    const names = (await book.run(listed as string[])).trim();
    expect(names).not.toBe('');
    for (const words of removed) await book.run(words);
    const looks = ['check', 'verify'];
    for (const words of book.commands(operations, (w) => looks.includes(w[1]!))) {
      await book.run(words);
    }
    expect((await book.run(listed as string[])).trim()).toBe('');

    expect(await book.receiver.stop('SIGTERM')).toMatchObject({ code: 0 });
    const [, drop] = book.commands(setUp, (w) => w[1] === 'slot');
    await book.run(drop as string[]);
    expect(await server.sql('SELECT 1 FROM pg_replication_slots')).toEqual([]);
  });
});

/** A recovery mostly waits: two at a time are done in little more than the time of one. */
async function inPairs<T>(items: readonly T[], run: (item: T) => Promise<void>): Promise<void> {
  for (let i = 0; i < items.length; i += 2) await Promise.all(items.slice(i, i + 2).map(run));
}

/** Rows 1 to 4, and what the cookbook looks for between them. */
async function makeHistory(server: PostgresServer) {
  const client = await server.client();
  const { rows: starts } = await client.query('SELECT pg_current_wal_lsn()::text AS lsn');
  await client.query('CREATE TABLE t (n int)');
  await client.query('INSERT INTO t VALUES (1)');
  await client.query("SELECT pg_create_restore_point('before_migration')");
  await client.query('CREATE TABLE old ()');
  await client.query('INSERT INTO t VALUES (2)');
  await client.query('SELECT pg_sleep(0.1)');
  const { rows } = await client.query('SELECT clock_timestamp()::text AS time');
  await client.query('SELECT pg_sleep(0.1)');
  await client.query('BEGIN');
  await client.query('INSERT INTO t VALUES (3)');
  await client.query('DROP TABLE old');
  const { rows: ids } = await client.query('SELECT pg_current_xact_id()::text AS xid');
  const { rows: lsns } = await client.query('SELECT pg_current_wal_insert_lsn()::text AS lsn');
  await client.query('COMMIT');
  await client.query('INSERT INTO t VALUES (4)');
  await client.end();
  return {
    start: starts[0].lsn as string,
    time: rows[0].time as string,
    xid: ids[0].xid as string,
    lsn: lsns[0].lsn as string,
  };
}

async function promoted(server: PostgresServer): Promise<void> {
  await waitFor(async () => {
    const [row] = await server.sql('SELECT pg_is_in_recovery() AS recovering');
    return row?.recovering === false;
  }, PATIENCE);
}

async function numbers(server: PostgresServer): Promise<number[]> {
  const rows = await server.sql<{ n: number }>('SELECT n FROM t ORDER BY n');
  return rows.map(({ n }) => n);
}
