import { execFile } from 'node:child_process';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';

const run = promisify(execFile);

export interface KeyPair {
  cert: string;
  key: string;
}

/** A throw-away certificate authority in `dir`, made with the openssl command. */
export class CertificateAuthority {
  readonly dir: string;
  /** The CA's own certificate: what `sslrootcert` names. */
  readonly cert: string;

  private constructor(dir: string) {
    this.dir = dir;
    this.cert = join(dir, 'ca.crt');
  }

  static async create(dir: string): Promise<CertificateAuthority> {
    const ca = new CertificateAuthority(dir);
    await run('openssl', [
      ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'],
      ...['-keyout', join(dir, 'ca.key'), '-out', ca.cert, '-days', '3', '-sha256'],
      ...['-subj', '/CN=walkeep test CA'],
    ]);
    return ca;
  }

  /** A certificate for a server (its names as SAN) or a client (user name as CN). */
  async issue(cn: string, names: string[] = []): Promise<KeyPair> {
    const file = (suffix: string) => join(this.dir, `${cn}.${suffix}`);
    await run('openssl', [
      ...['req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes'],
      ...['-keyout', file('key'), '-out', file('csr'), '-subj', `/CN=${cn}`],
    ]);
    const san = names.length > 0 ? `subjectAltName=${names.join(',')}\n` : '';
    await writeFile(file('ext'), `basicConstraints=CA:FALSE\n${san}`);
    await run('openssl', [
      ...['x509', '-req', '-in', file('csr'), '-CA', this.cert, '-CAkey', join(this.dir, 'ca.key')],
      ...['-CAcreateserial', '-days', '3', '-sha256', '-extfile', file('ext')],
      ...['-out', file('crt')],
    ]);
    return { cert: file('crt'), key: file('key') };
  }
}
