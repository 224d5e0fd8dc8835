import fc from 'fast-check';
import { expect, it } from 'vitest';
import { UsageError } from '../../src/errors.js';
import { compareKeys, isKey, requireKey, requirePrefix } from '../../src/store/key.js';

const text = fc.string({ unit: 'binary', maxLength: 12 });

it('sorts keys as their bytes in UTF-8 sort', () => {
  fc.assert(
    fc.property(text, text, (a, b) => {
      const expected = Buffer.compare(Buffer.from(a), Buffer.from(b));
      expect(Math.sign(compareKeys(a, b))).toBe(expected);
      expect(compareKeys(a, a)).toBe(0);
    }),
    {
      numRuns: 2000,
      examples: [
        ['\u{ffff}', '\u{10000}'],
        ['a', 'ab'],
        ['\ud7ff', '\ue000'],
      ],
    },
  );
});

it('takes a key only if it stays what it is as a path', () => {
  const part = fc.oneof(fc.constantFrom('.', '..', '', 'a', '.walkeep-store'), text);
  fc.assert(
    fc.property(fc.array(part, { minLength: 1, maxLength: 4 }), (parts) => {
      const key = parts.join('/');
      if (!isKey(key)) {
        expect(() => requireKey(key)).toThrow(UsageError);
        return;
      }
      requireKey(key);
      expect(new URL(`file:///root/${encodeURIComponent(key)}`).href).not.toBe('file:///');
      expect(key.split('/').every((p) => p !== '' && p !== '.' && p !== '..')).toBe(true);
      expect(Buffer.from(key).toString()).toBe(key);
      // Whatever it begins with may be asked for.
      const characters = [...key];
      for (let i = 0; i <= characters.length; i++) requirePrefix(characters.slice(0, i).join(''));
    }),
    { numRuns: 2000 },
  );
});
