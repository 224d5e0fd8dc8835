import { execFileSync } from 'node:child_process';
import { chmodSync, chownSync, mkdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeEach, describe, expect, it } from 'vitest';
import { resolveSettings } from '../../src/connection/conninfo/resolve.js';
import { loadTlsFiles } from '../../src/connection/tls-files.js';
import { TlsError } from '../../src/errors.js';
import { scratchDir } from '../support/scratch.js';

const KEY = '-----BEGIN PRIVATE KEY-----\nnot looked at here\n-----END PRIVATE KEY-----\n';
const isRoot = process.getuid?.() === 0;

let cert: string;
let key: string;
beforeEach(() => {
  const directory = scratchDir('tls');
  cert = join(directory, 'client.crt');
  key = join(directory, 'client.key');
  writeFileSync(cert, 'a certificate');
  writeFileSync(key, KEY, { mode: 0o600 });
});

async function load(more = '') {
  const conninfo = `host=h sslcert=${cert} sslkey=${key} sslrootcert=/nonexistent ${more}`;
  return loadTlsFiles(await resolveSettings({ conninfo, fallbackApplicationName: 'x' }, {}));
}

const refusal = (more?: string) =>
  load(more).then(
    () => 'accepted',
    (error) => {
      expect(error).toBeInstanceOf(TlsError);
      return (error as Error).message;
    },
  );

/** fe-secure-openssl.c, initialize_SSL: the mode of the key file, by its owner. */
describe('a private key', () => {
  const asUser = [0o600, 0o400, 0o700];
  const onlyAsRoot = [0o640, 0o440];
  const never = [0o660, 0o650, 0o604, 0o602, 0o601, 0o644, 0o666, 0o777];

  it.each(asUser)('is taken with mode %o', async (mode) => {
    chmodSync(key, mode);
    expect((await load()).key).toEqual(Buffer.from(KEY));
    if (isRoot) chownSync(key, 65534, 65534);
    expect((await load()).key).toEqual(Buffer.from(KEY));
  });

  it.each(onlyAsRoot)('is taken with mode %o if root owns it', async (mode) => {
    chmodSync(key, mode);
    const message = `private key file "${key}" has group or world access`;
    expect(await refusal()).toBe(isRoot ? 'accepted' : message);
    if (isRoot) chownSync(key, 65534, 65534);
    expect(await refusal()).toBe(message);
  });

  it.each(never)('is refused with mode %o whoever owns it', async (mode) => {
    chmodSync(key, mode);
    const message = `private key file "${key}" has group or world access`;
    expect(await refusal()).toBe(message);
    if (isRoot) chownSync(key, 65534, 65534);
    expect(await refusal()).toBe(message);
  });

  it('is judged by the file that a link leads to', async () => {
    const link = `${key}.link`;
    symlinkSync(key, link);
    key = link;
    expect(await refusal()).toBe('accepted');
    chmodSync(key, 0o644);
    expect(await refusal()).toBe(`private key file "${link}" has group or world access`);
  });

  it('is a regular file', async () => {
    rmSync(key);
    mkdirSync(key, { mode: 0o700 });
    expect(await refusal()).toBe(`private key file "${key}" is not a regular file`);
    rmSync(key, { recursive: true });
    execFileSync('mkfifo', ['-m', '600', key]);
    expect(await refusal()).toBe(`private key file "${key}" is not a regular file`);
    rmSync(key);
    expect(await refusal()).toBe(`certificate present, but not private key file "${key}"`);
  });

  it('is not looked at without a certificate, or where none is sent', async () => {
    chmodSync(key, 0o644);
    expect(await refusal('sslcertmode=disable')).toBe('accepted');
    rmSync(cert);
    expect(await refusal()).toBe('accepted');
    expect(await refusal('sslcertmode=require')).toBe(`certificate file "${cert}" does not exist`);
  });
});

describe('root certificates', () => {
  it('are needed to verify, and only then', async () => {
    for (const mode of ['verify-ca', 'verify-full']) {
      expect(await refusal(`sslmode=${mode}`)).toBe(
        'root certificate file "/nonexistent" does not exist',
      );
    }
    for (const mode of ['prefer', 'require']) {
      expect((await load(`sslmode=${mode}`)).ca).toBeUndefined();
    }
  });

  it('of the system are there, and only verify-full takes them', async () => {
    expect((await load('sslrootcert=system')).ca?.length).toBeGreaterThan(0);
    for (const mode of ['disable', 'allow', 'prefer', 'require', 'verify-ca']) {
      await expect(load(`sslrootcert=system sslmode=${mode}`)).rejects.toThrow(
        `weak sslmode "${mode}" may not be used with sslrootcert=system`,
      );
    }
  });
});
