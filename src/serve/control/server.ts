import { chmodSync, lstatSync, unlinkSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { ConfigError, DirectoryLockedError, StorageError, UsageError } from '../../errors.js';
import { storageError } from '../../files/durable.js';
import { BACKUP_TYPES, type JobRequest } from '../jobs/request.js';
import { reportOf } from '../status.js';
import {
  type ControlAnswer,
  type ControlRequest,
  type ControlResults,
  LONGEST_REQUEST,
} from './protocol.js';

/** Milliseconds for somebody to say what is wanted. */
const PATIENCE = 5000;
const MOST_CLIENTS = 32;

/** Does what is asked for. */
export type Control = (request: ControlRequest) => Promise<ControlResults[keyof ControlResults]>;

/** The socket by which the running program is asked and told. Only its user gets to it. */
export class ControlServer {
  readonly #server: Server;
  readonly #clients = new Set<Socket>();

  private constructor(server: Server) {
    this.#server = server;
  }

  /** @throws DirectoryLockedError if another program answers there, StorageError */
  static async open(path: string, control: Control): Promise<ControlServer> {
    if (await isAnswered(path)) {
      throw new DirectoryLockedError(`another "walkeep serve" listens on "${path}"`, { path });
    }
    const server = createServer((client) => opened.#serve(client, control));
    const opened = new ControlServer(server);
    server.maxConnections = MOST_CLIENTS;
    await listen(server, path).catch(async (e) => {
      throw await listenError(path, e);
    });
    chmodSync(path, 0o600);
    server.on('error', () => {});
    return opened;
  }

  /** Takes it away; who is being answered is cut off. */
  async close(): Promise<void> {
    for (const client of this.#clients) client.destroy();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  /** Takes it away from others; who is there gets an answer. */
  retire(): void {
    this.#server.close();
  }

  #serve(client: Socket, control: Control): void {
    this.#clients.add(client);
    let text = '';
    let asked = false;
    client.setEncoding('utf8');
    client.setTimeout(PATIENCE, () => {
      if (!asked) client.destroy();
    });
    client.on('error', () => {});
    client.once('close', () => this.#clients.delete(client));
    client.on('data', (piece: string) => {
      if (asked) return;
      text += piece;
      const end = text.indexOf('\n');
      if (end < 0 && text.length <= LONGEST_REQUEST) return;
      asked = true;
      void answer(end < 0 ? '' : text.slice(0, end), control).then((answered) => {
        client.end(`${JSON.stringify(answered)}\n`);
      });
    });
  }
}

/** The file is made with the mode that the mask leaves: never is there a moment for others. */
function listen(server: Server, path: string): Promise<void> {
  const mask = process.umask(0o177);
  try {
    return new Promise<void>((resolve, reject) => {
      server.once('error', reject);
      server.listen(path, resolve);
    });
  } finally {
    // It is made by now; a process that is begun meanwhile must not have this mask.
    process.umask(mask);
  }
}

async function answer(line: string, control: Control): Promise<ControlAnswer> {
  try {
    return { ok: true, result: await control(parseRequest(line)) };
  } catch (e) {
    const { faults, path } = e instanceof ConfigError ? e : {};
    return {
      ok: false,
      error: {
        ...reportOf(e),
        ...(faults ? { faults } : {}),
        ...(path === undefined ? {} : { path }),
      },
    };
  }
}

function parseRequest(line: string): ControlRequest {
  let parsed: Record<string, unknown> | null;
  try {
    parsed = JSON.parse(line);
  } catch {
    throw new UsageError('the request is no line of JSON');
  }
  const { command, server, acceptGap, request, ids } = parsed ?? {};
  const named = typeof server === 'string' ? { server } : undefined;
  if (command === 'reload') return { command };
  if (command === 'status') return { command, ...named };
  if (command === 'pause' && named) return { command, ...named };
  if (command === 'resume' && named) return { command, ...named, acceptGap: acceptGap === true };
  if (command === 'cancel' && named) return { command, ...named };
  const run = jobRequest(request);
  if (command === 'run' && named && run) return { command, ...named, request: run };
  if (command === 'runs' && Array.isArray(ids) && ids.every(Number.isInteger)) {
    return { command, ids };
  }
  throw new UsageError('the request is not known');
}

function jobRequest(given: unknown): JobRequest | undefined {
  const { job, full, type } = (given ?? {}) as Record<string, unknown>;
  if (job === 'expire' || job === 'rehearse') return { job };
  if (job === 'verify') return { job, full: full === true };
  const known = BACKUP_TYPES.find((one) => one === type);
  return job === 'backup' && known ? { job, type: known } : undefined;
}

/** Node.js says of a directory that is not there that it may not be written to. */
async function listenError(path: string, cause: unknown): Promise<Error> {
  const dir = dirname(path);
  const gone = await stat(dir).then(
    () => undefined,
    (e: NodeJS.ErrnoException) => e,
  );
  if (gone?.code !== 'ENOENT') return storageError('listen on', path, cause);
  return new StorageError(`could not listen on "${path}": "${dir}" does not exist`, {
    ...{ path, cause },
    hint: 'Make it first, for the user that runs this; of systemd it is RuntimeDirectory=.',
  });
}

/** Whether somebody listens; what a killed program left is removed. */
async function isAnswered(path: string): Promise<boolean> {
  const code = await new Promise<string | undefined>((resolve) => {
    const probe = connect(path, () => {
      probe.destroy();
      resolve(undefined);
    });
    probe.once('error', (e: NodeJS.ErrnoException) => resolve(e.code ?? ''));
  });
  if (code === undefined) return true;
  // A file of somebody's refuses, too.
  if (code === 'ECONNREFUSED' && lstatSync(path).isSocket()) unlinkSync(path);
  return false;
}
