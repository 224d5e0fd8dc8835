import { execFileSync } from 'node:child_process';
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { defaultHost } from '../../../src/connection/conninfo/local-system.js';
import {
  findPassword,
  type PassfileKey,
  passfileLookup,
  passfileWarning,
} from '../../../src/connection/conninfo/passfile.js';

const KEY: PassfileKey = { host: 'h', port: 5432, database: 'replication', user: 'u' };

describe('findPassword', () => {
  it.each<[string, Partial<PassfileKey>, string | undefined]>([
    ['h:5432:replication:u:pw', {}, 'pw'],
    ['h:5432:replication:u:pw\r\n', {}, 'pw'],
    ['*:*:*:*:pw', {}, 'pw'],
    ['h:5432:*:u:first\n*:*:*:*:second', {}, 'first'],
    ['x:5432:*:u:first\n\n*:*:*:*:second', {}, 'second'],
    ['#*:*:*:*:comment\n*:*:*:*:pw', {}, 'pw'],
    [' #*:*:*:*:no comment', {}, undefined],
    ['h:5433:*:u:pw', {}, undefined],
    ['h:5433:*:u:pw', { port: 5433 }, 'pw'],
    ['h:5432:db:u:pw', {}, undefined],
    ['h:5432:db:u:pw', { database: 'db' }, 'pw'],
    ['h:5432:replication:v:pw', {}, undefined],
    ['H:5432:replication:u:pw', {}, undefined],
    // A wildcard is the whole field and bare.
    ['h*:5432:replication:u:pw', {}, undefined],
    ['\\*:5432:replication:u:pw', {}, undefined],
    ['\\*:5432:replication:u:pw', { host: '*' }, 'pw'],
    ['\\:\\:1:*:*:u:pw', { host: '::1' }, 'pw'],
    ['::1:*:*:u:pw', { host: '::1' }, undefined],
    ['*:*:*:a\\\\b:pw', { user: 'a\\b' }, 'pw'],
    ['*:*:*:*:p\\:w\\\\', {}, 'p:w\\'],
    ['*:*:*:*:pw:rest', {}, 'pw'],
    ['*:*:*:*:pw\\', {}, 'pw\\'],
    ['*:*:*:*: p w ', {}, ' p w '],
    // The first match counts, also without a password.
    ['*:*:*:*:\n*:*:*:*:pw', {}, undefined],
    ['*:*:*:*', {}, undefined],
    ['', {}, undefined],
    ['localhost:*:*:*:pw', { host: '' }, 'pw'],
    ['localhost:*:*:*:pw', { host: defaultHost() }, 'pw'],
    [`${defaultHost()}:*:*:*:pw`, { host: defaultHost() }, undefined],
    ['localhost:*:*:*:pw', { host: '/elsewhere' }, undefined],
    ['/elsewhere:*:*:*:pw', { host: '/elsewhere' }, 'pw'],
  ])('%j for %j', (text, key, password) => {
    expect(findPassword(text, { ...KEY, ...key })).toBe(password);
  });
});

describe('the file', () => {
  let directory: string;
  let path: string;
  beforeEach(() => {
    directory = mkdtempSync(join(tmpdir(), 'walkeep-passfile-'));
    path = join(directory, 'pgpass');
    writeFileSync(path, 'h:*:replication:u:one\n10.0.0.1:*:replication:u:two\n', { mode: 0o600 });
  });
  afterEach(() => rmSync(directory, { recursive: true }));

  const session = { database: 'replication', user: 'u' };

  it('is looked up by host, else by address', () => {
    const lookup = passfileLookup(path, session);
    expect(lookup({ host: 'h', hostaddr: '10.0.0.1', port: 1 })).toBe('one');
    expect(lookup({ host: '', hostaddr: '10.0.0.1', port: 1 })).toBe('two');
    expect(lookup({ host: 'other', port: 1 })).toBeUndefined();
  });

  it('is read again each time', () => {
    const lookup = passfileLookup(path, session);
    expect(lookup({ host: 'h', port: 1 })).toBe('one');
    writeFileSync(path, '*:*:*:*:rotated');
    expect(lookup({ host: 'h', port: 1 })).toBe('rotated');
    rmSync(path);
    expect(lookup({ host: 'h', port: 1 })).toBeUndefined();
  });

  it.each([0o640, 0o604, 0o610, 0o660, 0o777])('is ignored with mode %o', (mode) => {
    chmodSync(path, mode);
    expect(passfileWarning(path)).toBe(
      `password file "${path}" has group or world access; permissions should be u=rw (0600) or less`,
    );
    expect(passfileLookup(path, session)({ host: 'h', port: 1 })).toBeUndefined();
  });

  it.each([0o600, 0o400, 0o700])('is accepted with mode %o', (mode) => {
    chmodSync(path, mode);
    expect(passfileWarning(path)).toBeUndefined();
    expect(passfileLookup(path, session)({ host: 'h', port: 1 })).toBe('one');
  });

  it('must be a regular file', () => {
    const sub = join(directory, 'sub');
    mkdirSync(sub, { mode: 0o700 });
    expect(passfileWarning(sub)).toBe(`password file "${sub}" is not a plain file`);
    expect(passfileLookup(sub, session)({ host: 'h', port: 1 })).toBeUndefined();
  });

  it('is judged by what a link leads to, and a fifo is not waited for', () => {
    const link = join(directory, 'link');
    symlinkSync(path, link);
    expect(passfileLookup(link, session)({ host: 'h', port: 1 })).toBe('one');
    chmodSync(path, 0o640);
    expect(passfileWarning(link)).toContain('has group or world access');
    expect(passfileLookup(link, session)({ host: 'h', port: 1 })).toBeUndefined();
    const fifo = join(directory, 'fifo');
    execFileSync('mkfifo', ['-m', '600', fifo]);
    expect(passfileWarning(fifo)).toBe(`password file "${fifo}" is not a plain file`);
    expect(passfileLookup(fifo, session)({ host: 'h', port: 1 })).toBeUndefined();
  });

  it('may be missing', () => {
    const missing = join(directory, 'missing');
    expect(passfileWarning(missing)).toBeUndefined();
    expect(passfileLookup(missing, session)({ host: 'h', port: 1 })).toBeUndefined();
  });
});
