import { expect, test } from 'vitest';
import { CorruptObjectError } from '../../src/errors.js';
import { contentOf, provenContent } from '../../src/store/content.js';

const bytes = Buffer.from('content');

async function all(content: Parameters<typeof provenContent>[1]): Promise<string> {
  const pieces: Uint8Array[] = [];
  for await (const piece of provenContent('key', content)) pieces.push(piece);
  return Buffer.concat(pieces).toString();
}

test('content that is proven is not hashed again, but must have its size', async () => {
  const proven = { ...contentOf(bytes), sha256: '0'.repeat(64), proven: true as const };
  expect(await all(proven)).toBe('content');
  for (const size of [bytes.length - 1, bytes.length + 1]) {
    await expect(all({ ...proven, size })).rejects.toThrow(CorruptObjectError);
  }
  const { proven: _, ...other } = proven;
  await expect(all(other)).rejects.toThrow(CorruptObjectError);
});
