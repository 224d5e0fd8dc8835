import {
  copyFileSync,
  existsSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import type { Client } from 'pg';
import { expect } from 'vitest';
import { type Lsn, parseLsn } from '../../src/lsn.js';
import { type CliRun, runCli } from './cli.js';
import { type Major, PostgresServer } from './postgres.js';
import { archiveDirectory, differences, receive, writeWal } from './receiving.js';
import { giveToServer, scratchDir } from './scratch.js';
import { waitFor } from './wait.js';

/** Settings under which a server keeps no WAL but for slots. */
const NOTHING_KEPT = { wal_keep_size: '0', max_wal_size: '2MB', min_wal_size: '2MB' };

/**
 * A primary with two streaming standbys, none of which keeps any WAL but what a slot asks for. All
 * archive always, which is what the receiver's segments are compared with, and restore from all.
 */
export class Members implements AsyncDisposable {
  readonly servers: readonly PostgresServer[];
  primary: PostgresServer;
  /** When the last promotion was over, in the time of `performance.now()`. */
  promotedAt = 0;
  /** What lost primaries had that nobody archived. */
  private readonly left = scratchDir('left');
  /** How much each had logged when a standby was promoted last. */
  private readonly logged = new Map<PostgresServer, number>();

  private constructor(servers: readonly PostgresServer[]) {
    this.servers = servers;
    this.primary = servers[0] as PostgresServer;
    mkdirSync(join(this.left, 'pg_wal'));
  }

  static async create(major: Major, settings: Record<string, string> = {}): Promise<Members> {
    const servers: PostgresServer[] = [];
    try {
      const all = { ...NOTHING_KEPT, ...settings };
      const primary = await PostgresServer.create({ major, archive: true, settings: all });
      servers.push(primary);
      const backup = await primary.baseBackup();
      for (const applicationName of ['b', 'c']) {
        const own = { archive: true, settings: { archive_mode: 'always' } };
        const standby = await primary.createStandby({
          ...own,
          applicationName,
          backup,
          start: false,
        });
        servers.push(standby);
      }
      const members = new Members(servers);
      const restore = servers
        .map(({ archiveDir }) => `cp ${archiveDir}/%f %p 2>/dev/null`)
        .join(' || ');
      for (const server of servers) {
        await server.configure({ archive_mode: 'always', restore_command: restore });
      }
      await primary.restart();
      await Promise.all(members.standbys.map((standby) => standby.start()));
      return members;
    } catch (error) {
      for (const server of servers) await server.destroy();
      throw error;
    }
  }

  get standbys(): PostgresServer[] {
    return this.servers.filter((server) => server !== this.primary);
  }

  /** All of them, for the one that takes writes. */
  get conninfo(): string {
    const ports = this.servers.map(({ port }) => port).join(',');
    return `host=127.0.0.1,127.0.0.1,127.0.0.1 port=${ports} user=postgres target_session_attrs=read-write`;
  }

  /** Loses the primary, in an instant, and promotes a standby, which the other one follows. */
  async failOver(to: PostgresServer): Promise<number> {
    await this.primary.kill9();
    return this.takeOver(to);
  }

  /** Loses the primary, and promotes the one that has most of it, which all others can follow. */
  async failOverToForemost(): Promise<number> {
    const standbys = this.standbys.filter((s) => s.running);
    await this.primary.kill9();
    let foremost: { server: PostgresServer; lsn: Lsn } | undefined;
    for (const server of standbys) {
      const streaming = "SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming'";
      await waitFor(async () => (await server.sql(streaming)).length === 0, {
        what: 'the end of what the lost primary sent',
      });
      const [row] = await server.sql('SELECT pg_last_wal_receive_lsn() AS lsn');
      const lsn = parseLsn(row?.lsn ?? '0/0');
      if (!foremost || lsn > foremost.lsn) foremost = { server, lsn };
    }
    return this.takeOver(foremost?.server as PostgresServer);
  }

  /** Promotes a standby when the primary is gone. */
  async takeOver(to: PostgresServer): Promise<number> {
    const lost = this.primary;
    for (const server of this.servers) this.logged.set(server, (await server.log()).length);
    const timeline = await to.promote();
    this.promotedAt = performance.now();
    this.primary = to;
    for (const other of this.standbys) if (other !== lost) await this.follow(other);
    return timeline;
  }

  private async follow(standby: PostgresServer): Promise<void> {
    const { primary } = this;
    const name = { host: primary.socketDir, application_name: `m${standby.port}` };
    await standby.configure({ primary_conninfo: primary.conninfo(name) });
  }

  /** Keeps, for `differences`, what a lost member did not archive. */
  keepWal(lost: PostgresServer): void {
    const wal = join(lost.dataDir, 'pg_wal');
    for (const name of readdirSync(wal)) {
      if (!/^[0-9A-F]{24}$/.test(name) || existsSync(join(lost.archiveDir, name))) continue;
      copyFileSync(join(wal, name), join(this.left, name));
    }
  }

  /** Makes a lost member anew, as a standby: what replaces a broken machine. */
  async rebuild(lost: PostgresServer): Promise<void> {
    this.keepWal(lost);
    const backup = await this.primary.baseBackup();
    rmSync(lost.dataDir, { recursive: true });
    renameSync(backup, lost.dataDir);
    rmSync(dirname(backup), { recursive: true });
    await this.join(lost);
  }

  /** Starts a member as a standby of the primary, which its files are fit for. */
  async join(lost: PostgresServer): Promise<void> {
    this.logged.set(lost, (await lost.log()).length);
    const file = join(lost.dataDir, 'standby.signal');
    writeFileSync(file, '');
    giveToServer(file);
    await this.follow(lost);
    await lost.start();
  }

  /** How the complete segments of a directory differ from what the members archived themselves. */
  differences(directory: string): string[] {
    const { segmentSize } = this.primary;
    const left = { segmentSize, archiveDir: this.left, dataDir: this.left } as PostgresServer;
    return differences(directory, [...this.servers, left]);
  }

  /** Until no complete segment of a directory differs from those. */
  async waitEqual(directory: string): Promise<void> {
    await waitFor(
      () => {
        const problems = this.differences(directory);
        if (problems.length > 0) throw new Error(problems.join('; '));
        return true;
      },
      { what: 'the segments to be equal' },
    );
  }

  /** Until all standbys have what the primary has now. */
  async followed(): Promise<void> {
    const lsn = await this.primary.currentLsn();
    for (const standby of this.standbys.filter((s) => s.running)) {
      await waitFor(
        async () => {
          if ((await standby.currentLsn()) >= lsn) return true;
          const log = (await standby.log()).slice(this.logged.get(standby) ?? 0);
          // It had more of the lost primary than the promoted one: that one it cannot follow.
          if (/forked off .* before current recovery point/.test(log)) {
            await standby.kill9();
            await this.rebuild(standby);
          }
          throw new Error(log.slice(-2000));
        },
        { what: 'standbys to follow', timeoutMs: 180_000 },
      );
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const server of this.servers) await server.destroy();
  }
}

/** A receiver of members, which streams. */
export async function receivingFrom(
  keep: <T extends AsyncDisposable>(one: T) => T,
  major: Major,
  args: string[],
  settings: Record<string, string> = {},
) {
  const members = keep(await Members.create(major, settings));
  const directory = archiveDirectory();
  const options = ['-S', 'walkeep', '--synchronous', ...args];
  const run = keep(receive(directory, members.conninfo, options));
  await run.waitForOutput(/starting log streaming/);
  return { members, directory, run, options };
}

/** Writes and makes checkpoints, on all members, until the primary goes or `stop` is called. */
export async function underLoad(members: Members): Promise<{ stop(): Promise<void> }> {
  let stopped = false;
  const { primary } = members;
  const repeat = async (server: PostgresServer, work: (client: Client) => Promise<unknown>) => {
    const client = await server.client().catch(() => undefined);
    try {
      while (client && !stopped) await work(client);
    } catch {
      // The server is gone.
    } finally {
      await client?.end().catch(() => {});
    }
  };
  const write = (client: Client) =>
    client.query(
      `SELECT pg_logical_emit_message(true, 'load', string_agg(sha512((random()::text || i)::bytea), ''))
         FROM generate_series(1, 1000) i`,
    );
  const checkpoint = async (client: Client) => {
    await client.query('CHECKPOINT');
    await client.query('SELECT pg_sleep(0.3)');
  };
  const running = [
    repeat(primary, async (client) => {
      await write(client);
      await client.query('SELECT pg_sleep(0.01)');
    }),
    ...members.servers.filter((s) => s.running).map((server) => repeat(server, checkpoint)),
  ];
  return {
    stop: async () => {
      stopped = true;
      await Promise.all(running);
    },
  };
}

/** What `walkeep check` says of the members: by port, the status and the message. */
export async function memberCovers(
  members: Members,
  directory: string,
  ...args: string[]
): Promise<{ code: number | null; covers: Map<number, string>; said: string }> {
  const cli: CliRun = runCli([
    ...['check', '--json', '-w', '-D', directory, '-d', members.conninfo],
    ...['-S', 'walkeep', ...args],
  ]);
  const { code } = await cli.exit;
  expect(cli.stderr).toBe('');
  const covers = new Map<number, string>();
  for (const line of cli.stdout.trim().split('\n')) {
    const { check, status, message } = JSON.parse(line);
    const found = /^(\w+): 127\.0\.0\.1:(\d+): (.*)/.exec(message ?? '');
    if (check !== 'member covers' || !found) continue;
    expect(status).toBe(
      found[1] === 'yes' ? 'ok' : found[3]?.includes('timeline') ? 'warn' : status,
    );
    covers.set(Number(found[2]), `${found[1]}: ${found[3]}`);
  }
  return { code, covers, said: cli.stdout };
}

export const OURS = '--member-slots=walkeep';

/** Writes as much as segments have, and has each member forget what it may. */
export async function goOn(members: Members, bytes = 5_000_000): Promise<void> {
  await writeWal(members.primary, bytes);
  for (const server of members.servers) if (server.running) await server.sql('CHECKPOINT');
  await members.followed();
  // A restartpoint takes the last checkpoint that was replayed.
  for (const standby of members.standbys) if (standby.running) await standby.sql('CHECKPOINT');
}

/** Until `check` says of all members that they cover. */
export const allCover = (members: Members, directory: string) =>
  waitFor(
    async () => {
      const { covers, said } = await memberCovers(members, directory, OURS);
      if ([...covers.values()].filter((text) => text.startsWith('yes: ')).length === 3) return true;
      throw new Error(said);
    },
    { what: 'all members to cover', intervalMs: 200, timeoutMs: 120_000 },
  );
