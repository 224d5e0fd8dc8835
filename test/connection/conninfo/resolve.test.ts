import { chmodSync, existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import fc from 'fast-check';
import { afterAll, afterEach, beforeEach, describe, expect, it } from 'vitest';
import { KEYWORDS } from '../../../src/connection/conninfo/keywords.js';
import { type ConninfoInput, resolveSettings } from '../../../src/connection/conninfo/resolve.js';
import type { ConnectionSettings } from '../../../src/connection/conninfo/settings.js';
import { NotSupportedError, WalkeepError } from '../../../src/errors.js';

const home = mkdtempSync(join(tmpdir(), 'walkeep-resolve-'));
afterAll(() => rmSync(home, { recursive: true }));

const SOCKET_DIRECTORY = existsSync('/var/run/postgresql') ? '/var/run/postgresql' : '/tmp';

/** Resolves with nothing of this machine's user leaking in. */
const resolve = (input: Partial<ConninfoInput> | string = '', env: NodeJS.ProcessEnv = {}) =>
  resolveSettings(
    {
      fallbackApplicationName: 'walkeep',
      ...(typeof input === 'string' ? { conninfo: input } : input),
    },
    { HOME: home, PGSYSCONFDIR: home, ...env },
  );

describe('defaults', () => {
  it('are those of libpq and pg_receivewal', async () => {
    const { passwordFromFile, ...settings } = await resolve({});
    expect(passwordFromFile).toBeTypeOf('function');
    expect(settings).toEqual({
      targets: [{ host: SOCKET_DIRECTORY, port: 5432 }],
      user: userInfo().username,
      database: 'replication',
      applicationName: 'walkeep',
      startup: {},
      connectTimeout: 0,
      targetSessionAttrs: 'any',
      loadBalanceHosts: false,
      sslMode: 'prefer',
      sslNegotiation: 'postgres',
      sslSni: true,
      sslCertMode: 'allow',
      sslMinVersion: 'TLSv1.2',
      channelBinding: 'prefer',
      keepalives: true,
      keepalivesIdle: 0,
      warnings: [],
    });
  });
});

describe('values', () => {
  it.each<[string, Partial<ConnectionSettings>]>([
    ['connect_timeout=10', { connectTimeout: 10_000 }],
    // Raised to 2 up to PostgreSQL 16, not since.
    ['connect_timeout=1', { connectTimeout: 1000 }],
    ['connect_timeout=0', { connectTimeout: 0 }],
    ['connect_timeout=-1', { connectTimeout: 0 }],
    ["connect_timeout=' +5 '", { connectTimeout: 5000 }],
    ['application_name=a', { applicationName: 'a' }],
    ['fallback_application_name=x', { applicationName: 'walkeep' }],
    ['user=u', { user: 'u' }],
    ['dbname=d', { database: 'd' }],
    ['replication=database', { database: 'replication' }],
    ["options='-c geqo=off'", { startup: { options: '-c geqo=off' } }],
    ['client_encoding=LATIN1', { startup: { client_encoding: 'LATIN1' } }],
    ['client_encoding=auto', { startup: { client_encoding: 'UTF8' } }],
    ['keepalives=0', { keepalives: false }],
    ['keepalives=2', { keepalives: true }],
    ['keepalives_idle=60', { keepalivesIdle: 60 }],
    ['keepalives_idle=-60', { keepalivesIdle: 0 }],
    ['sslmode=verify-ca', { sslMode: 'verify-ca' }],
    ['requiressl=1', { sslMode: 'require' }],
    ['sslmode=require sslnegotiation=direct', { sslNegotiation: 'direct' }],
    ['sslrootcert=system', { sslMode: 'verify-full', sslRootCert: 'system' }],
    ['sslrootcert=/r', { sslMode: 'prefer', sslRootCert: '/r' }],
    ['sslcert=/c sslkey=/k sslpassword=p', { sslCert: '/c', sslKey: '/k', sslPassword: 'p' }],
    ['sslcrl=/c sslcrldir=/d', { sslCrl: '/c', sslCrlDir: '/d' }],
    ['sslsni=0', { sslSni: false }],
    ['sslcertmode=disable', { sslCertMode: 'disable' }],
    ['ssl_min_protocol_version=tlsV1.3', { sslMinVersion: 'TLSv1.3' }],
    [
      'ssl_min_protocol_version=TLSv1 ssl_max_protocol_version=TLSv1.1',
      { sslMinVersion: 'TLSv1', sslMaxVersion: 'TLSv1.1' },
    ],
    ['channel_binding=require', { channelBinding: 'require' }],
    ['target_session_attrs=prefer-standby', { targetSessionAttrs: 'prefer-standby' }],
    ['load_balance_hosts=random', { loadBalanceHosts: true }],
    ['load_balance_hosts=disable', { loadBalanceHosts: false }],
    [
      'require_auth=scram-sha-256,none',
      { requireAuth: { methods: ['scram-sha-256', 'none'], negated: false } },
    ],
    [
      'require_auth=!password,!md5',
      { requireAuth: { methods: ['password', 'md5'], negated: true } },
    ],
    [
      'require_auth=gss,sspi,md5,oauth',
      { requireAuth: { methods: ['gss', 'sspi', 'md5'], negated: false } },
    ],
    // Only "none" remains, and that is implemented.
    [
      'require_auth=!password,!md5,!scram-sha-256',
      { requireAuth: { methods: ['password', 'md5', 'scram-sha-256'], negated: true } },
    ],
    ['gssencmode=prefer', {}],
    ['gssencmode=disable', {}],
    ['min_protocol_version=3.0 max_protocol_version=latest', {}],
    ['max_protocol_version=3.2', {}],
    ['host=h requirepeer=postgres', {}],
    ['postgresql://u:p@h:1/d', { user: 'u', password: 'p', database: 'd' }],
  ])('%s', async (conninfo, expected) => {
    expect(await resolve(conninfo)).toMatchObject({ ...expected, warnings: [] });
  });

  it('an empty minimum TLS version is none', async () => {
    const settings = await resolve('', { PGSSLMINPROTOCOLVERSION: '' });
    expect(settings).not.toHaveProperty('sslMinVersion');
  });
});

describe('hosts', () => {
  const host = SOCKET_DIRECTORY;
  it.each<[string, ConnectionSettings['targets']]>([
    ['host=h', [{ host: 'h', port: 5432 }]],
    ['host=h port=6', [{ host: 'h', port: 6 }]],
    ["host=h port=' 6 '", [{ host: 'h', port: 6 }]],
    ['host=/run/pg', [{ host: '/run/pg', port: 5432 }]],
    ['host=@pg', [{ host: '@pg', port: 5432 }]],
    ['hostaddr=::1', [{ host: '', hostaddr: '::1', port: 5432 }]],
    ['host=h hostaddr=10.0.0.1', [{ host: 'h', hostaddr: '10.0.0.1', port: 5432 }]],
    [
      'host=a,b port=6',
      [
        { host: 'a', port: 6 },
        { host: 'b', port: 6 },
      ],
    ],
    [
      'host=a,,c port=6,,8',
      [
        { host: 'a', port: 6 },
        { host, port: 5432 },
        { host: 'c', port: 8 },
      ],
    ],
    [
      'host=a,b,, hostaddr=,10.0.0.1,10.0.0.2,',
      [
        { host: 'a', port: 5432 },
        { host: 'b', hostaddr: '10.0.0.1', port: 5432 },
        { host: '', hostaddr: '10.0.0.2', port: 5432 },
        { host, port: 5432 },
      ],
    ],
    [
      'postgres://a,[::1]:6/',
      [
        { host: 'a', port: 5432 },
        { host: '::1', port: 6 },
      ],
    ],
  ])('%s', async (conninfo, targets) => {
    expect((await resolve(conninfo)).targets).toEqual(targets);
  });
});

describe('refused with libpq’s words', () => {
  it.each([
    ['sslmode=maybe', 'invalid sslmode value: "maybe"'],
    ['sslnegotiation=no', 'invalid sslnegotiation value: "no"'],
    ['sslcertmode=no', 'invalid sslcertmode value: "no"'],
    ['channel_binding=no', 'invalid channel_binding value: "no"'],
    ['gssencmode=no', 'invalid gssencmode value: "no"'],
    ['target_session_attrs=no', 'invalid target_session_attrs value: "no"'],
    ['load_balance_hosts=no', 'invalid load_balance_hosts value: "no"'],
    ['min_protocol_version=3.1', 'invalid min_protocol_version value: "3.1"'],
    ['max_protocol_version=4', 'invalid max_protocol_version value: "4"'],
    [
      'min_protocol_version=3.2 max_protocol_version=3.0',
      '"min_protocol_version" is greater than "max_protocol_version"',
    ],
    ['ssl_min_protocol_version=SSLv3', 'invalid "ssl_min_protocol_version" value: "SSLv3"'],
    ['ssl_max_protocol_version=1.2', 'invalid "ssl_max_protocol_version" value: "1.2"'],
    ['ssl_max_protocol_version=TLSv1.1', 'invalid SSL protocol version range'],
    ['require_auth=md6', 'invalid require_auth value: "md6"'],
    ['require_auth=md5,', 'invalid require_auth value: ""'],
    ['require_auth=!', 'invalid require_auth value: ""'],
    ['require_auth=md5,md5', 'require_auth method "md5" is specified more than once'],
    ['require_auth=!none,!none', 'require_auth method "!none" is specified more than once'],
    [
      'require_auth=md5,!none',
      'negative require_auth method "!none" cannot be mixed with non-negative methods',
    ],
    ['require_auth=!none,md5', 'require_auth method "md5" cannot be mixed with negative methods'],
    ['host=a,b hostaddr=::1', 'could not match 2 host names to 1 hostaddr values'],
    ['host=a hostaddr=::1,::2', 'could not match 1 host names to 2 hostaddr values'],
    ['host=a,b,c port=1,2', 'could not match 2 port numbers to 3 hosts'],
    ['host=a port=1,2', 'could not match 2 port numbers to 1 hosts'],
    ['port=0', 'invalid port number: "0"'],
    ['port=65536', 'invalid port number: "65536"'],
    ['port=x', 'invalid integer value "x" for connection option "port"'],
    ['port=1.5', 'invalid integer value "1.5" for connection option "port"'],
    ['port=2147483648', 'invalid integer value "2147483648" for connection option "port"'],
    ['connect_timeout=1s', 'invalid integer value "1s" for connection option "connect_timeout"'],
    ['keepalives=yes', 'invalid integer value "yes" for connection option "keepalives"'],
    ['tcp_user_timeout=x', 'invalid integer value "x" for connection option "tcp_user_timeout"'],
    ["host='postgresql://u:pw@h'", 'host name is a connection string'],
    ["host='a,host=b'", 'host name is a connection string'],
    ['hostaddr=localhost', 'could not parse network address "localhost"'],
    [
      'sslnegotiation=direct',
      'weak sslmode "prefer" may not be used with sslnegotiation=direct (use "require", "verify-ca", or "verify-full")',
    ],
    [
      'sslrootcert=system sslmode=verify-ca',
      'weak sslmode "verify-ca" may not be used with sslrootcert=system (use "verify-full")',
    ],
    ['scram_client_key=!', 'invalid SCRAM client key'],
    ['scram_server_key=AAAA', 'invalid SCRAM server key length: 3'],
    ['service=nowhere', 'definition of service "nowhere" not found'],
    ['hots=x', 'invalid connection option "hots"'],
  ])('%s', async (conninfo, message) => {
    await expect(resolve(conninfo)).rejects.toThrow(
      expect.objectContaining({ code: 'WK_CONNINFO', message }),
    );
  });

  it('an empty variable is a value', async () => {
    await expect(resolve('', { PGSSLMODE: '' })).rejects.toThrow('invalid sslmode value: ""');
    await expect(resolve('', { PGCONNECT_TIMEOUT: '' })).rejects.toThrow(
      'invalid integer value "" for connection option "connect_timeout"',
    );
  });

  it('a NUL, which would end the value in the startup packet', async () => {
    await expect(resolve({ user: 'u\0replication' })).rejects.toThrow(
      'NUL character in connection option "user"',
    );
    await expect(resolve('', { PGTZ: 'UTC\0' })).rejects.toThrow('NUL character in PGTZ');
  });
});

describe('known and not supported', () => {
  const key = Buffer.alloc(32).toString('base64');
  it.each([
    ['gssencmode=require', {}],
    ['requirepeer=postgres', {}],
    ['host=h,/run/pg requirepeer=postgres', {}],
    ['', { PGREQUIREPEER: 'postgres' }],
    ['min_protocol_version=3.2', {}],
    ['min_protocol_version=latest', {}],
    ['require_auth=gss', {}],
    ['require_auth=oauth,sspi', {}],
    ['require_auth=!none,!password,!md5,!scram-sha-256', {}],
    [`scram_client_key=${key}`, {}],
    [`scram_server_key=${key}`, {}],
  ])('%s %j', async (conninfo, env) => {
    await expect(resolve(conninfo, env)).rejects.toBeInstanceOf(NotSupportedError);
  });
});

describe('without effect', () => {
  const samples: Record<string, string> = {
    keepalives_interval: '10',
    keepalives_count: '3',
    tcp_user_timeout: '5000',
  };
  const named = (treatment: string) =>
    [...KEYWORDS].filter(([, k]) => k.treatment === treatment).map(([name]) => name);

  it.each(named('warned'))('%s: warned', async (name) => {
    const { warnings } = await resolve(`${name}=${samples[name] ?? 'hunter2'}`);
    expect(warnings).toEqual([expect.stringMatching(`^${name} is ignored: `)]);
    expect(warnings.join()).not.toContain('hunter2');
  });

  it.each(Object.keys(samples))('%s=0 asks for nothing', async (name) => {
    expect((await resolve(`${name}=0`)).warnings).toEqual([]);
    expect((await resolve(`${name}=-1`)).warnings).toEqual([]);
  });

  it.each(named('ignored'))('%s: silently', async (name) => {
    const { passwordFromFile: _, ...plain } = await resolve('host=h');
    const { passwordFromFile: __, ...settings } = await resolve(`host=h ${name}=x`);
    expect(settings).toEqual(plain);
  });
});

describe('order of sources', () => {
  const services = join(home, 'services');
  writeFileSync(
    services,
    '[s]\nhost=service\nuser=service\nport=3\ndbname=service\napplication_name=service\nsslmode=\n',
  );
  const conninfo = 'host=conninfo user=conninfo port=2 password=conninfo';
  const env = {
    PGHOST: 'env',
    PGUSER: 'env',
    PGPORT: '4',
    PGDATABASE: 'env',
    PGPASSWORD: 'env',
    PGAPPNAME: 'env',
    PGOPTIONS: '-c a=b',
  };

  it('options win over the connection string', async () => {
    const flags = { host: 'flag', user: 'flag', port: '1', password: 'flag' };
    expect(await resolve({ conninfo, ...flags }, env)).toMatchObject({
      targets: [{ host: 'flag', port: 1 }],
      user: 'flag',
      password: 'flag',
    });
  });

  it('an option also wins over a list in the connection string, port by port count', async () => {
    await expect(resolve({ conninfo: 'host=a,b port=1,2', host: 'c' })).rejects.toThrow(
      'could not match 2 port numbers to 1 hosts',
    );
  });

  it('the connection string wins over service file and environment', async () => {
    expect(
      await resolve(`${conninfo} service=s sslmode=require`, { ...env, PGSERVICEFILE: services }),
    ).toMatchObject({
      targets: [{ host: 'conninfo', port: 2 }],
      user: 'conninfo',
      password: 'conninfo',
      applicationName: 'service',
      startup: { options: '-c a=b' },
    });
  });

  it.each([
    ['keywords', `service=s servicefile='${services}' sslmode=require`, {}],
    ['URI', `postgres://?service=s&servicefile=${services}&sslmode=require`, {}],
    ['environment', 'sslmode=require', { PGSERVICE: 's', PGSERVICEFILE: services }],
  ])('the service file, named by %s, wins over the environment', async (_, text, more) => {
    expect(await resolve(text, { ...env, ...more })).toMatchObject({
      targets: [{ host: 'service', port: 3 }],
      user: 'service',
      password: 'env',
      // Always set by pg_receivewal, so neither file nor environment can.
      database: 'replication',
    });
  });

  it('an empty value in the service file hides the environment', async () => {
    await expect(
      resolve(`service=s servicefile='${services}'`, { PGSSLMODE: 'require' }),
    ).rejects.toThrow('invalid sslmode value: ""');
  });

  it('the environment wins over the defaults', async () => {
    expect(await resolve('', env)).toMatchObject({
      targets: [{ host: 'env', port: 4 }],
      user: 'env',
      password: 'env',
      database: 'replication',
      applicationName: 'env',
      startup: { options: '-c a=b' },
    });
  });

  it('empty options and keywords count as not given', async () => {
    const empty = { host: '', port: '', user: '', password: '' };
    expect(await resolve({ conninfo: "host='' user='' dbname=''", ...empty }, env)).toMatchObject({
      targets: [{ host: 'env', port: 4 }],
      user: 'env',
      password: 'env',
      database: 'replication',
    });
  });

  it('an empty PGHOST is the default, an empty PGAPPNAME no name', async () => {
    expect(await resolve('', { PGHOST: '', PGPORT: '', PGUSER: '', PGAPPNAME: '' })).toMatchObject({
      targets: [{ host: SOCKET_DIRECTORY, port: 5432 }],
      user: userInfo().username,
      applicationName: '',
    });
  });

  it('every variable of the table is read', async () => {
    for (const [name, { env: variable }] of KEYWORDS) {
      if (!variable || name === 'servicefile') continue;
      // A NUL shows that the value arrived, whatever the keyword means.
      const other = name === 'service' ? 'definition of service' : `option "${name}"`;
      const outcome = resolve('', { [variable]: 'x\0' });
      if (name === 'dbname') await outcome;
      else await expect(outcome, variable).rejects.toThrow(other);
    }
  });

  it('PGREQUIRESSL is weaker than PGSSLMODE, and a choice of its own', async () => {
    expect(await resolve('', { PGREQUIRESSL: '1' })).toMatchObject({ sslMode: 'require' });
    expect(await resolve('', { PGREQUIRESSL: '0' })).toMatchObject({ sslMode: 'prefer' });
    expect(await resolve('', { PGREQUIRESSL: '1', PGSSLMODE: 'allow' })).toMatchObject({
      sslMode: 'allow',
    });
    await expect(resolve('sslrootcert=system', { PGREQUIRESSL: '1' })).rejects.toThrow(
      'weak sslmode "require"',
    );
  });

  it('PGSSLROOTCERT=system strengthens the default, not a choice', async () => {
    const system = { PGSSLROOTCERT: 'system' };
    expect(await resolve('', system)).toMatchObject({ sslMode: 'verify-full' });
    await expect(resolve('postgresql://host?sslmode=disable', system)).rejects.toThrow(
      'weak sslmode "disable" may not be used with sslrootcert=system',
    );
  });

  it('PGDATESTYLE, PGTZ and PGGEQO go into the startup packet', async () => {
    const variables = { PGDATESTYLE: 'ISO', PGTZ: 'UTC', PGGEQO: 'Default' };
    expect((await resolve('', variables)).startup).toEqual({ datestyle: 'ISO', timezone: 'UTC' });
  });
});

describe('password file', () => {
  const pgpass = join(home, '.pgpass');
  beforeEach(() => {
    writeFileSync(
      pgpass,
      'h:5432:replication:u:physical\nh:5432:d:u:named\ng:6:*:*:second\nlocalhost:*:*:*:socket\n',
      { mode: 0o600 },
    );
  });
  afterEach(() => rmSync(pgpass));

  const found = async (conninfo: string, env: NodeJS.ProcessEnv = {}) => {
    const { targets, passwordFromFile } = await resolve(conninfo, env);
    return targets.map((target) => passwordFromFile?.(target));
  };

  it.each<[string, (string | undefined)[]]>([
    ['host=h user=u', ['physical']],
    ['host=h user=u dbname=d', ['named']],
    ['host=h user=v', [undefined]],
    ['host=h,g port=5432,6 user=u', ['physical', 'second']],
    ['user=v', ['socket']],
    ['postgres://u@h/d', ['named']],
  ])('%s', async (conninfo, passwords) => {
    expect(await found(conninfo)).toEqual(passwords);
  });

  it('is not looked at when a password is given', async () => {
    chmodSync(pgpass, 0o644);
    for (const settings of [
      await resolve('password=p'),
      await resolve({ password: 'p' }),
      await resolve('', { PGPASSWORD: 'p' }),
    ]) {
      expect(settings).toMatchObject({ password: 'p', warnings: [] });
      expect(settings).not.toHaveProperty('passwordFromFile');
    }
  });

  it('an empty password is none', async () => {
    expect(await found('host=h user=u', { PGPASSWORD: '' })).toEqual(['physical']);
  });

  it('passfile and PGPASSFILE name another', async () => {
    const other = join(home, 'other');
    writeFileSync(other, '*:*:*:*:other', { mode: 0o600 });
    expect(await found(`user=u passfile='${other}'`)).toEqual(['other']);
    expect(await found('user=u', { PGPASSFILE: other })).toEqual(['other']);
    expect(await found('user=u host=h', { PGPASSFILE: '' })).toEqual(['physical']);
  });

  it('with wrong permissions it is ignored with a warning', async () => {
    chmodSync(pgpass, 0o640);
    expect((await resolve('host=h user=u')).warnings).toEqual([
      `password file "${pgpass}" has group or world access; permissions should be u=rw (0600) or less`,
    ]);
    expect(await found('host=h user=u')).toEqual([undefined]);
  });
});

describe('properties', () => {
  it('no error and no warning shows a secret', async () => {
    const secret = 'hunter2';
    const part = fc.tuple(
      fc.constantFrom(...KEYWORDS.keys()).filter((name) => name !== 'service'),
      fc.constantFrom('', 'x', '0', '-1', 'system', 'direct', 'a,b', 'require'),
    );
    const secrets = fc.constantFrom(
      ...[...KEYWORDS].filter(([, keyword]) => keyword.secret).map(([name]) => name),
    );
    await fc.assert(
      fc.asyncProperty(secrets, fc.array(part, { maxLength: 6 }), async (name, parts) => {
        const text = [[name, secret], ...parts].map(([k, v]) => `${k}='${v}'`).join(' ');
        try {
          expect((await resolve(text)).warnings.join()).not.toContain(secret);
        } catch (error) {
          expect(error).toBeInstanceOf(WalkeepError);
          expect(JSON.stringify(error) + (error as Error).message).not.toContain(secret);
        }
      }),
      { numRuns: 500 },
    );
  });
});
