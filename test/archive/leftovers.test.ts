import { mkdirSync, readdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { removeLeftovers } from '../../src/archive/leftovers.js';
import { nodeFileSystem } from '../../src/files/file-system.js';
import { scratchDir } from '../support/scratch.js';

const NAME = '000000010000000000000050';
const UNDER_WAY = [
  `.walkeep-${NAME}.gz`,
  `.walkeep-${NAME}.lz4`,
  `.walkeep-${NAME}.zst`,
  `.walkeep-${NAME}.gz.partial`,
  `.walkeep-${NAME}.lz4.partial`,
  `.walkeep-${NAME}.seed`,
  `.${NAME}.gz.partial.tmp`,
  '.walkeep-new',
  '.walkeep-spare',
];
const OTHERS = [
  ...[NAME, `${NAME}.partial`, `${NAME}.gz.partial`, '00000002.history'],
  ...['.walkeep-ledger', '.walkeep-lock', '.walkeep-refused-1-0-5000000'],
  ...[`.${NAME}.replaced`, `.${NAME}.gz.partial.replaced.2`, `.${NAME}.partial.pushed`],
  ...['.walkeep-fetch.1.z.tmp', `.${NAME}.gz.partial.tmpx`, `.walkeep-${NAME}.gzip`, '.other.tmp'],
  ...[`.${NAME}.tmp`, `.${NAME}.partial.tmp`, '.00000002.history.tmp'],
];

it('removes what a killed receiver left half made, and nothing else', async () => {
  const directory = scratchDir('leftovers');
  for (const name of [...UNDER_WAY, ...OTHERS]) writeFileSync(join(directory, name), 'x');
  await removeLeftovers(directory, nodeFileSystem);
  expect(readdirSync(directory).sort()).toEqual([...OTHERS].sort());
});

it('leaves alone what is no file of ours', async () => {
  const directory = scratchDir('leftovers');
  mkdirSync(join(directory, `.walkeep-${NAME}.gz`));
  symlinkSync('/etc/passwd', join(directory, '.walkeep-new'));
  await removeLeftovers(directory, nodeFileSystem);
  expect(readdirSync(directory)).toHaveLength(2);
});

it('says which one cannot be removed', async () => {
  const directory = scratchDir('leftovers');
  writeFileSync(join(directory, '.walkeep-spare'), 'x');
  const unlink = () => Promise.reject(Object.assign(new Error('EPERM'), { code: 'EPERM' }));
  await expect(removeLeftovers(directory, { ...nodeFileSystem, unlink })).rejects.toMatchObject({
    code: 'WK_STORAGE',
    path: join(directory, '.walkeep-spare'),
  });
});
