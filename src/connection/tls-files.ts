import { createPrivateKey } from 'node:crypto';
import { existsSync, readdirSync, readFileSync, statSync } from 'node:fs';
import { homedir } from 'node:os';
import { join } from 'node:path';
import { rootCertificates } from 'node:tls';
import { TlsError } from '../errors.js';
import type { ConnectionSettings } from './conninfo/settings.js';
import { systemReason } from './socket.js';

/** What the files of the settings give to node's TLS; absent means none. */
export interface TlsFiles {
  ca?: (string | Buffer)[];
  crl?: Buffer[];
  cert?: Buffer;
  key?: string | Buffer;
  passphrase?: string;
}

/** Where OpenSSL builds of the common distributions keep their bundle; SSL_CERT_FILE goes first. */
const SYSTEM_BUNDLES = [
  '/etc/ssl/certs/ca-certificates.crt',
  '/etc/pki/tls/certs/ca-bundle.crt',
  '/etc/ssl/ca-bundle.pem',
  '/etc/ssl/cert.pem',
];

const NO_ROOT_HINT =
  "Either provide the file, use the system's trusted roots with sslrootcert=system, or change sslmode to disable server certificate verification.";

/**
 * Reads root certificates, revocation lists, client certificate and key, with libpq's defaults
 * in ~/.postgresql. @throws TlsError if a needed file is missing, unreadable or too open.
 */
export function loadTlsFiles(settings: ConnectionSettings): TlsFiles {
  const files: TlsFiles = {};
  const root = settings.sslRootCert || defaultFile('root.crt');
  if (root === 'system') {
    files.ca = systemRoots();
  } else if (existsSync(root)) {
    files.ca = [read(root, 'root certificate file')];
    const crl = loadRevocationLists(settings);
    if (crl.length > 0) files.crl = crl;
  } else if (settings.sslMode === 'verify-ca' || settings.sslMode === 'verify-full') {
    throw new TlsError(`root certificate file "${root}" does not exist`, {
      path: root,
      hint: NO_ROOT_HINT,
    });
  }
  if (settings.sslCertMode !== 'disable') loadClientCertificate(settings, files);
  return files;
}

function defaultFile(name: string): string {
  return join(homedir(), '.postgresql', name);
}

function systemRoots(): (string | Buffer)[] {
  const bundle = [process.env.SSL_CERT_FILE ?? '', ...SYSTEM_BUNDLES].find(
    (path) => path !== '' && existsSync(path),
  );
  return bundle ? [read(bundle, 'root certificate file')] : [...rootCertificates];
}

/** libpq ignores a named list that cannot be read; here that is an error, revocation was asked for. */
function loadRevocationLists(settings: ConnectionSettings): Buffer[] {
  const lists: Buffer[] = [];
  if (settings.sslCrl) lists.push(read(settings.sslCrl, 'certificate revocation list'));
  if (settings.sslCrlDir) {
    const directory = settings.sslCrlDir;
    let names: string[];
    try {
      names = readdirSync(directory).sort();
    } catch (cause) {
      throw unreadable('directory of revocation lists', directory, cause);
    }
    for (const name of names) {
      const path = join(directory, name);
      if (statSync(path).isFile()) lists.push(read(path, 'certificate revocation list'));
    }
  }
  const standard = defaultFile('root.crl');
  if (!settings.sslCrl && !settings.sslCrlDir && existsSync(standard)) {
    lists.push(read(standard, 'certificate revocation list'));
  }
  return lists;
}

function loadClientCertificate(settings: ConnectionSettings, files: TlsFiles): void {
  const certPath = settings.sslCert || defaultFile('postgresql.crt');
  if (!existsSync(certPath)) {
    if (settings.sslCertMode !== 'require') return;
    throw new TlsError(`certificate file "${certPath}" does not exist`, {
      path: certPath,
      hint: 'sslcertmode=require needs a client certificate.',
    });
  }
  files.cert = read(certPath, 'certificate file');
  const keyPath = settings.sslKey || defaultFile('postgresql.key');
  checkKeyFile(keyPath);
  files.key = decodeKey(read(keyPath, 'private key file'), keyPath);
  if (settings.sslPassword) files.passphrase = settings.sslPassword;
}

/** libpq's rule: at most 0600, or 0640 for a file of root's. */
function checkKeyFile(path: string): void {
  let stat: ReturnType<typeof statSync>;
  try {
    stat = statSync(path);
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== 'ENOENT') {
      throw unreadable('private key file', path, cause);
    }
    throw new TlsError(`certificate present, but not private key file "${path}"`, { path, cause });
  }
  if (!stat.isFile()) {
    throw new TlsError(`private key file "${path}" is not a regular file`, { path });
  }
  const forbidden = stat.uid === 0 ? 0o037 : 0o077;
  if (process.platform !== 'win32' && stat.mode & forbidden) {
    throw new TlsError(`private key file "${path}" has group or world access`, {
      path,
      hint: 'It must have permissions u=rw (0600) or less, or u=rw,g=r (0640) or less if root owns it.',
    });
  }
}

/** PEM as it is; DER, which node's TLS does not take, turned into PEM. */
function decodeKey(bytes: Buffer, path: string): string | Buffer {
  if (bytes.includes('-----BEGIN')) return bytes;
  for (const type of ['pkcs8', 'pkcs1', 'sec1'] as const) {
    try {
      const key = createPrivateKey({ key: bytes, format: 'der', type });
      return key.export({ format: 'pem', type: 'pkcs8' });
    } catch {
      // Not this container; the next one may fit.
    }
  }
  throw new TlsError(`could not load private key file "${path}"`, { path });
}

function read(path: string, what: string): Buffer {
  try {
    return readFileSync(path);
  } catch (cause) {
    throw unreadable(what, path, cause);
  }
}

function unreadable(what: string, path: string, cause: unknown): TlsError {
  return new TlsError(`could not read ${what} "${path}": ${systemReason(cause)}`, { path, cause });
}
