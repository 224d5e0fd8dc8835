import { join } from 'node:path';
import { ConninfoError, NotSupportedError } from '../../errors.js';
import { aText, type Checks, checkOptions, required } from '../../options.js';
import { parseConninfo } from './conninfo.js';
import { resolveTargets } from './hosts.js';
import { ENVIRONMENT_SETTINGS, KEYWORDS } from './keywords.js';
import { homeDirectory, isSocketPath, localUserName } from './local-system.js';
import { passfileLookup, passfileWarning } from './passfile.js';
import { readService } from './service-file.js';
import type { ConnectionSettings, HostTarget } from './settings.js';
import {
  checkProtocolRange,
  parseChoice,
  parseInteger,
  parseRequireAuth,
  parseTlsRange,
  refuseScramKey,
} from './values.js';

/** What a caller says about the connection. An empty text counts as not given. */
export interface ConninfoInput {
  /** `keyword = value …` or a URI. */
  conninfo?: string;
  /** Comma list, as the keyword; so is `port`. */
  host?: string;
  port?: string;
  user?: string;
  password?: string;
  /**
   * A second connection string, whose keywords win over all of the above. With hosts of its own it
   * leaves nothing of the others' addresses, and of their ports only one that is for all.
   */
  others?: string;
  /** Database where the connection string names none. Default `replication`. */
  fallbackDatabase?: string;
  /** application_name when nothing else names one. */
  fallbackApplicationName: string;
}

const CHECKS: Checks<ConninfoInput> = {
  conninfo: aText,
  host: aText,
  port: aText,
  user: aText,
  password: aText,
  others: aText,
  fallbackDatabase: aText,
  fallbackApplicationName: required(aText),
};

/** All parameters by keyword: what was given, then service file, environment and defaults. */
type Values = ReadonlyMap<string, string>;

/**
 * Merges every source of connection parameters as pg_receivewal does (GetConnection in
 * streamutil.c, then conninfo_add_defaults in fe-connect.c) and checks them. Reads the service
 * file; the password file is read when a password is needed.
 * @throws ConninfoError for what libpq refuses, NotSupportedError for what walkeep cannot honour.
 */
export async function resolveSettings(
  input: ConninfoInput,
  env: NodeJS.ProcessEnv = process.env,
): Promise<ConnectionSettings> {
  checkOptions('resolveSettings', input, CHECKS);
  const values = await mergeValues(input, env);
  const warnings = ignoredValueWarnings(values);
  const targets = resolveTargets(values);
  refuseUnsupported(values, targets);

  const user = values.get('user') || localUserName();
  const database = values.get('dbname') || user;
  const requireAuth = parseRequireAuth(values.get('require_auth') ?? '');
  const connectTimeout = integer(values, 'connect_timeout', 0);

  return {
    targets,
    user,
    ...passwordSource(values, { user, database }, env, warnings),
    database,
    // An empty PGAPPNAME suppresses the fallback, as in libpq.
    applicationName:
      values.get('application_name') ?? values.get('fallback_application_name') ?? '',
    startup: startupParameters(values, env),
    connectTimeout: Math.max(connectTimeout, 0) * 1000,
    targetSessionAttrs: choice(values, 'target_session_attrs', [
      'any',
      'read-write',
      'read-only',
      'primary',
      'standby',
      'prefer-standby',
    ]),
    loadBalanceHosts: choice(values, 'load_balance_hosts', ['disable', 'random']) === 'random',
    ...tlsSettings(values),
    channelBinding: choice(values, 'channel_binding', ['disable', 'prefer', 'require']),
    ...(requireAuth && { requireAuth }),
    keepalives: integer(values, 'keepalives', 1) !== 0,
    keepalivesIdle: Math.max(integer(values, 'keepalives_idle', 0), 0),
    warnings,
  };
}

async function mergeValues(input: ConninfoInput, env: NodeJS.ProcessEnv): Promise<Values> {
  const values = new Map([['dbname', input.fallbackDatabase ?? 'replication']]);
  const override = (name: string, value: string | undefined) => {
    if (value) values.set(name, value);
  };
  for (const [name, value] of parseConninfo(input.conninfo ?? '')) override(name, value);
  override('replication', 'true');
  override('fallback_application_name', input.fallbackApplicationName);
  override('host', input.host);
  override('user', input.user);
  override('port', input.port);
  override('password', input.password);
  const others = parseConninfo(input.others ?? '');
  if (others.has('host') || others.has('hostaddr')) {
    for (const name of ['host', 'hostaddr']) values.delete(name);
    if (values.get('port')?.includes(',')) values.delete('port');
  }
  for (const [name, value] of others) override(name, value);

  const fill = (name: string, value: string | undefined) => {
    if (value !== undefined && !values.has(name)) values.set(name, value);
  };
  fill('service', env.PGSERVICE);
  fill('servicefile', env.PGSERVICEFILE);
  const service = values.get('service');
  if (service !== undefined) {
    for (const [n, v] of await readService(service, values.get('servicefile'), env)) fill(n, v);
  }
  for (const [name, keyword] of KEYWORDS) fill(name, keyword.env && env[keyword.env]);
  // Deprecated, and weaker than PGSSLMODE.
  if (env.PGREQUIRESSL?.startsWith('1')) fill('sslmode', 'require');
  // The system's roots vouch for any public site: only the host name tells the server apart.
  if (values.get('sslrootcert') === 'system') fill('sslmode', 'verify-full');
  for (const [name, keyword] of KEYWORDS) fill(name, keyword.default);

  for (const [name, value] of values) {
    // In the startup packet a NUL ends a value, what follows would be read as parameters.
    if (!value.includes('\0')) continue;
    throw new ConninfoError(`NUL character in connection option "${name}"`);
  }
  return values;
}

function choice<T extends string>(values: Values, name: string, choices: readonly T[]): T {
  return parseChoice(values.get(name) ?? '', name, choices);
}

function integer(values: Values, name: string, unset: number): number {
  const text = values.get(name);
  return text === undefined ? unset : parseInteger(text, name);
}

function passwordSource(
  values: Values,
  session: { user: string; database: string },
  env: NodeJS.ProcessEnv,
  warnings: string[],
): Pick<ConnectionSettings, 'password' | 'passwordFromFile'> {
  const password = values.get('password');
  if (password) return { password };
  const home = homeDirectory(env);
  const file =
    process.platform === 'win32'
      ? join(env.APPDATA ?? '', 'postgresql', 'pgpass.conf')
      : home && join(home, '.pgpass');
  const path = values.get('passfile') || file;
  if (!path) return {};
  const warning = passfileWarning(path);
  if (warning) warnings.push(warning);
  return { passwordFromFile: passfileLookup(path, session) };
}

function startupParameters(values: Values, env: NodeJS.ProcessEnv): Record<string, string> {
  const startup: Record<string, string> = {};
  const options = values.get('options');
  if (options) startup.options = options;
  const encoding = values.get('client_encoding');
  // `auto` asks for the client's own encoding, and walkeep reads messages as UTF-8.
  if (encoding) startup.client_encoding = encoding === 'auto' ? 'UTF8' : encoding;
  for (const [variable, setting] of ENVIRONMENT_SETTINGS) {
    const value = env[variable];
    if (value?.includes('\0')) throw new ConninfoError(`NUL character in ${variable}`);
    if (value !== undefined && value.toLowerCase() !== 'default') startup[setting] = value;
  }
  return startup;
}

type TlsSettings = Pick<ConnectionSettings, Extract<keyof ConnectionSettings, `ssl${string}`>>;

function tlsSettings(values: Values): TlsSettings {
  const sslMode = choice(values, 'sslmode', [
    'disable',
    'allow',
    'prefer',
    'require',
    'verify-ca',
    'verify-full',
  ]);
  const sslNegotiation = choice(values, 'sslnegotiation', ['postgres', 'direct']);
  if (sslNegotiation === 'direct' && ['disable', 'allow', 'prefer'].includes(sslMode)) {
    throw new ConninfoError(
      `weak sslmode "${sslMode}" may not be used with sslnegotiation=direct (use "require", "verify-ca", or "verify-full")`,
    );
  }
  if (values.get('sslrootcert') === 'system' && sslMode !== 'verify-full') {
    throw new ConninfoError(
      `weak sslmode "${sslMode}" may not be used with sslrootcert=system (use "verify-full")`,
    );
  }

  const sslRootCert = values.get('sslrootcert');
  const sslCert = values.get('sslcert');
  const sslKey = values.get('sslkey');
  const sslPassword = values.get('sslpassword');
  const sslCrl = values.get('sslcrl');
  const sslCrlDir = values.get('sslcrldir');
  return {
    sslMode,
    sslNegotiation,
    ...(sslRootCert && { sslRootCert }),
    ...(sslCert && { sslCert }),
    ...(sslKey && { sslKey }),
    ...(sslPassword && { sslPassword }),
    ...(sslCrl && { sslCrl }),
    ...(sslCrlDir && { sslCrlDir }),
    sslSni: values.get('sslsni')?.startsWith('1') ?? true,
    sslCertMode: choice(values, 'sslcertmode', ['disable', 'allow', 'require']),
    ...parseTlsRange(
      values.get('ssl_min_protocol_version') ?? '',
      values.get('ssl_max_protocol_version') ?? '',
    ),
  };
}

function refuseUnsupported(values: Values, targets: readonly HostTarget[]): void {
  const gssEncMode = choice(values, 'gssencmode', ['disable', 'prefer', 'require']);
  if (gssEncMode === 'require') {
    throw new NotSupportedError('gssencmode value "require" is not supported');
  }
  // libpq compares the owner of the other end of a unix socket, and of nothing else.
  if (values.get('requirepeer') && targets.some((t) => !t.hostaddr && isSocketPath(t.host))) {
    throw new NotSupportedError('requirepeer is not supported', {
      detail: 'Node.js cannot ask which user owns the other end of a unix socket.',
    });
  }
  refuseScramKey(values.get('scram_client_key'), 'scram_client_key');
  refuseScramKey(values.get('scram_server_key'), 'scram_server_key');
  checkProtocolRange(values.get('min_protocol_version'), values.get('max_protocol_version'));
}

/** A text for each keyword that was asked for and has no effect here. */
function ignoredValueWarnings(values: Values): string[] {
  const warnings: string[] = [];
  for (const [name, keyword] of KEYWORDS) {
    const value = values.get(name);
    if (keyword.treatment !== 'warned' || value === undefined) continue;
    if (name.startsWith('oauth_')) {
      warnings.push(`${name} is ignored: OAuth authentication is not supported`);
    } else if (name === 'sslkeylogfile') {
      warnings.push(`${name} is ignored: TLS keys are not logged`);
    } else if (parseInteger(value, name) > 0) {
      warnings.push(`${name} is ignored: Node.js cannot set it on a socket`);
    }
  }
  return warnings;
}
