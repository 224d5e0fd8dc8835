/**
 * What happens to a keyword that is set:
 * - `used`: it decides something in ConnectionSettings (or which file is read);
 * - `ignored`: accepted without effect, and nothing is lost by it;
 * - `warned`: accepted without effect, and setting it adds to `settings.warnings`;
 * - `limited`: values that ask for nothing are accepted, the others are refused, because going
 *   on without them would weaken the connection or fail in an obscure way.
 */
export type Treatment = 'used' | 'ignored' | 'warned' | 'limited';

/** One connection parameter. */
export interface Keyword {
  /** Environment variable that fills it when neither caller nor service file did. */
  env?: string;
  /** Value when nothing else set it. */
  default?: string;
  treatment: Treatment;
  /** Its value must never be shown. */
  secret?: true;
}

/**
 * Every parameter of libpq 18 (`PQconninfoOptions` in fe-connect.c), and `servicefile`, which
 * libpq 19 adds. `authtype` and `tty` are unknown to libpq since 14, and so they are here.
 */
export const KEYWORDS: ReadonlyMap<string, Keyword> = new Map<string, Keyword>([
  ['service', { env: 'PGSERVICE', treatment: 'used' }],
  ['servicefile', { env: 'PGSERVICEFILE', treatment: 'used' }],
  ['user', { env: 'PGUSER', treatment: 'used' }],
  ['password', { env: 'PGPASSWORD', treatment: 'used', secret: true }],
  ['passfile', { env: 'PGPASSFILE', treatment: 'used' }],
  ['channel_binding', { env: 'PGCHANNELBINDING', default: 'prefer', treatment: 'used' }],
  ['connect_timeout', { env: 'PGCONNECT_TIMEOUT', treatment: 'used' }],
  ['dbname', { env: 'PGDATABASE', treatment: 'used' }],
  ['host', { env: 'PGHOST', treatment: 'used' }],
  ['hostaddr', { env: 'PGHOSTADDR', treatment: 'used' }],
  ['port', { env: 'PGPORT', default: '5432', treatment: 'used' }],
  ['client_encoding', { env: 'PGCLIENTENCODING', treatment: 'used' }],
  ['options', { env: 'PGOPTIONS', default: '', treatment: 'used' }],
  ['application_name', { env: 'PGAPPNAME', treatment: 'used' }],
  ['fallback_application_name', { treatment: 'used' }],
  ['keepalives', { treatment: 'used' }],
  ['keepalives_idle', { treatment: 'used' }],
  ['keepalives_interval', { treatment: 'warned' }],
  ['keepalives_count', { treatment: 'warned' }],
  ['tcp_user_timeout', { treatment: 'warned' }],
  ['sslmode', { env: 'PGSSLMODE', default: 'prefer', treatment: 'used' }],
  ['sslnegotiation', { env: 'PGSSLNEGOTIATION', default: 'postgres', treatment: 'used' }],
  ['sslcompression', { env: 'PGSSLCOMPRESSION', default: '0', treatment: 'ignored' }],
  ['sslcert', { env: 'PGSSLCERT', treatment: 'used' }],
  ['sslkey', { env: 'PGSSLKEY', treatment: 'used' }],
  ['sslcertmode', { env: 'PGSSLCERTMODE', default: 'allow', treatment: 'used' }],
  ['sslpassword', { treatment: 'used', secret: true }],
  ['sslrootcert', { env: 'PGSSLROOTCERT', treatment: 'used' }],
  ['sslcrl', { env: 'PGSSLCRL', treatment: 'used' }],
  ['sslcrldir', { env: 'PGSSLCRLDIR', treatment: 'used' }],
  ['sslsni', { env: 'PGSSLSNI', default: '1', treatment: 'used' }],
  ['requirepeer', { env: 'PGREQUIREPEER', treatment: 'limited' }],
  ['require_auth', { env: 'PGREQUIREAUTH', treatment: 'used' }],
  ['min_protocol_version', { env: 'PGMINPROTOCOLVERSION', treatment: 'limited' }],
  ['max_protocol_version', { env: 'PGMAXPROTOCOLVERSION', treatment: 'limited' }],
  [
    'ssl_min_protocol_version',
    { env: 'PGSSLMINPROTOCOLVERSION', default: 'TLSv1.2', treatment: 'used' },
  ],
  ['ssl_max_protocol_version', { env: 'PGSSLMAXPROTOCOLVERSION', treatment: 'used' }],
  ['gssencmode', { env: 'PGGSSENCMODE', default: 'disable', treatment: 'limited' }],
  ['krbsrvname', { env: 'PGKRBSRVNAME', default: 'postgres', treatment: 'ignored' }],
  ['gsslib', { env: 'PGGSSLIB', treatment: 'ignored' }],
  ['gssdelegation', { env: 'PGGSSDELEGATION', default: '0', treatment: 'ignored' }],
  // Always `true` here: whatever is given is overridden, as pg_receivewal does.
  ['replication', { treatment: 'ignored' }],
  ['target_session_attrs', { env: 'PGTARGETSESSIONATTRS', default: 'any', treatment: 'used' }],
  ['load_balance_hosts', { env: 'PGLOADBALANCEHOSTS', default: 'disable', treatment: 'used' }],
  ['scram_client_key', { treatment: 'limited', secret: true }],
  ['scram_server_key', { treatment: 'limited', secret: true }],
  ['oauth_issuer', { treatment: 'warned' }],
  ['oauth_client_id', { treatment: 'warned' }],
  ['oauth_client_secret', { treatment: 'warned', secret: true }],
  ['oauth_scope', { treatment: 'warned' }],
  ['sslkeylogfile', { treatment: 'warned' }],
]);

/** Server settings that libpq sends in the startup packet when these variables are set. */
export const ENVIRONMENT_SETTINGS: ReadonlyMap<string, string> = new Map([
  ['PGDATESTYLE', 'datestyle'],
  ['PGTZ', 'timezone'],
  ['PGGEQO', 'geqo'],
]);
