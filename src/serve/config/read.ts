import { isUtf8 } from 'node:buffer';
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { CODECS } from '../../codec/codecs.js';
import { ConfigError, type ConfigFault, UsageError } from '../../errors.js';
import { storageError } from '../../files/durable.js';
import type { CompressionOption } from '../../receive/options.js';
import type { Listen, ServeConfig, ServerConfig } from './config.js';
import { checkConnections, type Judged } from './connections.js';
import { ConfigDocument, MOST_FAULTS } from './document.js';
import { inOrder, type Path } from './fault.js';
import { shown, tellIssue } from './issues.js';
import { COMPRESS, type ConfigFile, check, LISTEN } from './model.js';

/** A larger file is none. */
const LARGEST = 1024 * 1024;

/**
 * Reads and checks a configuration file.
 * @throws ConfigError with all its faults, StorageError if it cannot be read
 */
export async function readConfig(
  file: string,
  env: NodeJS.ProcessEnv = process.env,
): Promise<ServeConfig> {
  const bytes = await readFile(file).catch((e) => {
    throw storageError('read file', file, e);
  });
  const { config, faults } = await parseConfig(bytes, env);
  if (config) return config;
  throw new ConfigError(`the configuration "${file}" is not valid`, file, faults);
}

/**
 * The control socket that a configuration names, whatever else is wrong with it: who asks may have
 * another environment.
 * @throws StorageError, UsageError if there is none
 */
export async function readControlSocket(
  file: string,
  env: NodeJS.ProcessEnv = process.env,
): Promise<string> {
  const text = await readFile(file, 'utf8').catch((e) => {
    throw storageError('read file', file, e);
  });
  const { socket } = asMap(asMap(new ConfigDocument(text, env).value).control);
  if (typeof socket === 'string' && socket !== '') return socket;
  throw new UsageError(`"${file}" names no control socket`, {
    hint: 'Give "control: { socket: PATH }" there, or --socket.',
  });
}

/** A configuration, or why it is none. Faults come in the order of the text. */
export async function parseConfig(
  bytes: Uint8Array,
  env: NodeJS.ProcessEnv,
): Promise<{ config?: ServeConfig; faults: ConfigFault[] }> {
  if (bytes.length > LARGEST) {
    return { faults: [{ line: 1, column: 1, at: '', message: 'it is larger than 1 MiB' }] };
  }
  if (!isUtf8(bytes)) {
    const before = validPrefix(bytes).split('\n');
    const column = (before.at(-1) as string).length + 1;
    return { faults: [{ line: before.length, column, at: '', message: 'it is not UTF-8' }] };
  }
  const document = new ConfigDocument(Buffer.from(bytes).toString('utf8'), env);
  const { value } = document;
  const checked = value === undefined ? undefined : check(value);
  for (const issue of checked?.error?.issues ?? []) tellIssue(issue, document);
  await checkServers(value, document, env);
  const faults = inOrder(document.faults).slice(0, MOST_FAULTS);
  if (faults.length > 0 || !checked?.success) return { faults };
  return { config: settled(checked.data), faults };
}

/** What can be read before the first byte that is not UTF-8. */
function validPrefix(bytes: Uint8Array): string {
  const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true });
  let text = '';
  try {
    for (let at = 0; at < bytes.length; at += 1) {
      text += decoder.decode(bytes.subarray(at, at + 1), { stream: true });
    }
  } catch {
    // Here it is.
  }
  return text;
}

type Loose = Record<string, unknown>;
const asMap = (value: unknown): Loose =>
  typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as Loose) : {};

/** What one server alone does not show: judged as far as the parts are there, right or not. */
async function checkServers(
  value: unknown,
  document: ConfigDocument,
  env: NodeJS.ProcessEnv,
): Promise<void> {
  const root = asMap(value);
  const defaults = asMap(root.defaults);
  const directories = new Map<string, string>();
  for (const [name, given] of Object.entries(asMap(root.servers))) {
    const path: Path = ['servers', name];
    const server = asMap(given);
    const { directory } = server;
    if (typeof directory === 'string' && directory.startsWith('/')) {
      const other = directories.get(resolve(directory));
      if (other === undefined) directories.set(resolve(directory), name);
      else {
        document.fault([...path, 'directory'], `is the directory of "${shown(other)}", too`);
      }
    }
    const slot = server.slot ?? defaults.slot;
    if (slot === undefined) {
      if (server.members !== undefined) {
        document.fault([...path, 'members'], 'needs a "slot"', 'key');
      }
      const own = server.ensure_slot === true;
      if (own) document.fault([...path, 'ensure_slot'], 'needs a "slot"', 'key');
    }
    const judged: Judged = {
      connection: server.connection,
      hosts: asMap(server.members).hosts,
      hasPasswordFile: server.password_file !== undefined,
    };
    await checkConnections(judged, env, (key, message) =>
      document.fault([...path, ...key], message),
    );
  }
}

function settled({ control, metrics, defaults = {}, servers }: ConfigFile): ServeConfig {
  return {
    ...(control ? { control } : {}),
    ...(metrics ? { metrics: listen(metrics.listen) } : {}),
    servers: Object.entries(servers).map(([name, own]): ServerConfig => {
      const server = { ...defaults, ...own };
      const { slot, members } = server;
      return {
        name,
        connection: server.connection,
        directory: resolve(server.directory),
        ...(server.password_file === undefined ? {} : { passwordFile: server.password_file }),
        ...(slot === undefined ? {} : { slot }),
        ensureSlot: slot !== undefined && (server.ensure_slot ?? false),
        synchronous: server.synchronous ?? false,
        compression: compression(server.compress ?? 'none'),
        ...(members
          ? {
              members: { ...(members.hosts ? { hosts: members.hosts } : {}), slots: members.slots },
            }
          : {}),
      };
    }),
  };
}

function listen(text: string): Listen {
  const [, host = '', port] = LISTEN.exec(text) ?? [];
  return { host: host.replace(/^\[(.*)\]$/, '$1'), port: Number(port) };
}

function compression(text: string): CompressionOption {
  const [, method, level] = COMPRESS.exec(text) as unknown as [
    string,
    CompressionOption['method'],
    string?,
  ];
  const isDefault = level === undefined || Number(level) === CODECS[method].levels.byDefault;
  return isDefault ? { method } : { method, level: Number(level) };
}
