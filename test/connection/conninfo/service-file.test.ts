import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { parseServiceFile, readService } from '../../../src/connection/conninfo/service-file.js';
import { ConninfoError, NotSupportedError } from '../../../src/errors.js';

describe('parseServiceFile', () => {
  it.each<[string, string, Record<string, string> | undefined]>([
    ['[s]\nhost=h\nport=5433\n', 's', { host: 'h', port: '5433' }],
    ['  [s]  \r\n  host=h  \r\n', 's', { host: 'h' }],
    ['# c\n\n[a]\nhost=1\n[b]\nhost=2\n[c]\nhost=3', 'b', { host: '2' }],
    ['[s]\n# c\nhost=h\n\nuser=u', 's', { host: 'h', user: 'u' }],
    ['[s]\nhost=1\nhost=2', 's', { host: '1' }],
    ['[s]\nhost=1\n[s]\nport=2', 's', { host: '1' }],
    ["[s]\npassword= a=b'c ", 's', { password: " a=b'c" }],
    ['[s]\nhost=', 's', { host: '' }],
    ['[s]', 's', {}],
    ['[s2]\nhost=h', 's', undefined],
    ['[a.b]\nhost=h', 'a.b', { host: 'h' }],
    // What other groups hold does not matter.
    ['[x]\nnonsense\n[s]\nhost=h', 's', { host: 'h' }],
    ['', 's', undefined],
  ])('%j, service %s', (text, service, expected) => {
    const values = parseServiceFile(text, service, 'f');
    expect(values && Object.fromEntries(values)).toEqual(expected);
  });

  it.each([
    ['[s]\n\nhost', 'syntax error in service file "f", line 3'],
    ['[s]\nhost = h', 'syntax error in service file "f", line 2'],
    ['[s]\nhots=h', 'syntax error in service file "f", line 2'],
    ['[s]\n=h', 'syntax error in service file "f", line 2'],
    ['[s]\nservice=t', 'nested service specifications not supported in service file "f", line 2'],
    [
      '[s]\nservicefile=t',
      'nested "servicefile" specifications not supported in service file "f", line 2',
    ],
  ])('%j is refused', (text, message) => {
    expect(() => parseServiceFile(text, 's', 'f')).toThrow(
      expect.objectContaining({ code: 'WK_CONNINFO', path: 'f', message }),
    );
  });

  it('LDAP is refused', () => {
    expect(() => parseServiceFile('[s]\nldap://h/dc=x?a?one?(cn=y)', 's', 'f')).toThrow(
      NotSupportedError,
    );
  });

  it('shows no line in an error', () => {
    expect(() => parseServiceFile('[s]\npassword hunter2', 's', 'f')).toThrow(
      expect.objectContaining({ message: expect.not.stringContaining('hunter2') }),
    );
  });
});

describe('readService', () => {
  let home: string;
  let system: string;
  let env: NodeJS.ProcessEnv;
  beforeEach(() => {
    home = mkdtempSync(join(tmpdir(), 'walkeep-service-'));
    system = join(home, 'etc');
    mkdirSync(system);
    env = { HOME: home, PGSYSCONFDIR: system };
  });
  afterEach(() => rmSync(home, { recursive: true }));

  const write = (path: string, host: string, service = 's') =>
    writeFileSync(path, `[${service}]\nhost=${host}\n`);
  const host = async (file?: string) => (await readService('s', file, env)).get('host');

  it('takes the named file, then the system-wide one, not the one at home', async () => {
    const file = join(home, 'named');
    write(file, 'other', 'other');
    write(join(home, '.pg_service.conf'), 'home');
    await expect(host(file)).rejects.toThrow('definition of service "s" not found');
    write(join(system, 'pg_service.conf'), 'system');
    expect(await host(file)).toBe('system');
    write(file, 'named');
    expect(await host(file)).toBe('named');
  });

  it('takes the one at home before the system-wide one', async () => {
    write(join(system, 'pg_service.conf'), 'system');
    expect(await host()).toBe('system');
    write(join(home, '.pg_service.conf'), 'home');
    expect(await host()).toBe('home');
    write(join(home, '.pg_service.conf'), 'home', 'other');
    expect(await host()).toBe('system');
  });

  it('needs the named file', async () => {
    const file = join(home, 'missing');
    write(join(system, 'pg_service.conf'), 'system');
    await expect(host(file)).rejects.toThrow(
      expect.objectContaining({
        code: 'WK_CONNINFO',
        path: file,
        message: `service file "${file}" not found`,
      }),
    );
  });

  it('needs the service', async () => {
    await expect(host()).rejects.toThrow(new ConninfoError('definition of service "s" not found'));
  });
});
