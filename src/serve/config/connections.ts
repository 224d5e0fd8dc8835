import { parseConninfo } from '../../connection/conninfo/conninfo.js';
import { KEYWORDS } from '../../connection/conninfo/keywords.js';
import { resolveSettings } from '../../connection/conninfo/resolve.js';
import type { ConnectionSettings } from '../../connection/conninfo/settings.js';
import { WalkeepError } from '../../errors.js';
import { withoutSecrets } from '../../text.js';
import type { ServerConfig } from './config.js';
import { readSecret } from './secret-file.js';

/** Where SQL is asked of members when the connection string names no database. */
const SQL_DATABASE = 'postgres';
/** Decides who is a synchronous standby: as the other commands say it. */
const APPLICATION = 'walkeep';
/** Keywords whose values are secrets: a configuration is read by more people than its servers are. */
const SECRETS = [...KEYWORDS].flatMap(([name, { secret }]) => (secret ? [name] : []));

/** Parts of a server as they stand in the file, right or not. */
export interface Judged {
  connection: unknown;
  hosts: unknown;
  hasPasswordFile: boolean;
}

/** Tells what is wrong with a connection before anybody connects. */
export async function checkConnections(
  { connection, hosts, hasPasswordFile }: Judged,
  env: NodeJS.ProcessEnv,
  fault: (key: readonly string[], message: string) => void,
): Promise<void> {
  if (typeof connection !== 'string' || connection === '') return;
  const tell = (key: readonly string[], e: unknown): void => {
    if (!(e instanceof WalkeepError)) throw e;
    // It quotes a word that may be anything, a password alone, say.
    const noKeyword = e.message.startsWith('missing "="');
    fault(key, noKeyword ? 'must be "keyword=value …" or a URI' : withoutSecrets(e.message));
  };
  try {
    const secret = SECRETS.find((name) => parseConninfo(connection).has(name));
    if (secret !== undefined) {
      const instead = secret === 'password' ? '; it belongs into a "password_file"' : '';
      return fault(['connection'], `must not hold a ${secret}${instead}`);
    }
    const both = hasPasswordFile && parseConninfo(connection).has('passfile');
    if (both)
      return fault(['connection'], 'has a passfile: a "password_file" beside it is too much');
    await resolveSettings({ conninfo: connection, fallbackApplicationName: APPLICATION }, env);
  } catch (e) {
    return tell(['connection'], e);
  }
  if (!Array.isArray(hosts) || hosts.some((host) => typeof host !== 'string' || host === '')) {
    return;
  }
  try {
    const others = hostList(hosts);
    await resolveSettings(
      { conninfo: connection, others, fallbackApplicationName: APPLICATION },
      env,
    );
  } catch (e) {
    tell(['members', 'hosts'], e);
  }
}

/** How a server is connected to, and its members; passwords are read when a connection is made. */
export async function serverSettings(
  { connection, passwordFile, members }: ServerConfig,
  env: NodeJS.ProcessEnv = process.env,
): Promise<{ settings: ConnectionSettings; members?: ConnectionSettings }> {
  const input = { conninfo: connection, fallbackApplicationName: APPLICATION };
  const secured = (settings: ConnectionSettings): ConnectionSettings => {
    if (passwordFile === undefined) return settings;
    // One of the environment is another one's.
    const { password, ...others } = settings;
    return { ...others, passwordFromFile: () => readSecret(passwordFile) };
  };
  const settings = secured(await resolveSettings(input, env));
  if (!members) return { settings };
  const others = members.hosts && hostList(members.hosts);
  const asked = { ...input, fallbackDatabase: SQL_DATABASE, ...(others ? { others } : {}) };
  return { settings, members: secured(await resolveSettings(asked, env)) };
}

/** `db1`, `db2:5433`, `[::1]:5433` as a connection string. */
function hostList(all: readonly string[]): string {
  const places = all.map((text) => {
    const [, host, port] = /^(\[[^\]]*\]|[^:]*)(?::(\d+))?$/.exec(text) ?? [];
    return { host: host?.replace(/^\[(.*)\]$/, '$1') || text, port };
  });
  const quoted = (value: string): string => `'${value.replace(/[\\']/g, '\\$&')}'`;
  const hosts = `host=${quoted(places.map(({ host }) => host).join(','))}`;
  const own = places.some(({ port }) => port !== undefined);
  return own ? `${hosts} port=${quoted(places.map(({ port }) => port ?? '').join(','))}` : hosts;
}
