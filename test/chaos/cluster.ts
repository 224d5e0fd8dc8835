import { existsSync, readdirSync, renameSync, writeFileSync } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { parseLsn } from '../../src/lsn.js';
import { caughtUp } from '../support/failover.js';
import { type Major, PostgresServer } from '../support/postgres.js';
import { giveToServer, scratchDir } from '../support/scratch.js';
import { TcpProxy } from '../support/tcp-proxy.js';
import { waitFor } from '../support/wait.js';

const ALONE = 'FIRST 1 (walkeep)';
/** With less a confirmed commit might be lost with the primary's data, which is not walkeep's fault. */
const BOTH = 'FIRST 2 (walkeep, standby)';

/** How long after a disturbance the servers may take to be as they should. */
const SETTLE = { timeoutMs: 60_000 };

/** A primary and a physical standby, each behind a proxy, and what a failover manager does. */
export class Cluster {
  primary: PostgresServer;
  standby: PostgresServer | undefined;
  /** Segments that servers had when they were retired: archived ones, and those in pg_wal. */
  readonly archived = scratchDir('archived', { forServer: true });
  readonly inPgWal = scratchDir('pg-wal', { forServer: true });
  readonly #proxies = new Map<PostgresServer, TcpProxy>();
  /** Also those whose server was retired and is still to be made anew. */
  readonly proxies: TcpProxy[] = [];

  private constructor(primary: PostgresServer) {
    this.primary = primary;
  }

  static async create(major: Major): Promise<Cluster> {
    const primary = await PostgresServer.create({
      major,
      archive: true,
      settings: {
        wal_sender_timeout: '5s',
        wal_receiver_timeout: '5s',
        checkpoint_timeout: '60s',
        // Patience is walkeep's; a client that a server has lost must not keep it from ending.
        tcp_user_timeout: '5s',
        // The fill behind a switch record is written in many pieces, between which it can be cut.
        wal_buffers: '64kB',
      },
    });
    const cluster = new Cluster(primary);
    await cluster.#putProxyBefore(primary);
    return cluster;
  }

  /** The proxy in front of the primary. */
  get proxy(): TcpProxy {
    return this.#proxyOf(this.primary);
  }

  #proxyOf(server: PostgresServer): TcpProxy {
    return this.#proxies.get(server) as TcpProxy;
  }

  /** All proxies, the one that takes writes is to be found out. */
  get conninfo(): string {
    const ports = this.proxies.map((proxy) => proxy.port);
    const hosts = ports.map(() => '127.0.0.1').join(',');
    return `host=${hosts} port=${ports.join(',')} user=postgres target_session_attrs=read-write`;
  }

  /** Makes a standby that no commit waits for yet, behind the proxy given or one of its own. */
  async addStandby(proxy?: TcpProxy): Promise<void> {
    const standby = await this.primary.createStandby({
      archive: true,
      settings: { synchronous_standby_names: ALONE },
    });
    await this.#putProxyBefore(standby, proxy);
    this.standby = standby;
  }

  async #putProxyBefore(server: PostgresServer, known?: TcpProxy): Promise<void> {
    known?.retarget(server.port);
    const proxy = known ?? (await TcpProxy.listen(server.port));
    this.#proxies.set(server, proxy);
    if (!known) this.proxies.push(proxy);
  }

  /** From now on a commit is confirmed when walkeep and the standby have it. */
  async waitForBoth(): Promise<void> {
    await this.primary.configure({ synchronous_standby_names: BOTH });
    await this.redundant();
  }

  /** Waits until the standby has all that was confirmed before, and commits wait for it. */
  async redundant(): Promise<PostgresServer> {
    const { primary, standby } = this;
    if (!standby) throw new Error('there is no standby');
    await waitFor(
      async () => {
        const rows = await primary.sql(
          "SELECT 1 FROM pg_stat_replication WHERE application_name = 'standby' AND sync_state = 'sync'",
        );
        return rows.length > 0;
      },
      { what: 'the standby to be synchronous', ...SETTLE },
    );
    await caughtUp(primary, standby);
    return standby;
  }

  /** The primary is killed; the standby takes over, and a new one is made in its place. */
  async failover(): Promise<void> {
    const standby = await this.redundant();
    const old = this.primary;
    await old.kill9();
    await this.#promote(standby);
    const proxy = this.#proxyOf(old);
    await this.retire(old);
    await this.addStandby(proxy);
    await this.waitForBoth();
  }

  /**
   * A second standby, which no commit waits for: it has WAL from its backup on, whose start ends a
   * segment.
   */
  async spare(): Promise<PostgresServer> {
    return this.primary.createStandby({
      archive: true,
      applicationName: 'spare',
      settings: { synchronous_standby_names: ALONE },
    });
  }

  /**
   * Two primaries are lost one after the other, within one segment: the ancestors' last segments
   * are cut where they ended, and the newest timeline repeats both.
   */
  async doubleFailover(spare: PostgresServer): Promise<void> {
    const standby = await this.redundant();
    const old = this.primary;
    const [proxy, other] = [this.#proxyOf(old), this.#proxyOf(standby)];
    await caughtUp(old, spare);
    await caughtUp(old, standby);
    await old.kill9();
    // Who has less can follow, not the other way round.
    const received = await Promise.all([standby, spare].map(receivedUpTo));
    const [first, second] =
      (received[0] as bigint) >= (received[1] as bigint) ? [standby, spare] : [spare, standby];
    await this.#promote(first);
    await second.configure({
      primary_conninfo: first.conninfo({ host: first.socketDir, application_name: 'second' }),
    });
    await caughtUp(first, second);
    await first.kill9();
    await this.#promote(second);
    await this.retire(old);
    await this.retire(first);
    await this.#putProxyBefore(second, proxy);
    await this.addStandby(other);
    await this.waitForBoth();
  }

  /** Roles are changed in good order; the old primary follows the new one as it is. */
  async switchover(): Promise<'as it was' | 'made anew'> {
    const standby = await this.redundant();
    const old = this.primary;
    await old.stop('fast', 60_000);
    const end = await shutdownCheckpoint(old.dataDir);
    await waitFor(() => standby.running);
    const received = await receivedUpTo(standby);
    await this.#promote(standby);
    if (received <= end) {
      // It was disconnected just then: the old primary is ahead of the fork.
      const proxy = this.#proxyOf(old);
      await this.retire(old);
      await this.addStandby(proxy);
      await this.waitForBoth();
      return 'made anew';
    }
    writeFileSync(join(old.dataDir, 'standby.signal'), '');
    giveToServer(join(old.dataDir, 'standby.signal'));
    await old.configure({
      primary_conninfo: standby.conninfo({
        host: standby.socketDir,
        application_name: 'standby',
      }),
      recovery_target_timeline: 'latest',
      wal_retrieve_retry_interval: '100ms',
      synchronous_standby_names: ALONE,
    });
    await old.start();
    this.standby = old;
    await this.waitForBoth();
    return 'as it was';
  }

  async #promote(standby: PostgresServer): Promise<void> {
    await standby.configure({ synchronous_standby_names: ALONE });
    await standby.promote();
    this.primary = standby;
    this.standby = undefined;
  }

  /** Keeps a server's segments and removes it. */
  async retire(server: PostgresServer): Promise<void> {
    await this.keepSegments(server);
    this.#proxies.delete(server);
    await server.destroy();
  }

  /** Kills a server and keeps its segments as the reference. */
  async keepSegments(server: PostgresServer): Promise<void> {
    await server.kill9();
    for (const [from, to] of [
      [server.archiveDir, this.archived],
      [join(server.dataDir, 'pg_wal'), this.inPgWal],
    ] as const) {
      for (const name of readdirSync(from)) {
        if (!/^[0-9A-F]{24}$|^[0-9A-F]{8}\.history$/.test(name)) continue;
        // Only the primary of a timeline archives it; a standby's copy comes second.
        if (!existsSync(join(to, name))) renameSync(join(from, name), join(to, name));
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await Promise.all(this.proxies.map((proxy) => proxy.close()));
    await this.standby?.destroy();
    await this.primary.destroy();
  }
}

/** Up to where a standby has stored WAL. */
async function receivedUpTo(standby: PostgresServer): Promise<bigint> {
  const [row] = await standby.sql('SELECT pg_last_wal_receive_lsn()::text AS lsn');
  return parseLsn(row?.lsn);
}

/** Where the last checkpoint of a server that was shut down begins (catalog/pg_control.h). */
async function shutdownCheckpoint(dataDir: string): Promise<bigint> {
  const control = await readFile(join(dataDir, 'global', 'pg_control'));
  const state = control.readUInt32LE(16);
  if (state !== 1) throw new Error(`the server was not shut down in good order: state ${state}`);
  return control.readBigUInt64LE(32);
}
