import { X509Certificate } from 'node:crypto';
import { isIP, type Socket } from 'node:net';
import { type ConnectionOptions, type TLSSocket, connect as tlsConnect } from 'node:tls';
import { ConnectionError, ProtocolError, TlsError, WalkeepError } from '../errors.js';
import { SSL_REQUEST } from '../protocol/frontend-message.js';
import type { ConnectionSettings } from './conninfo/settings.js';
import type { Endpoint } from './socket.js';
import { systemReason } from './socket.js';
import { NOT_POSTGRES } from './startup.js';
import { loadTlsFiles } from './tls-files.js';

/** Protocol name registered for PostgreSQL (PG_ALPN_PROTOCOL, libpq/pqcomm.h). */
const ALPN = 'postgresql';

/**
 * Asks for TLS on a fresh connection. Resolves true for 'S', false for 'N'; the socket is left
 * without listeners and paused. @throws ProtocolError if the answer is anything else, or if more
 * bytes came with it: they were sent in clear and must not be taken as part of the session
 * (CVE-2021-23222).
 */
export function requestTls(socket: Socket): Promise<boolean> {
  return new Promise((resolve, reject) => {
    const settle = (outcome: boolean | Error): void => {
      socket.off('data', onData).off('error', onError).off('end', onEnd).off('close', onEnd);
      socket.pause();
      if (outcome instanceof Error) reject(outcome);
      else resolve(outcome);
    };
    const onError = (error: Error): void => settle(error);
    const onEnd = (): void => settle(new Error('server closed the connection unexpectedly'));
    const onData = (chunk: Buffer): void => {
      const answer = String.fromCharCode(chunk[0] as number);
      if (answer === 'E') {
        // Not shown: nothing proves yet who wrote it (CVE-2024-10977).
        settle(new ConnectionError('server sent an error response during SSL exchange'));
      } else if (answer !== 'S' && answer !== 'N') {
        settle(
          new ProtocolError(
            `received invalid response to SSL negotiation: ${JSON.stringify(answer)}`,
            { hint: NOT_POSTGRES },
          ),
        );
      } else if (chunk.length > 1) {
        settle(new ProtocolError('received unencrypted data after SSL response'));
      } else {
        settle(answer === 'S');
      }
    };
    socket.on('data', onData).on('error', onError).on('end', onEnd).on('close', onEnd);
    socket.write(SSL_REQUEST);
  });
}

/**
 * Runs the TLS handshake on a connected socket and checks the server as the settings demand.
 * Gives its certificate (DER) as well.
 * @throws TlsError, ConnectionError if the connection broke
 */
export async function upgrade(
  socket: Socket,
  endpoint: Endpoint,
  settings: ConnectionSettings,
): Promise<{ tlsSocket: TLSSocket; certificate: Buffer }> {
  const files = loadTlsFiles(settings);
  const host = endpoint.target.host;
  const options: ConnectionOptions = {
    socket,
    minVersion: settings.sslMinVersion ?? 'TLSv1.2',
    ALPNProtocols: [ALPN],
    // RFC 6066: never an address.
    servername: settings.sslSni && !looksLikeAddress(host) ? host : '',
    // libpq verifies whenever it has a root certificate, whatever sslmode says.
    rejectUnauthorized: files.ca !== undefined,
    checkServerIdentity: () => undefined,
    ...files,
  };
  if (settings.sslMaxVersion) options.maxVersion = settings.sslMaxVersion;
  let tlsSocket: TLSSocket;
  try {
    tlsSocket = tlsConnect(options);
  } catch (cause) {
    throw new TlsError(`could not set up SSL: ${systemReason(cause)}`, { cause });
  }
  tlsSocket.on('error', () => {});
  try {
    await handshake(tlsSocket);
    return { tlsSocket, certificate: checkPeer(tlsSocket, host, settings) };
  } catch (cause) {
    tlsSocket.destroy();
    throw handshakeFailure(cause);
  }
}

function handshake(tlsSocket: TLSSocket): Promise<void> {
  return new Promise((resolve, reject) => {
    const settle = (error?: Error): void => {
      tlsSocket.off('secureConnect', onSecure).off('error', settle).off('close', onClose);
      if (error) reject(error);
      else resolve();
    };
    const onSecure = (): void => settle();
    const onClose = (): void => settle(new ConnectionError('SSL SYSCALL error: EOF detected'));
    tlsSocket.on('secureConnect', onSecure).on('error', settle).on('close', onClose);
  });
}

function handshakeFailure(cause: unknown): WalkeepError {
  if (cause instanceof WalkeepError) return cause;
  const { code = '', message } = cause as NodeJS.ErrnoException & { reason?: string };
  // The network's or a dying server's doing, not TLS's: it passes.
  if (LOST.has(code)) {
    // Node calls the end of the stream ECONNRESET too, but no system call failed.
    const ended = (cause as NodeJS.ErrnoException).syscall === undefined;
    const reason = ended ? 'EOF detected' : systemReason(cause);
    return new ConnectionError(`SSL SYSCALL error: ${reason}`, { cause });
  }
  if (VERIFY_ERROR.test(code)) {
    return new TlsError('SSL error: certificate verify failed', {
      cause,
      detail: message,
      hint: 'Check sslrootcert: it must hold the authority that signed the certificate.',
    });
  }
  const reason = (cause as { reason?: string }).reason ?? systemReason(cause);
  return new TlsError(`SSL error: ${reason}`, { cause });
}

/** Codes of a connection that broke under the handshake. */
const LOST: ReadonlySet<string> = new Set(['ECONNRESET', 'EPIPE', 'ETIMEDOUT', 'ECONNABORTED']);

/** Codes of X509_verify_cert_error as node names them. */
const VERIFY_ERROR =
  /CERT|CRL|SIGNATURE|ISSUER|_CA$|PATH_LENGTH|PURPOSE|CHAIN|^(?:HOSTNAME_MISMATCH|OUT_OF_MEM)$/;

/** Returns the server's certificate in DER. */
function checkPeer(tlsSocket: TLSSocket, host: string, settings: ConnectionSettings): Buffer {
  if (settings.sslNegotiation === 'direct' && tlsSocket.alpnProtocol !== ALPN) {
    throw new TlsError(
      tlsSocket.alpnProtocol
        ? 'SSL connection was established with unexpected ALPN protocol'
        : 'direct SSL connection was established without ALPN protocol negotiation extension',
    );
  }
  const der = tlsSocket.getPeerCertificate().raw as Buffer | undefined;
  if (!der) throw new TlsError('certificate could not be obtained');
  if (settings.sslMode === 'verify-full') checkName(new X509Certificate(der), host);
  // The algorithms shared with the peer are known on our side only after its CertificateRequest.
  if (settings.sslCertMode === 'require' && tlsSocket.getSharedSigalgs().length === 0) {
    throw new TlsError('server did not request an SSL certificate');
  }
  return der;
}

/**
 * libpq's rules: DNS names of the subjectAltName, else the common name; an address must be in the
 * subjectAltName, or be the common name of a certificate that has no addresses there.
 */
function checkName(certificate: X509Certificate, host: string): void {
  const names = { partialWildcards: false } as const;
  let matches: boolean;
  if (looksLikeAddress(host)) {
    const listsAddresses = certificate.subjectAltName?.includes('IP Address:') ?? false;
    matches =
      (isIP(host) !== 0 && certificate.checkIP(host) !== undefined) ||
      (!listsAddresses && certificate.checkHost(host, names) !== undefined);
  } else {
    matches = certificate.checkHost(host, names) !== undefined;
  }
  if (matches) return;
  const shown = certificate.subjectAltName ?? certificate.subject.replaceAll('\n', ', ');
  throw new TlsError(`server certificate for "${shown}" does not match host name "${host}"`, {
    expected: host,
    actual: shown,
  });
}

function looksLikeAddress(host: string): boolean {
  return isIP(host) !== 0 || host.includes(':') || /^[0-9.]+$/.test(host);
}
