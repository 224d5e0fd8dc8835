import { isUtf8 } from 'node:buffer';
import { readFile } from 'node:fs/promises';
import { resolve } from 'node:path';
import { ConfigError, type ConfigFault, UsageError, WalkeepError } from '../../errors.js';
import { storageError } from '../../files/durable.js';
import { nearest } from '../../options.js';
import { parsePlace } from '../../store/place.js';
import { withoutSecrets } from '../../text.js';
import type { ServeConfig } from './config.js';
import { checkConnections, type Judged } from './connections.js';
import { ConfigDocument, MOST_FAULTS } from './document.js';
import { inOrder, type Path } from './fault.js';
import { shown, tellIssue } from './issues.js';
import { check } from './model.js';
import { listenOf, placeBelow, settled } from './settled.js';

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
  checkWeb(value, document);
  checkStores(value, document);
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
  const places = new Map<string, string>();
  for (const [name, given] of Object.entries(asMap(root.servers))) {
    const { directory } = asMap(given);
    if (typeof directory !== 'string' || !directory.startsWith('/')) continue;
    const other = directories.get(resolve(directory));
    if (other === undefined) directories.set(resolve(directory), name);
    else {
      const message = `is the directory of "${shown(other)}", too`;
      document.fault(['servers', name, 'directory'], message);
    }
  }
  for (const [name, given] of Object.entries(asMap(root.servers))) {
    const path: Path = ['servers', name];
    const server = asMap(given);
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
    checkWork(server, path, root, document);
    checkPlaces(server, path, root, document, { places, directories });
    await checkConnections(judged, env, (key, message) =>
      document.fault([...path, ...key], message),
    );
  }
}

/** `127.0.0.1`, `::1`, `localhost`: nobody on another machine gets there. */
const LOOPBACK = /^(127\.\d+\.\d+\.\d+|::1|localhost)$/;

function checkWeb(value: unknown, document: ConfigDocument): void {
  const { listen, token_file: token, tls } = asMap(asMap(value).web);
  if (typeof listen !== 'string' || LOOPBACK.test(listenOf(listen).host)) return;
  if (token !== undefined && tls !== undefined) return;
  const message = 'is no loopback address: it needs a "token_file" and "tls"';
  if (!document.isFaulty(['web', 'listen'])) document.fault(['web', 'listen'], message);
}

function checkStores(value: unknown, document: ConfigDocument): void {
  for (const [name, given] of Object.entries(asMap(asMap(value).stores))) {
    const path: Path = ['stores', name];
    const { place, access_key_file: access, secret_key_file: secret } = asMap(given);
    if (name === DIRECTORY) document.fault(path, `no store can be called "${DIRECTORY}"`, 'key');
    if ((access === undefined) !== (secret === undefined)) {
      const [one, other] =
        access === undefined ? [SECRET_KEY, ACCESS_KEY] : [ACCESS_KEY, SECRET_KEY];
      document.fault([...path, one], `needs a "${other}" beside it`, 'key');
    }
    if (typeof place !== 'string' || place === '') continue;
    const fault = (message: string) => document.fault([...path, 'place'], message);
    try {
      const { kind } = parsePlace(place);
      if (kind === 'directory' && !/^(\/|file:)/.test(place))
        fault('must be a URL or an absolute path');
      if (kind !== 's3' && access !== undefined) {
        document.fault([...path, ACCESS_KEY], 'is for places of s3:// only', 'key');
      }
    } catch (e) {
      if (!(e instanceof WalkeepError)) throw e;
      fault(withoutSecrets(e.message));
    }
  }
}

const DIRECTORY = 'directory';
const ACCESS_KEY = 'access_key_file';
const SECRET_KEY = 'secret_key_file';

/** Names of stores have to be there: of the server's own mapping, or of the defaults. */
function checkWork(server: Loose, path: Path, root: Loose, document: ConfigDocument): void {
  const defaults = asMap(root.defaults);
  const known = Object.keys(asMap(root.stores));
  const at = (key: string): Path =>
    server[key] === undefined ? ['defaults', key] : [...path, key];
  const part = (key: string): Loose => asMap(server[key] ?? defaults[key]);
  const stores = Object.keys(part('stores'));
  for (const name of stores) {
    if (!known.includes(name)) {
      document.fault(
        [...at('stores'), name],
        `there is no store "${shown(name)}"${meant(name, known)}`,
        'key',
      );
    }
  }
  for (const [key, of] of [
    ['backup', 'to'],
    ['rehearse', 'from'],
  ] as const) {
    const name = part(key)[of];
    if (typeof name !== 'string' || name === DIRECTORY || stores.includes(name)) continue;
    document.fault([...at(key), of], `names no store of this server${meant(name, stores)}`);
  }
}

/** Two archives in one place would be taken for one. */
function checkPlaces(
  server: Loose,
  path: Path,
  root: Loose,
  document: ConfigDocument,
  { places, directories }: Record<'places' | 'directories', Map<string, string>>,
): void {
  const own = server.stores !== undefined;
  const at: Path = own ? [...path, 'stores'] : ['defaults', 'stores'];
  for (const [name, given] of Object.entries(
    asMap(own ? server.stores : asMap(root.defaults).stores),
  )) {
    const { place } = asMap(asMap(root.stores)[name]);
    const { prefix } = asMap(given);
    if (typeof place !== 'string' || (prefix !== undefined && typeof prefix !== 'string')) continue;
    const below = placeBelow(place, prefix).replace(/\/+(?=\?|$)/, '');
    const received = directories.get(localPath(below) ?? '');
    if (received !== undefined) {
      const message = `is the directory that "${shown(received)}" is received into`;
      document.fault([...at, name], message, 'key');
    }
    const other = places.get(below);
    if (other === undefined) places.set(below, path.at(-1) as string);
    else {
      const both = `"${shown(other)}" and "${shown(path.at(-1) as string)}"`;
      document.fault([...at, name], `${both} need a "prefix" each, not one place`, 'key');
    }
  }
}

/** Of a place that is a directory here. */
function localPath(place: string): string | undefined {
  try {
    const parsed = parsePlace(place);
    return parsed.kind === 'directory' ? parsed.path : undefined;
  } catch {
    return undefined;
  }
}

function meant(name: string, among: readonly string[]): string {
  const near = nearest(name, [...among]);
  return near === undefined ? '' : `; did you mean "${near}"?`;
}
