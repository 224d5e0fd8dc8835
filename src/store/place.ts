import { isAbsolute, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { UsageError } from '../errors.js';
import { withoutSecrets } from '../text.js';

/** Where an archive is, as a command or a caller names it. */
export type Place = DirectoryPlace | S3Place | SshPlace;

export interface DirectoryPlace {
  kind: 'directory';
  /** As it was given, for messages. */
  text: string;
  /** Relative ones to the working directory. */
  path: string;
}

/** `s3://bucket/prefix?endpoint=…&region=…&profile=…&ca=…&style=…`. */
export interface S3Place {
  kind: 's3';
  text: string;
  bucket: string;
  /** Without slashes around it; may be empty. */
  prefix: string;
  /** An own service: `http://host:port` or `https://host:port`, nothing behind. */
  endpoint?: string;
  region?: string;
  /** Section of the shared configuration and credentials files. */
  profile?: string;
  /** A file of certificates in PEM that are trusted instead of the system's. */
  ca?: string;
  /** Where the bucket stands in requests; without it in the path where an own service is asked. */
  style?: 'path' | 'virtual';
}

/** `ssh://user@host:port/dir`: the directory is served by `walkeep store --stdio` there. */
export interface SshPlace {
  kind: 'ssh';
  text: string;
  /** As the system's ssh takes it, also an alias of its configuration. */
  host: string;
  user?: string;
  port?: number;
  /** Absolute, there. */
  path: string;
}

const S3_PARAMETERS = ['endpoint', 'region', 'profile', 'ca', 'style'];
const SCHEME = /^([a-z][a-z0-9+.-]+):\/\//i;
/** What only a secret is called: it would be seen in the list of processes and in logs. */
const SECRET = /secret|password|passwd|token|access.?key|credential|signature/i;
/** Bucket names of S3, and the looser ones of other services. */
const BUCKET = /^[A-Za-z0-9][A-Za-z0-9._-]{1,254}$/;

/** @throws UsageError for a place that cannot be one, or that has a secret in it */
export function parsePlace(text: string): Place {
  const scheme = SCHEME.exec(text)?.[1]?.toLowerCase();
  if (text === '') throw new UsageError('an archive must be named');
  if (scheme === undefined) return { kind: 'directory', text, path: resolve(text) };
  let url: URL;
  try {
    url = new URL(text);
  } catch (cause) {
    throw refused(text, 'it is no URL', { cause });
  }
  refuseSecrets(text, url);
  switch (scheme) {
    case 'file':
      return fromFile(text, url);
    case 's3':
      return fromS3(text, url);
    case 'ssh':
      return fromSsh(text, url);
    default:
      throw refused(text, `"${scheme}" is not known`, {
        hint: 'Give a directory, or a URL that begins with file://, s3:// or ssh://.',
      });
  }
}

function refused(text: string, why: string, details: { hint?: string; cause?: unknown } = {}) {
  return new UsageError(`cannot use the place "${withoutSecrets(text)}": ${why}`, details);
}

function refuseSecrets(text: string, url: URL): void {
  const secret = [...url.searchParams.keys()].some((name) => SECRET.test(name));
  // A login of an endpoint: with nothing before the "@" too, or encoded, or without its scheme.
  const login = url.searchParams.getAll('endpoint').some((endpoint) => endpoint.includes('@'));
  if (!secret && !login && url.password === '') return;
  // Nothing of it is quoted: which part is the secret cannot be known.
  throw new UsageError(`the place ${text.split('://')[0]}://… has a secret in it`, {
    hint: 'Everybody on this machine could read it in the list of processes. Give it in the environment or in a profile.',
  });
}

function fromFile(text: string, url: URL): DirectoryPlace {
  if (url.search || url.hash) throw refused(text, 'a file URL has no parameters');
  try {
    return { kind: 'directory', text, path: fileURLToPath(url) };
  } catch (cause) {
    throw refused(text, 'it must be file:///absolute/path', { cause });
  }
}

function fromS3(text: string, url: URL): S3Place {
  if (url.username || url.port || url.hash) throw refused(text, 'it must be s3://bucket/prefix');
  // The URL's own host is in lower case.
  const bucket = /^s3:\/\/([^/?#]*)/i.exec(text)?.[1] ?? '';
  if (!BUCKET.test(bucket)) throw refused(text, `"${bucket}" is no bucket name`);
  const given = new Map<string, string>();
  for (const [name, value] of url.searchParams) {
    if (!S3_PARAMETERS.includes(name)) {
      throw refused(text, `it has an unknown parameter "${name}"`, {
        hint: `There are ${S3_PARAMETERS.join(', ')}.`,
      });
    }
    if (given.has(name)) throw refused(text, `it has "${name}" twice`);
    if (value === '') throw refused(text, `its "${name}" is empty`);
    given.set(name, value);
  }
  const place: S3Place = {
    kind: 's3',
    text,
    bucket,
    prefix: prefixOf(text, url),
  };
  const style = styleOf(text, given.get('style'));
  if (style !== undefined) place.style = style;
  const endpoint = given.get('endpoint');
  if (endpoint !== undefined) place.endpoint = endpointOf(text, endpoint);
  for (const name of ['region', 'profile', 'ca'] as const) {
    const value = given.get(name);
    if (value !== undefined) place[name] = value;
  }
  return place;
}

function prefixOf(text: string, url: URL): string {
  const segments = decoded(text, url.pathname).split('/').filter(Boolean);
  if (segments.some((part) => part === '.' || part === '..')) {
    throw refused(text, 'its prefix has "." or ".." in it');
  }
  return segments.join('/');
}

function styleOf(text: string, style: string | undefined): S3Place['style'] {
  if (style === undefined || style === 'path' || style === 'virtual') return style;
  throw refused(text, `its style must be path or virtual, not "${style}"`);
}

function endpointOf(text: string, endpoint: string): string {
  const origin = parseEndpoint(endpoint);
  if (origin === undefined) throw refused(text, 'its endpoint must be https://host:port');
  return origin;
}

/** `https://host:port` of what names a service, also without the scheme; undefined: it is more, or none. */
export function parseEndpoint(endpoint: string): string | undefined {
  const full = endpoint.includes('://') ? endpoint : `https://${endpoint}`;
  const url = URL.canParse(full) ? new URL(full) : undefined;
  const more = url?.search || url?.hash || url?.username || url?.password;
  if (!url || more || url.pathname !== '/' || !/^https?:$/.test(url.protocol)) return undefined;
  return url.origin;
}

function fromSsh(text: string, url: URL): SshPlace {
  if (url.search || url.hash) throw refused(text, 'an ssh URL has no parameters');
  const host = url.hostname.replace(/^\[(.*)\]$/, '$1');
  const path = decoded(text, url.pathname);
  // A host that begins with "-" would be an option of ssh.
  if (!host || host.startsWith('-') || path === '' || path === '/' || !isAbsolute(path)) {
    throw refused(text, 'it must be ssh://user@host:port/directory');
  }
  const place: SshPlace = { kind: 'ssh', text, host, path };
  const user = decoded(text, url.username);
  if (user.startsWith('-')) throw refused(text, `"${user}" is no user name`);
  if (user) place.user = user;
  if (url.port) place.port = Number(url.port);
  return place;
}

function decoded(text: string, part: string): string {
  let plain: string;
  try {
    plain = decodeURIComponent(part);
  } catch (cause) {
    throw refused(text, `"${part}" is not encoded as URLs are`, { cause });
  }
  if (/\p{Cc}/u.test(plain)) throw refused(text, 'it has control characters in it');
  return plain;
}
