import { connect } from '../connection/connect.js';
import type { ReplicationConnection } from '../connection/connection.js';
import type { ConnectionSettings, HostTarget } from '../connection/conninfo/settings.js';
import { LONGEST_TIMER } from '../delay.js';
import {
  AuthenticationError,
  ParseError,
  ServerError,
  TimeoutError,
  type WalkeepError,
} from '../errors.js';
import { formatLsn, parseLsn } from '../lsn.js';
import { parseSegmentSize } from '../wal/file-name.js';
import { rootHistory, type TimelineHistory } from '../wal/timeline.js';
import type { MemberCover, ObservedMember, SlotAction } from './member-slot.js';
import { readServerHistory } from './server-history.js';
import { listSlots } from './slots.js';
import { secureSearchPath, sqlRows } from './sql.js';

/** Milliseconds to connect where the settings say nothing, and for all that is asked at once. */
const CONNECT_TIMEOUT = 10_000;
const PATIENCE = 30_000;

/** SQLSTATEs of a slot that is there already, is not there any more, or is in use by now. */
const OVERTAKEN: readonly string[] = ['42710', '42704', '55006'];

/** Name of a member in all that is said of it. */
export function memberName({ host, hostaddr, port }: HostTarget): string {
  const name = host === '' ? (hostaddr ?? '') : host;
  return `${name.includes(':') ? `[${name}]` : name}:${port}`;
}

/** Each host of the settings once, as settings of its own. */
export function membersOf(settings: ConnectionSettings): Map<string, ConnectionSettings> {
  const { connectTimeout } = settings;
  return new Map(
    settings.targets.map((target) => [
      memberName(target),
      {
        ...settings,
        targets: [target],
        targetSessionAttrs: 'any' as const,
        loadBalanceHosts: false,
        connectTimeout: connectTimeout || CONNECT_TIMEOUT,
      },
    ]),
  );
}

/**
 * A session with one member that takes both SQL and replication commands: what a standby has of its
 * timeline only the latter tell. Kept open between looks, so that none costs a login.
 */
export class MemberSession {
  private readonly settings: ConnectionSettings;
  private readonly slot: string;
  private connection: ReplicationConnection | undefined;
  private history: TimelineHistory | undefined;

  /** @param settings of one host */
  constructor(settings: ConnectionSettings, slot: string) {
    this.settings = settings;
    this.slot = slot;
  }

  /** @throws WalkeepError if the member cannot be asked; the next look connects anew */
  observe(signal?: AbortSignal): Promise<ObservedMember> {
    return this.within(signal, async (connection) => {
      // First: see `ObservedMember.reached`.
      const [row] = await sqlRows(
        connection,
        `SELECT pg_is_in_recovery() AS standby,
                CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn()
                  ELSE pg_current_wal_flush_lsn() END AS reached`,
      );
      if (!row?.reached) throw new ParseError('the server does not say how far it has replayed');
      const { systemId, timeline } = await connection.identifySystem();
      const segmentSize = parseSegmentSize(await connection.show('wal_segment_size'));
      this.history = await this.historyOf(connection, timeline);
      const slots = await listSlots(connection);
      return {
        ...{ systemId, timeline, segmentSize, history: this.history },
        standby: row.standby === 't',
        reached: parseLsn(row.reached),
        slot: slots.find(({ name }) => name === this.slot),
      };
    });
  }

  /** Does what was decided. @throws WalkeepError */
  async act(action: SlotAction, signal?: AbortSignal): Promise<void> {
    await this.within(signal, async (connection) => {
      const name = `'${this.slot.replaceAll("'", "''")}'`;
      const run = async (call: string): Promise<void> => {
        try {
          await connection.query(`SELECT pg_catalog.${call}`);
        } catch (e) {
          // The receiver itself, or another program, came first: what is so now the next look tells.
          if (!(e instanceof ServerError && OVERTAKEN.includes(e.sqlstate))) throw e;
        }
      };
      if (action.kind === 'advance') {
        await run(`pg_replication_slot_advance(${name}, '${formatLsn(action.to)}')`);
        return;
      }
      if (action.kind === 'replace') await run(`pg_drop_replication_slot(${name})`);
      await run(`pg_create_physical_replication_slot(${name}, true)`);
    });
  }

  async close(): Promise<void> {
    const { connection } = this;
    this.connection = undefined;
    await connection?.close();
  }

  /** A timeline never gets another history. */
  private async historyOf(
    connection: ReplicationConnection,
    timeline: number,
  ): Promise<TimelineHistory> {
    if (this.history?.timeline === timeline) return this.history;
    if (timeline === 1) return rootHistory(1);
    const { content } = await connection.timelineHistory(timeline);
    return readServerHistory(timeline, content);
  }

  /** On the connection, which is given up after any failure: it may be in the midst of something. */
  private async within<T>(
    signal: AbortSignal | undefined,
    ask: (connection: ReplicationConnection) => Promise<T>,
  ): Promise<T> {
    let late: TimeoutError | undefined;
    const breakOff = (): void => this.connection?.destroy();
    const patience = Math.min(PATIENCE + this.settings.connectTimeout, LONGEST_TIMER);
    const timer = setTimeout(() => {
      late = new TimeoutError(`no answer within ${PATIENCE / 1000} seconds`);
      breakOff();
    }, patience);
    signal?.addEventListener('abort', breakOff, { once: true });
    try {
      if (this.connection?.closed) this.connection = undefined;
      if (!this.connection) {
        const options = { replication: 'database' as const, ...(signal ? { signal } : {}) };
        this.connection = await connect(this.settings, options);
        await secureSearchPath(this.connection);
      }
      return await ask(this.connection);
    } catch (e) {
      this.connection?.destroy();
      this.connection = undefined;
      throw late ?? e;
    } finally {
      clearTimeout(timer);
      signal?.removeEventListener('abort', breakOff);
    }
  }
}

/** What is known of a member that could not be asked: nothing. */
export function unknownCover(error: WalkeepError): MemberCover {
  return {
    covers: undefined,
    reason: 'unreachable',
    message: error.message.split('\n').join('; '),
    hint: error.hint ?? hintFor(error),
    code: sqlstateOf(error) || error.code,
  };
}

function sqlstateOf(error: WalkeepError): string | undefined {
  const answered = error instanceof ServerError || error instanceof AuthenticationError;
  return answered ? error.sqlstate : undefined;
}

const RIGHTS =
  'The role needs REPLICATION, and in pg_hba.conf a line for an ordinary database, such as postgres.';

function hintFor(error: WalkeepError): string {
  if (error instanceof AuthenticationError) return RIGHTS;
  if (error instanceof ServerError && /^(28|42501)/.test(error.sqlstate)) return RIGHTS;
  if (error instanceof ServerError && error.sqlstate === '53400') {
    return 'Raise max_replication_slots there, and restart it.';
  }
  return 'See that it runs and can be reached from here; take it out of the members if it is gone.';
}
