import { readFileSync } from 'node:fs';
import { createSecureContext } from 'node:tls';
import { isDeepStrictEqual } from 'node:util';
import { StorageError } from '../../errors.js';
import { reason, storageError } from '../../files/durable.js';
import type { WebConfig } from '../config/config.js';
import { readPrivateFile, readSecret } from '../config/secret-file.js';
import { Access, SHORTEST_TOKEN } from './access.js';
import { type Guard, WebListener } from './listener.js';
import { type Memory, SAMPLE } from './memory.js';
import type { WebFacts } from './page.js';
import { Routes } from './routes.js';
import { Stream } from './stream.js';

/** What of the files of a configuration was in them. */
interface Secrets {
  token?: string;
  tls?: { cert: string; key: string };
}

/** A change that is made only when all others can be made, too. */
export interface WebChange {
  commit(): Promise<void>;
  undo(): Promise<void>;
}

interface Open {
  config: WebConfig;
  secrets: Secrets;
  listener: WebListener;
  stream: Stream;
}

/** The status page, as it is answered, wherever that is. */
export class Web {
  readonly #facts: WebFacts;
  readonly #memory: Memory;
  #open: Open | undefined;
  #timer: NodeJS.Timeout | undefined;

  constructor(facts: WebFacts, memory: Memory) {
    this.#facts = facts;
    this.#memory = memory;
  }

  get port(): number | undefined {
    return this.#open?.listener.port;
  }

  /** How many have a page open that is kept up to date. */
  get watchers(): number {
    return this.#open?.stream.size ?? 0;
  }

  /**
   * Opens what is new, beside what there is. Files are read again, also where the configuration is
   * the same. @throws StorageError, ConnectionError: then all is as before
   */
  async change(config: WebConfig | undefined): Promise<WebChange> {
    if (!config) return { commit: () => this.close(), undo: async () => {} };
    const secrets = secretsOf(config);
    const before = this.#open;
    if (before && isDeepStrictEqual(before.config.listen, config.listen)) {
      return { commit: () => this.#become(before, config, secrets), undo: async () => {} };
    }
    const next = await this.#listen(config, secrets);
    return {
      commit: async () => {
        await this.close();
        this.#run(next);
      },
      undo: () => next.listener.close(),
    };
  }

  async close(): Promise<void> {
    clearInterval(this.#timer);
    this.#timer = undefined;
    const { listener } = this.#open ?? {};
    this.#open = undefined;
    await listener?.close();
  }

  /** The same place with other secrets. */
  async #become(before: Open, config: WebConfig, secrets: Secrets): Promise<void> {
    if (isDeepStrictEqual(before.secrets, secrets)) return;
    if ((before.secrets.tls === undefined) === (secrets.tls === undefined)) {
      before.listener.replace(guardOf(secrets));
      // Whoever watches gave the old token.
      if (before.secrets.token !== secrets.token) before.stream.close();
      this.#open = { ...before, config, secrets };
      return;
    }
    // One place cannot answer http and https, and nobody else can have it while it is ours.
    await this.close();
    try {
      this.#run(await this.#listen(config, secrets));
    } catch (e) {
      this.#run(await this.#listen(before.config, before.secrets));
      throw e;
    }
  }

  async #listen(config: WebConfig, secrets: Secrets): Promise<Open> {
    const { listen } = config;
    const [routes, stream] = [new Routes(this.#facts, this.#memory), new Stream()];
    const guard = guardOf(secrets);
    const listener = await WebListener.open({ listen, guard, routes, stream });
    return { config, secrets, listener, stream };
  }

  #run(open: Open): void {
    this.#open = open;
    const look = () => this.#memory.sample(this.#facts.servers());
    look();
    this.#timer ??= setInterval(look, SAMPLE);
  }
}

/** @throws StorageError, with nothing of what is in the files */
function secretsOf({ tokenFile, tls }: WebConfig): Secrets {
  const token = tokenFile === undefined ? undefined : readSecret(tokenFile);
  if (token !== undefined && token.length < SHORTEST_TOKEN) {
    throw new StorageError(
      `the token in "${tokenFile}" is shorter than ${SHORTEST_TOKEN} characters`,
      {
        path: tokenFile as string,
        hint: 'Make one: openssl rand -hex 32',
      },
    );
  }
  return {
    ...(token === undefined ? {} : { token }),
    ...(tls ? { tls: certificateOf(tls) } : {}),
  };
}

function certificateOf({ certFile, keyFile }: NonNullable<WebConfig['tls']>): {
  cert: string;
  key: string;
} {
  const key = readPrivateFile(keyFile);
  let cert: string;
  try {
    cert = readFileSync(certFile, 'utf8');
  } catch (e) {
    throw storageError('read file', certFile, e);
  }
  try {
    createSecureContext({ cert, key });
  } catch (cause) {
    const why = reason(cause as Error);
    throw new StorageError(`"${certFile}" and "${keyFile}" are no certificate and key: ${why}`, {
      ...{ path: certFile, cause },
      hint: 'Both are PEM; the certificates that it rests on stand behind the certificate.',
    });
  }
  return { cert, key };
}

function guardOf({ token, tls }: Secrets): Guard {
  return {
    ...(token === undefined ? {} : { access: new Access(token, tls !== undefined) }),
    ...(tls ? { tls } : {}),
  };
}
