import fc from 'fast-check';

/** Changes to bytes: some overwritten, a piece cut out, something put in, the end cut off. */
export type Damage =
  | { kind: 'set'; at: number; bytes: Uint8Array }
  | { kind: 'cut'; at: number; length: number }
  | { kind: 'insert'; at: number; bytes: Uint8Array }
  | { kind: 'end'; at: number };

const place = fc.nat(1_000_000);
const few = fc.uint8Array({ minLength: 1, maxLength: 8 });
const damage: fc.Arbitrary<Damage> = fc.oneof(
  { weight: 5, arbitrary: fc.record({ kind: fc.constant('set' as const), at: place, bytes: few }) },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('cut' as const), at: place, length: fc.nat(64) }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant('insert' as const), at: place, bytes: few }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant('end' as const), at: place }) },
);

export const damages = (maxLength: number) => fc.array(damage, { maxLength });

/** A damaged copy. Places count modulo the length. */
export function spoil(bytes: Uint8Array, changes: readonly Damage[]): Buffer {
  let result = Buffer.from(bytes);
  for (const change of changes) {
    const at = change.at % (result.length + 1);
    if (change.kind === 'set') result.set(change.bytes.subarray(0, result.length - at), at);
    else if (change.kind === 'end') result = result.subarray(0, at);
    else {
      const put = change.kind === 'insert' ? change.bytes : new Uint8Array(0);
      const skip = change.kind === 'cut' ? change.length : 0;
      result = Buffer.concat([result.subarray(0, at), put, result.subarray(at + skip)]);
    }
  }
  return result;
}

/** The bytes in pieces of these sizes, over and over. */
export function* pieces(bytes: Buffer, sizes: readonly number[]): Generator<Buffer> {
  for (let at = 0, i = 0; at < bytes.length; i++) {
    const size = sizes[i % sizes.length] || bytes.length;
    yield bytes.subarray(at, at + size);
    at += size;
  }
}

/** Sizes of reads: whole, one byte at a time, or cut anywhere. */
export const cuts = fc.oneof(
  fc.constant([1 << 20]),
  fc.constant([1]),
  fc.array(fc.integer({ min: 1, max: 400 }), { minLength: 1, maxLength: 8 }),
);

/** Text that comes near to what a parser wants: parts of valid texts, and any characters. */
export const textOf = (parts: readonly string[], maxLength = 12) =>
  fc
    .array(
      fc.oneof(
        { weight: 6, arbitrary: fc.constantFrom(...parts) },
        { weight: 1, arbitrary: fc.string({ maxLength: 6, unit: 'binary' }) },
      ),
      { maxLength },
    )
    .map((words) => words.join(''));
