import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { createWriteStream } from 'node:fs';
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { CertificateAuthority } from './certificates.js';
import { type Keys, signedRequest } from './s3-request.js';
import { killAtEnd, removeScratch, scratchDir } from './scratch.js';
import { findTool } from './tools.js';
import { waitFor } from './wait.js';

const run = promisify(execFile);

const PROGRAMS = ['ceph', 'ceph-mon', 'ceph-osd', 'monmaptool', 'radosgw', 'radosgw-admin'];
const ADMIN: Keys = { accessKeyId: 'walkeepadmin', secretAccessKey: 'walkeepadminsecret' };
/** Whose keys the tests use unless they are about rights. */
const OWNER: Keys = { accessKeyId: 'walkeepowner', secretAccessKey: 'walkeep/owner+secret' };

/** What is not installed of Ceph's gateway; empty where it can be started. */
export function missingForRgw(): string[] {
  return PROGRAMS.filter((name) => !findTool(name));
}

/** Where a gateway listens and whom it knows: plain, so that it can be told to other processes. */
export interface RgwFacts {
  http: string;
  https: string;
  /** File of the authority that signed the certificate of `https`. */
  ca: string;
  owner: Keys;
}

/**
 * A gateway that is running, wherever it was started: buckets, users and their rights. What RGW has
 * of S3 is Ceph's own: signatures, policies, versions, locks, and a conditional PUT.
 */
export class Rgw {
  readonly facts: RgwFacts;

  constructor(facts: RgwFacts) {
    this.facts = facts;
  }

  get owner(): Keys {
    return this.facts.owner;
  }

  /** A bucket of the owner's. */
  async createBucket(options: { locked?: boolean; name?: string } = {}): Promise<string> {
    const bucket = options.name ?? `b-${randomUUID()}`;
    const headers = options.locked ? { 'x-amz-bucket-object-lock-enabled': 'true' } : {};
    await this.ask({ method: 'PUT', path: `/${bucket}`, headers });
    return bucket;
  }

  /** Lets another user do these things only, such as `GetObject`, with the bucket and all in it. */
  allow(bucket: string, user: string, actions: readonly string[]): Promise<void> {
    return this.#allow(bucket, { AWS: [`arn:aws:iam:::user/${user}`] }, actions);
  }

  /** Lets whoever asks, without keys, do these things. */
  allowAnyone(bucket: string, actions: readonly string[]): Promise<void> {
    return this.#allow(bucket, '*', actions);
  }

  async #allow(bucket: string, Principal: unknown, actions: readonly string[]): Promise<void> {
    const policy = {
      Version: '2012-10-17',
      Statement: [
        {
          Effect: 'Allow',
          Principal,
          Action: actions.map((action) => `s3:${action}`),
          Resource: [`arn:aws:s3:::${bucket}`, `arn:aws:s3:::${bucket}/*`],
        },
      ],
    };
    await this.ask({ method: 'PUT', path: `/${bucket}?policy=`, body: JSON.stringify(policy) });
  }

  /** Old versions are kept from now on. */
  async keepVersions(bucket: string): Promise<void> {
    const body = '<VersioningConfiguration><Status>Enabled</Status></VersioningConfiguration>';
    await this.ask({ method: 'PUT', path: `/${bucket}?versioning=`, body });
  }

  /** What is stored from now on cannot be removed for a day. */
  async lockByDefault(bucket: string): Promise<void> {
    const rule = '<DefaultRetention><Mode>COMPLIANCE</Mode><Days>1</Days></DefaultRetention>';
    const body = `<ObjectLockConfiguration><ObjectLockEnabled>Enabled</ObjectLockEnabled><Rule>${rule}</Rule></ObjectLockConfiguration>`;
    await this.ask({ method: 'PUT', path: `/${bucket}?object-lock=`, body });
  }

  /** A user of its own, with rights to nothing yet. */
  async createUser(): Promise<Keys & { user: string }> {
    const user = `u${randomUUID().replaceAll('-', '')}`;
    const keys: Keys = { accessKeyId: `${user}key`, secretAccessKey: randomUUID() };
    await this.addKeys(user, keys, true);
    return { user, ...keys };
  }

  /** Another pair of keys of a user. */
  async addKeys(user: string, keys: Keys, create = false): Promise<void> {
    const query = new URLSearchParams({
      uid: user,
      'display-name': user,
      'access-key': keys.accessKeyId,
      'secret-key': keys.secretAccessKey,
      'generate-key': 'false',
      format: 'json',
    });
    const path = `/admin/user?${create ? '' : 'key=&'}${query}`;
    await this.ask({ method: 'PUT', path, keys: ADMIN });
  }

  /** Gives a user the rights of a policy document of IAM. */
  async grant(user: string, document: string): Promise<void> {
    const query = new URLSearchParams({
      Action: 'PutUserPolicy',
      UserName: user,
      PolicyName: 'rights',
      PolicyDocument: document,
    });
    await this.ask({ method: 'POST', path: `/?${query}`, keys: ADMIN });
  }

  /** A role with these rights that a user may take. @returns its ARN */
  async createRole(user: string, rights: object): Promise<string> {
    const name = `r${randomUUID().replaceAll('-', '')}`;
    const trust = {
      Version: '2012-10-17',
      Statement: [
        {
          Effect: 'Allow',
          Principal: { AWS: [`arn:aws:iam:::user/${user}`] },
          Action: ['sts:AssumeRole'],
        },
      ],
    };
    const call = (Action: string, more: Record<string, string>) =>
      this.ask({
        method: 'POST',
        path: `/?${new URLSearchParams({ Action, RoleName: name, ...more })}`,
        keys: ADMIN,
      });
    await call('CreateRole', { Path: '/', AssumeRolePolicyDocument: JSON.stringify(trust) });
    const document = JSON.stringify(rights);
    await call('PutRolePolicy', { PolicyName: 'rights', PolicyDocument: document });
    return `arn:aws:iam:::role/${name}`;
  }

  /** From now on nobody is known by it. */
  async removeKeys(user: string, accessKeyId: string): Promise<void> {
    const query = new URLSearchParams({ uid: user, 'access-key': accessKeyId, format: 'json' });
    await this.ask({ method: 'DELETE', path: `/admin/user?key=&${query}`, keys: ADMIN });
  }

  /** Any request that S3 knows, signed; one that is refused fails. */
  async ask(request: {
    method: string;
    path: string;
    headers?: Record<string, string>;
    body?: string;
    keys?: Keys;
  }): Promise<string> {
    const { keys = OWNER, ...rest } = request;
    const { status, text } = await signedRequest(this.facts.http, rest, keys);
    if (status >= 300) throw new Error(`${request.method} ${request.path}: ${status} ${text}`);
    return text;
  }
}

const CONFIGURATION = (at: {
  dir: string;
  fsid: string;
  monitor: number;
  http: number;
  https: number;
  tokens: boolean;
}) => `
[global]
fsid = ${at.fsid}
mon host = v1:127.0.0.1:${at.monitor}
public addr = 127.0.0.1
cluster addr = 127.0.0.1
auth cluster required = none
auth service required = none
auth client required = none
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon max pg per osd = 1000
osd crush chooseleaf type = 0
osd objectstore = memstore
# One that is full lets requests hang for ever; what was deleted is freed soon.
memstore device bytes = ${6 * 1024 ** 3}
run dir = ${at.dir}/run
admin socket = ${at.dir}/run/$name.$pid.asok
log file = ${at.dir}/log/$name.log
pid file =
[mon]
mon data = ${at.dir}/mon
mon data avail crit = 1
mon data avail warn = 1
[osd]
osd data = ${at.dir}/osd
osd class load list = *
osd class default list = *
[client]
rgw frontends = beast tcp_nodelay=1 endpoint=127.0.0.1:${at.http} ssl_endpoint=127.0.0.1:${at.https} ssl_certificate=${at.dir}/server.pem
rgw dns name = s3.localhost
rgw enable usage log = false
rgw gc obj min wait = 5
rgw gc processor period = 5
rgw thread pool size = 64
${at.tokens ? 'rgw s3 auth use sts = true\nrgw sts key = walkeepwalkeep00\n' : ''}rgw verify ssl = false
`;

/** The servers behind a gateway, started by this process and ended with it. */
export class RgwServers {
  readonly facts: RgwFacts;
  readonly #dir: string;
  readonly #children: ChildProcess[];

  private constructor(facts: RgwFacts, dir: string, children: ChildProcess[]) {
    this.facts = facts;
    this.#dir = dir;
    this.#children = children;
  }

  /**
   * One monitor, one disk in memory and the gateway. Takes about ten seconds. Another program may
   * take a port that was free a moment ago: then once more with others.
   * @param options `tokens`: it gives temporary credentials, too, and then calls all keys that it
   * does not know by another name
   */
  static async start(options: { tokens?: boolean } = {}): Promise<RgwServers> {
    return RgwServers.#start(options).catch(() => RgwServers.#start(options));
  }

  static async #start(options: { tokens?: boolean }): Promise<RgwServers> {
    const dir = scratchDir('rgw');
    const children: ChildProcess[] = [];
    try {
      return new RgwServers(await startIn(dir, children, options.tokens ?? false), dir, children);
    } catch (error) {
      await end(children);
      throw new Error(`Ceph could not be started\n${await lastLines(join(dir, 'log'))}`, {
        cause: error,
      });
    }
  }

  async stop(): Promise<void> {
    await end(this.#children);
    removeScratch(this.#dir);
  }
}

async function startIn(dir: string, children: ChildProcess[], tokens: boolean): Promise<RgwFacts> {
  for (const name of ['mon', 'osd', 'run', 'log', 'ca']) await mkdir(join(dir, name));
  const [monitor, http, https] = (await freePorts(3)) as [number, number, number];
  const fsid = randomUUID();
  const ca = await CertificateAuthority.create(join(dir, 'ca'));
  const { cert, key } = await ca.issue('server', [
    'IP:127.0.0.1',
    'DNS:localhost',
    'DNS:s3.localhost',
    'DNS:*.s3.localhost',
  ]);
  await writeFile(join(dir, 'server.pem'), (await readFile(key)) + (await readFile(cert, 'utf8')));
  const conf = join(dir, 'ceph.conf');
  await writeFile(conf, CONFIGURATION({ dir, fsid, monitor, http, https, tokens }));
  const env = { PATH: process.env.PATH, CEPH_CONF: conf, LC_ALL: 'C' };
  const once = (name: string, ...args: string[]) =>
    run(findTool(name) as string, args, { env, cwd: dir, timeout: 60_000 });
  const serve = (name: string, ...args: string[]) => {
    const child = spawn(findTool(name) as string, [...args, '-f'], {
      env,
      cwd: dir,
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    killAtEnd(child);
    // A pipe that nobody reads would stop it; one that is left behind must not keep us.
    const log = createWriteStream(join(dir, 'log', `${name}.out`), { flags: 'a' });
    child.stdout.pipe(log, { end: false });
    child.stderr.pipe(log, { end: false });
    children.push(child);
    return child;
  };

  const map = join(dir, 'monmap');
  const address = `v1:127.0.0.1:${monitor}`;
  await once('monmaptool', '--create', '--clobber', '--fsid', fsid, '--addv', 'a', address, map);
  await once('ceph-mon', '--mkfs', '-i', 'a', '--monmap', map);
  serve('ceph-mon', '-i', 'a');
  const disk = randomUUID();
  await once('ceph', 'osd', 'new', disk, '0');
  await once('ceph-osd', '-i', '0', '--mkfs', '--osd-uuid', disk);
  let starting = true;
  // It ends at once if it asks the monitor before it has its map from it.
  const startDisk = () =>
    serve('ceph-osd', '-i', '0').once('exit', (code) => {
      if (starting && code !== null) startDisk();
    });
  startDisk();
  const user = (name: string, keys: Keys, ...more: string[]) =>
    once(
      'radosgw-admin',
      ...['user', 'create', `--uid=${name}`, `--display-name=${name}`, '--max-buckets=0'],
      ...[`--access-key=${keys.accessKeyId}`, `--secret-key=${keys.secretAccessKey}`, ...more],
    );
  // The first makes the pools; two at a time would both.
  await user('admin', ADMIN, '--caps=users=*;buckets=*;user-policy=*;roles=*');
  const gateway = serve('radosgw', '-n', 'client.rgw');
  await user('owner', OWNER);
  for (const port of [http, https]) {
    await waitFor(
      () => {
        if (gateway.exitCode !== null) throw new Error(`radosgw ended: ${gateway.exitCode}`);
        return reachable(port);
      },
      { timeoutMs: 120_000, intervalMs: 50, what: 'the gateway' },
    );
  }
  starting = false;
  return {
    http: `http://127.0.0.1:${http}`,
    https: `https://127.0.0.1:${https}`,
    ca: ca.cert,
    owner: OWNER,
  };
}

async function lastLines(logs: string): Promise<string> {
  const texts = (await readdir(logs)).sort().map(async (name) => {
    const lines = (await readFile(join(logs, name), 'utf8')).trimEnd().split('\n').slice(-5);
    return `${name}:\n  ${lines.join('\n  ')}`;
  });
  return (await Promise.all(texts)).join('\n');
}

/** Ended hard: what they hold is in memory and nobody's any more. */
async function end(children: readonly ChildProcess[]): Promise<void> {
  const running = children.filter((child) => child.exitCode === null && child.signalCode === null);
  const ended = running.map((child) => new Promise((resolve) => child.once('exit', resolve)));
  for (const child of running) child.kill('SIGKILL');
  await Promise.all(ended);
}

function reachable(port: number): Promise<boolean> {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.once('connect', () => resolve(true)).once('error', () => resolve(false));
    socket.once('connect', () => socket.destroy());
  });
}

/** Free a moment ago, and different ones. */
async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, () => {
      const server = createServer();
      return new Promise<typeof server>((resolve) =>
        server.listen(0, '127.0.0.1', () => resolve(server)),
      );
    }),
  );
  const ports = servers.map((server) => (server.address() as { port: number }).port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}
