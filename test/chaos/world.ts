import { join } from 'node:path';
import type { Client } from 'pg';
import { Random } from '../simulation/random.js';
import { CommitClients } from '../support/commit-clients.js';
import type { Major, PostgresServer } from '../support/postgres.js';
import { receive } from '../support/receiving.js';
import { scratchDir } from '../support/scratch.js';
import { waitFor } from '../support/wait.js';
import { Cluster } from './cluster.js';
import { CommitLog } from './commit-log.js';
import { SmallDisk } from './small-disk.js';
import { Supervisor } from './supervisor.js';

/** As a user would run it: a slot, synchronous, checked; only the silence allowed is short. */
const ARGUMENTS = ['-S', 's', '--ensure-slot', '--synchronous', '--receive-timeout', '2'];

/** The `-Z` of starts that compress. */
const FORMS = ['gzip:1', 'gzip:9', 'lz4'] as const;

/** Everything that events act upon. */
export class World implements AsyncDisposable {
  readonly random: Random;
  readonly disk: SmallDisk;
  readonly cluster: Cluster;
  readonly supervisor: Supervisor;
  readonly backup: string;
  readonly log: CommitLog;
  readonly clients: CommitClients;
  /** What happened beyond the events' own names, by how often. */
  readonly notes: Record<string, number> = {};

  private constructor(parts: {
    random: Random;
    disk: SmallDisk;
    cluster: Cluster;
    supervisor: Supervisor;
    backup: string;
    log: CommitLog;
  }) {
    this.random = parts.random;
    this.disk = parts.disk;
    this.cluster = parts.cluster;
    this.supervisor = parts.supervisor;
    this.backup = parts.backup;
    this.log = parts.log;
    this.clients = new CommitClients(() => this.cluster.primary, {
      pauseMs: 3,
      onConfirmed: (n) => this.log.add(n),
    });
  }

  /**
   * @param compress some starts of the receiver compress, others do not
   * @param say gets what a person should know
   */
  static async create(
    { major, seed, compress }: { major: Major; seed: number; compress: boolean },
    random: Random,
    say: (text: string) => void,
  ): Promise<World> {
    const { disk, why } = SmallDisk.create(8);
    if (why) say(`no disk can be made full: ${why}`);
    const cluster = await Cluster.create(major);
    const { primary } = cluster;
    await primary.sql('CREATE TABLE t (n int PRIMARY KEY, note text)');
    // Both proxies are known to the receiver from the start.
    const conninfo = () => cluster.conninfo;
    await cluster.addStandby();
    // Not the schedule's: that follows its seed however often the receiver starts.
    const forms = new Random(seed + 1);
    const form = () => (compress && forms.chance(0.6) ? ['-Z', forms.pick(FORMS)] : []);
    const supervisor = new Supervisor(() =>
      receive(disk.directory, conninfo(), [...ARGUMENTS, ...form()]),
    );
    await supervisor.hears(/starting log streaming/, 0);
    const backup = await primary.baseBackup();
    await cluster.waitForBoth();
    const log = await CommitLog.create(join(scratchDir('log'), 'confirmed'));
    return new World({ random, disk, cluster, supervisor, backup, log });
  }

  get directory(): string {
    return this.disk.directory;
  }

  get primary(): PostgresServer {
    return this.cluster.primary;
  }

  note(what: string): void {
    this.notes[what] = (this.notes[what] ?? 0) + 1;
  }

  /** Milliseconds up to `max`; short ones of any order of magnitude, as often long ones. */
  span(max: number): number {
    return 10 + (this.random.chance(0.5) ? this.random.size(max) : this.random.below(max));
  }

  /** Waits until commits are confirmed again: all that a disturbance broke has healed. */
  async settle(commits: number): Promise<void> {
    const enough = this.clients.confirmed.length + commits;
    await waitFor(() => this.clients.confirmed.length >= enough, {
      what: `${commits} more commits`,
      timeoutMs: 60_000,
    });
  }

  /** Writes about so much WAL, in records of 8 kB or in one, without waiting for any standby. */
  async writeWal(bytes: number, records: 'small' | 'one' = 'small'): Promise<void> {
    const [size, times] = records === 'one' ? [bytes, 1] : [8192, Math.ceil(bytes / 8192)];
    await this.#patiently(async (client) => {
      await client.query('SET synchronous_commit = local');
      await client.query(
        `SELECT pg_logical_emit_message(true, 'chaos', text) FROM generate_series(1, $2::int),
          (SELECT string_agg(sha512((random()::text || i)::bytea), '') AS text
             FROM generate_series(1, $1::int / 64) i) AS t`,
        [size, times],
      );
    });
  }

  /** The walsender that serves walkeep; undefined while there is none. */
  async walSender(): Promise<number | undefined> {
    const { rows } = await this.#patiently((client) =>
      client.query("SELECT pid FROM pg_stat_replication WHERE application_name = 'walkeep'"),
    );
    return rows[0]?.pid;
  }

  /** Works in a session of the primary, in another one if that is lost. */
  async #patiently<T>(work: (client: Client) => Promise<T>): Promise<T> {
    const done = await waitFor(
      async () => {
        const client = await this.primary.client();
        try {
          return { result: await work(client) };
        } finally {
          await client.end().catch(() => {});
        }
      },
      { what: 'the primary', timeoutMs: 60_000 },
    );
    return done.result;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    // Clients that wait for a confirmation end with their server.
    const stopped = this.clients.stop();
    await this.supervisor[Symbol.asyncDispose]();
    await this.cluster[Symbol.asyncDispose]();
    await stopped;
    await this.log[Symbol.asyncDispose]();
    this.disk[Symbol.dispose]();
  }
}
