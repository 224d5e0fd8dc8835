import { randomBytes } from 'node:crypto';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { setImmediate as turn } from 'node:timers/promises';
import { expect, it } from 'vitest';
import { compressFile } from '../../src/codec/codec.js';
import { type FileSystem, nodeFileSystem } from '../../src/files/file-system.js';
import { scratchDir } from '../support/scratch.js';

it('closes no file while a write to it is under way', async () => {
  const directory = scratchDir('through');
  const source = join(directory, 'plain');
  const length = 1 << 20;
  writeFileSync(source, randomBytes(length));
  const order: string[] = [];
  let writing = (): void => {};
  const began = new Promise<void>((resolve) => {
    writing = resolve;
  });
  let failed = (): void => {};
  const broken = new Promise<void>((resolve) => {
    failed = resolve;
  });
  const fs: FileSystem = {
    ...nodeFileSystem,
    async read(fd, buffer, size, position) {
      if (position === 0) return nodeFileSystem.read(fd, buffer, size, position);
      await began;
      failed();
      throw Object.assign(new Error('EIO'), { code: 'EIO' });
    },
    async writev(fd, buffers, position) {
      writing();
      await broken;
      // Whoever waits for nothing but the failure goes on by now.
      for (let n = 0; n < 20; n++) await turn();
      order.push('written');
      return nodeFileSystem.writev(fd, buffers, position);
    },
    close(fd) {
      order.push('closed');
      return nodeFileSystem.close(fd);
    },
  };
  const compressed = compressFile(source, join(directory, 'c.gz'), length, { method: 'gzip', fs });
  await expect(compressed).rejects.toMatchObject({ code: 'WK_STORAGE' });
  expect(order).toEqual(['written', 'closed', 'closed']);
});
