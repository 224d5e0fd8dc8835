import { ProtocolError } from '../errors.js';
import { encodeStartup } from '../protocol/frontend-message.js';
import { toServerError } from '../protocol/server-error.js';
import { Authentication } from './authenticate.js';
import type { ReplicationConnection } from './connection.js';
import type { ConnectionSettings } from './conninfo/settings.js';
import { MessageQueue } from './operation.js';
import type { Wire } from './wire.js';

export const NOT_POSTGRES = 'Is this the port of a PostgreSQL server?';

/** What kind of session to ask for: WAL streaming, replication within a database, or plain SQL. */
export type ReplicationMode = 'physical' | 'database' | 'off';

/** Raised by `startup` when the server, not we, ended the exchange: libpq then tries without TLS. */
export interface StartupFailure {
  error: unknown;
  fromServer: boolean;
}

/**
 * Sends the startup message and authenticates, until the server is ready for commands.
 * Returns undefined on success.
 */
export async function startup(
  connection: ReplicationConnection,
  wire: Wire,
  settings: ConnectionSettings,
  mode: ReplicationMode,
): Promise<StartupFailure | undefined> {
  const messages = new MessageQueue(() => connection.release());
  connection.begin(messages);
  let fromServer = false;
  try {
    const authentication = new Authentication({
      settings,
      password: settings.password ?? settings.passwordFromFile?.(connection.target),
      certificate: wire.certificate,
      tls: wire.tls,
    });
    connection.send(encodeStartup(startupParameters(settings, mode)));
    let authenticated = false;
    for (;;) {
      const message = await messages.next();
      switch (message.name) {
        case 'authentication': {
          if (authenticated) throw new ProtocolError('unexpected authentication request');
          const answer = await authentication.answer(message.method, message.data);
          if (answer === 'done') {
            authenticated = true;
            connection.authenticated();
          } else if (answer) connection.send(answer);
          break;
        }
        case 'error':
          fromServer = true;
          throw toServerError(message.notice);
        case 'readyForQuery':
          if (!authenticated) throw new ProtocolError('server skipped authentication');
          return undefined;
        case 'backendKeyData':
        case 'negotiateProtocolVersion':
          break;
        default:
          throw new ProtocolError(
            `expected authentication request from server, but received ${message.name}`,
          );
      }
    }
  } catch (error) {
    connection.destroy();
    return { error: advised(error), fromServer };
  }
}

/** Not even the startup went by the protocol: most likely another service has the port. */
function advised(error: unknown): unknown {
  if (!(error instanceof ProtocolError) || error.hint !== undefined) return error;
  return new ProtocolError(error.message, { cause: error, hint: NOT_POSTGRES });
}

function startupParameters(
  settings: ConnectionSettings,
  mode: ReplicationMode,
): Record<string, string> {
  return {
    ...settings.startup,
    user: settings.user,
    database: settings.database,
    application_name: settings.applicationName,
    // Everything the server says is decoded as UTF-8.
    client_encoding: 'UTF8',
    ...(mode === 'off' ? {} : { replication: mode === 'physical' ? 'true' : 'database' }),
  };
}
