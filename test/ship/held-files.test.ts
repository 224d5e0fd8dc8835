import { expect, test } from 'vitest';
import type { HeldFile } from '../../src/archive/shipping/progress.js';
import { StorageError } from '../../src/errors.js';
import { HeldFiles } from '../../src/ship/held-files.js';
import type { ShipState } from '../../src/ship/state.js';

test('another trouble of a file is news, also where another file has the same', () => {
  const progress = { held: [] as HeldFile[] };
  const setHeld = (held: HeldFile[]) => void Object.assign(progress, { held });
  const files = new HeldFiles({ progress, setHeld } as unknown as ShipState);
  expect(files.hold('a', new StorageError('cut'))).toBe(true);
  expect(files.hold('b', new StorageError('damaged'))).toBe(true);
  expect(files.hold('b', new StorageError('damaged'))).toBe(false);
  expect(files.hold('a', new StorageError('damaged'))).toBe(true);
  expect(progress.held.map(({ name, message }) => [name, message])).toEqual([
    ['b', 'damaged'],
    ['a', 'damaged'],
  ]);
});
