import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { openDirectory } from '../../src/archive/places/directory-archive.js';
import { StorageError } from '../../src/errors.js';
import { scratchDir } from '../support/scratch.js';

const NAME = '000000010000000000000007';

it('has the best complete form of a segment, whatever its partials', async () => {
  const dir = scratchDir('archive');
  const archive = openDirectory(dir);
  writeFileSync(join(dir, `${NAME}.partial`), '');
  expect(await archive.completeName(`${NAME}.partial`)).toBeUndefined();
  writeFileSync(join(dir, `${NAME}.lz4`), '');
  expect(await archive.completeName(NAME)).toBe(`${NAME}.lz4`);
  writeFileSync(join(dir, `${NAME}.gz`), '');
  expect(await archive.completeName(`${NAME}.partial`)).toBe(`${NAME}.gz`);
});

it('calls nothing absent where that cannot be told', async () => {
  const path = join(scratchDir('archive'), 'file');
  writeFileSync(path, '');
  const archive = openDirectory(path);
  await expect(archive.has(NAME)).rejects.toThrow(StorageError);
  await expect(archive.completeName(NAME)).rejects.toThrow(StorageError);
});
