import { expect, it } from 'vitest';
import { lostSectorsOnly } from '../../../src/receive/target/lost-sectors.js';

const NEWS = Buffer.from(Array.from({ length: 2048 }, (_, i) => (i * 7) % 256 || 1));

const stored = (change: (bytes: Buffer) => void): Buffer => {
  const bytes = Buffer.from(NEWS);
  change(bytes);
  return bytes;
};

// What of 2048 bytes at a position of the file is another, and what that is.
it.each([
  ['nothing', 0, stored(() => {}), true],
  ['a sector of zeros', 0, stored((b) => b.fill(0, 512, 1024)), true],
  ['two of them, apart', 0, stored((b) => b.fill(0, 0, 512).fill(0, 1024, 1536)), true],
  ['all', 0, Buffer.alloc(2048), true],
  ['the end of a sector', 0, stored((b) => b.fill(0, 700, 1024)), true],
  ['the end of the last one', 0, stored((b) => b.fill(0, 2047)), true],
  [
    'zeros to the end of a sector, which lies elsewhere',
    100,
    stored((b) => b.fill(0, 200, 412)),
    true,
  ],
  ['zeros up to no end of a sector', 100, stored((b) => b.fill(0, 200, 512)), false],
  ['one byte', 0, stored((b) => b.fill(0, 700, 701)), false],
  ['zeros with something behind them in the sector', 0, stored((b) => b.fill(0, 600, 1023)), false],
  ['a byte that is not zero', 0, stored((b) => b.fill(0, 512, 1024).fill(9, 1023, 1024)), false],
])('%s', (_name, position, bytes, lost) => {
  expect(lostSectorsOnly(bytes, NEWS, position)).toBe(lost);
});
