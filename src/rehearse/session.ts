import { userInfo } from 'node:os';
import { connect } from '../connection/connect.js';
import type { ReplicationConnection } from '../connection/connection.js';
import { ConnectionError, TargetError } from '../errors.js';
import { PORT, type Scratch } from './scratch.js';

/** Milliseconds. */
const CONNECT_TIMEOUT = 30_000;
/** The server is not ready to be asked. */
const CANNOT_CONNECT_NOW = '57P03';
/** No such role, or one that may not log in. */
const INVALID_AUTHORIZATION = '28000';
const NO_DATABASE = '3D000';

/** Connects to the server of a rehearsal. */
export class Sessions {
  readonly #scratch: Scratch;
  readonly #keepPreload: boolean;
  readonly #users: string[];

  constructor(scratch: Scratch, user: string | undefined, keepPreload: boolean) {
    this.#scratch = scratch;
    this.#keepPreload = keepPreload;
    this.#users = user === undefined ? [...new Set(['postgres', userInfo().username])] : [user];
  }

  /** @throws what `connect` throws */
  async open(database: string, signal: AbortSignal): Promise<ReplicationConnection> {
    const [user = 'postgres', ...others] = this.#users;
    try {
      return await connect(
        {
          targets: [{ host: this.#scratch.socket, port: PORT }],
          ...{ user, database, applicationName: 'walkeep rehearse' },
          startup: {
            client_encoding: 'UTF8',
            // Those of a role or a database, which win over the server's own.
            ...(this.#keepPreload ? {} : { session_preload_libraries: '' }),
          },
          ...{
            connectTimeout: CONNECT_TIMEOUT,
            targetSessionAttrs: 'any',
            loadBalanceHosts: false,
          },
          ...{ sslMode: 'disable', sslNegotiation: 'postgres', sslSni: false },
          ...{ sslCertMode: 'disable', channelBinding: 'prefer' },
          ...{ keepalives: false, keepalivesIdle: 0, warnings: [] },
        },
        { replication: 'off', signal },
      );
    } catch (error) {
      if (!isCode(error, INVALID_AUTHORIZATION)) throw error;
      if (others.length === 0) {
        throw new TargetError(`role "${user}" cannot look at the restored server`, {
          cause: error,
          detail: (error as Error).message,
          hint: 'Name one that can with --user: a superuser sees everything.',
        });
      }
      this.#users.shift();
      return this.open(database, signal);
    }
  }

  /** To a database that is there in nearly every cluster. */
  async openAny(signal: AbortSignal): Promise<ReplicationConnection> {
    try {
      return await this.open('postgres', signal);
    } catch (error) {
      if (!isCode(error, NO_DATABASE)) throw error;
      return this.open('template1', signal);
    }
  }
}

/** True while a server starts, or has just ended. */
export function isNotYet(error: unknown): boolean {
  return error instanceof ConnectionError || isCode(error, CANNOT_CONNECT_NOW);
}

export function isCode(error: unknown, sqlstate: string): boolean {
  return (error as { sqlstate?: string }).sqlstate === sqlstate;
}
