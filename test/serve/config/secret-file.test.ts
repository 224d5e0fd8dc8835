import { chmodSync, mkdirSync, renameSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { readSecret, readSecretFile } from '../../../src/serve/config/secret-file.js';
import { scratchDir } from '../../support/scratch.js';

const SECRET = 'kEtZeR99';

function fileWith(text: string, mode = 0o600): string {
  const file = join(scratchDir('secret'), 'password');
  writeFileSync(file, text);
  chmodSync(file, mode);
  return file;
}

it('reads the first line, anew each time', () => {
  const file = fileWith(`${SECRET}\r\nmore\n`);
  expect(readSecret(file)).toBe(SECRET);
  writeFileSync(file, ' with blanks ');
  expect(readSecret(file)).toBe(' with blanks ');
});

it('refuses a file that others may read or change, and shows nothing of it', () => {
  for (const mode of [0o604, 0o602, 0o660, 0o644, 0o777]) {
    const read = () => readSecret(fileWith(SECRET, mode));
    expect(read).toThrow('may be read or written by others');
    expect(read).not.toThrow(SECRET);
  }
});

it.runIf(process.geteuid?.() === 0)('takes a file of root that a group may read', () => {
  expect(readSecret(fileWith(SECRET, 0o640))).toBe(SECRET);
});

it('takes the file of a Secret of Kubernetes, and its next value', () => {
  const dir = scratchDir('mounted');
  const mount = (version: string, text: string): void => {
    mkdirSync(join(dir, version));
    writeFileSync(join(dir, version, 'password'), text);
    chmodSync(join(dir, version, 'password'), 0o400);
    symlinkSync(version, join(dir, '..data_tmp'));
    renameSync(join(dir, '..data_tmp'), join(dir, '..data'));
  };
  mount('..1', SECRET);
  symlinkSync(join('..data', 'password'), join(dir, 'password'));
  expect(readSecret(join(dir, 'password'))).toBe(SECRET);
  mount('..2', 'the next one');
  expect(readSecret(join(dir, 'password'))).toBe('the next one');
});

it('says why there is no secret', () => {
  expect(() => readSecret('/nowhere/password')).toThrow('could not read file "/nowhere/password"');
  expect(() => readSecret(fileWith('\n'))).toThrow('its first line is empty');
  expect(() => readSecret(fileWith('x'.repeat(70_000)))).toThrow('is too long');
});

it('reads it without waiting for the disk, too', async () => {
  expect(await readSecretFile(fileWith(`${SECRET}\n`))).toBe(SECRET);
  const refused = readSecretFile(fileWith(SECRET, 0o644));
  await expect(refused).rejects.toThrow('may be read or written by others');
  await expect(readSecretFile(fileWith('\n'))).rejects.toThrow('its first line is empty');
  await expect(readSecretFile('/nowhere/hook')).rejects.toThrow('could not read file');
});
