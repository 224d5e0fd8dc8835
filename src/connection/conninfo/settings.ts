/** One place to try: a TCP host (with an optional fixed address) or a unix socket directory. */
export interface HostTarget {
  /**
   * Host name, address, or a directory (begins with `/`, or `@` for an abstract socket). Empty
   * when only `hostaddr` was given: then there is no name that a certificate could be checked for.
   */
  host: string;
  /** Numeric address to connect to instead of looking `host` up. */
  hostaddr?: string;
  port: number;
}

export type SslMode = 'disable' | 'allow' | 'prefer' | 'require' | 'verify-ca' | 'verify-full';
export type TargetSessionAttrs =
  | 'any'
  | 'read-write'
  | 'read-only'
  | 'primary'
  | 'standby'
  | 'prefer-standby';
/** The authentication methods that `require_auth` names. */
export type AuthMethod = 'password' | 'md5' | 'gss' | 'sspi' | 'scram-sha-256' | 'none';

/**
 * A fully resolved set of libpq connection parameters (PostgreSQL docs, "Parameter Key Words"):
 * defaults, environment, service file and password file are already applied.
 */
export interface ConnectionSettings {
  targets: readonly HostTarget[];
  user: string;
  /** Password given outright (keyword, PGPASSWORD, prompt). */
  password?: string;
  /** Looks the password file up for one target; already bound to user and database. */
  passwordFromFile?: (target: HostTarget) => string | undefined;
  /** `dbname` as sent: `replication` unless the connection string says otherwise. */
  database: string;
  /** Sent as application_name unless empty; decides a synchronous standby's identity. */
  applicationName: string;
  /** Extra startup parameters: options, client_encoding, and those of PGDATESTYLE, PGTZ, PGGEQO. */
  startup: Readonly<Record<string, string>>;
  /** Milliseconds for one target, 0 waits for ever. */
  connectTimeout: number;
  targetSessionAttrs: TargetSessionAttrs;
  loadBalanceHosts: boolean;
  sslMode: SslMode;
  sslNegotiation: 'postgres' | 'direct';
  /**
   * Path of the root certificates, or `system`. Absent, as for certificate, key and revocation
   * list, it is libpq's default under ~/.postgresql, for whoever makes the connection to look up.
   */
  sslRootCert?: string;
  sslCert?: string;
  sslKey?: string;
  sslPassword?: string;
  sslCrl?: string;
  sslCrlDir?: string;
  sslSni: boolean;
  sslCertMode: 'disable' | 'allow' | 'require';
  sslMinVersion?: 'TLSv1' | 'TLSv1.1' | 'TLSv1.2' | 'TLSv1.3';
  sslMaxVersion?: 'TLSv1' | 'TLSv1.1' | 'TLSv1.2' | 'TLSv1.3';
  channelBinding: 'disable' | 'prefer' | 'require';
  /** Acceptable methods; undefined accepts all. `negated` means all but these. */
  requireAuth?: { methods: readonly AuthMethod[]; negated: boolean };
  keepalives: boolean;
  /** Seconds before the first TCP keepalive; 0 leaves the system default. */
  keepalivesIdle: number;
  /** Things that were asked for and cannot be done here without harm: to be shown once. */
  warnings: readonly string[];
}
