import {
  add,
  againIf,
  and,
  type Code,
  endIf,
  isAbove,
  isBelow,
  isEqual,
  isNot,
  isNotZero64,
  type Local,
  load,
  load64,
  loadByte,
  long,
  mul,
  not,
  or,
  shiftLeft,
  shiftRight,
  store16At,
  store64At,
  storeAt,
  storeByteAt,
  sub,
  trailingZeros64,
  type WasmFunction,
  wasmFunction,
  wasmModule,
  when,
  whileTrue,
  xor64,
} from '../../wasm/wasm-writer.js';
import {
  compressBlock,
  compressBound,
  FIRST_MISS,
  HASH_BITS,
  HASH_FACTOR,
  HASH_TABLE_SIZE,
  LAST_LITERALS,
  MATCH_LIMIT,
  MAX_OFFSET,
  MIN_MATCH,
  MISS_SHIFT,
} from './block.js';

/** Compresses blocks of one thread. */
export interface Lz4Encoder {
  /** The block, valid until the next one is made; what does not get smaller is longer than `src`. */
  block(src: Uint8Array): Uint8Array;
  /** It may be used for another frame. */
  release(): void;
}

/** The table lies at address 0: four bytes an entry. */
const TABLE = 4 * HASH_TABLE_SIZE;
/** Copies go by 8 bytes: so many behind input and output may be read and overwritten. */
const SLACK = 16;
const WASM_PAGE = 65_536;

/** The WebAssembly of `compressBlock`: input `[src, end)`, output from `out`; gives its end. */
function encodeFunction(): WasmFunction {
  return wasmFunction('encode', [3, 9, 1], (...variables) => {
    const [src, end, out, at, anchor, from, word, slot, misses, n, p, token, difference] =
      variables as unknown as readonly [
        ...[Local, Local, Local, Local, Local, Local, Local],
        ...[Local, Local, Local, Local, Local, Local],
      ];
    const step = (local: Local, by: Code | number): Code => local.set(add(local.get, by));
    /** The rest of a length of which the token holds 15. */
    const longer: Code = [
      n.set(sub(n.get, 15)),
      whileTrue(
        isAbove(n.get, 254),
        storeByteAt(out.get, 255),
        step(out, 1),
        n.set(sub(n.get, 255)),
      ),
      storeByteAt(out.get, n.get),
      step(out, 1),
    ];
    /** Literals from `anchor` up to `p`, behind a token that is left open. */
    const literals: Code = [
      token.set(out.get),
      step(out, 1),
      n.set(sub(p.get, anchor.get)),
      storeByteAt(token.get, shiftLeft(n.get, 4)),
      when(isAbove(n.get, 14), storeByteAt(token.get, 0xf0), longer),
      n.set(add(out.get, sub(p.get, anchor.get))),
      whileTrue(
        isBelow(out.get, n.get),
        store64At(out.get, load64(anchor.get)),
        step(out, 8),
        step(anchor, 8),
      ),
      out.set(n.get),
    ];
    return [
      at.set(src.get),
      anchor.set(src.get),
      misses.set(FIRST_MISS),
      whileTrue(
        isBelow(at.get, sub(end.get, MATCH_LIMIT - 1)),
        word.set(load(at.get)),
        slot.set(shiftLeft(shiftRight(mul(word.get, HASH_FACTOR), 32 - HASH_BITS), 2)),
        from.set(load(slot.get)),
        storeAt(slot.get, at.get),
        p.set(at.get),
        step(at, shiftRight(misses.get, MISS_SHIFT)),
        step(misses, 1),
        // What the table was filled with lies before all input.
        againIf(or(isBelow(from.get, src.get), isAbove(sub(p.get, from.get), MAX_OFFSET))),
        againIf(isNot(load(from.get), word.get)),
        misses.set(FIRST_MISS),
        at.set(add(p.get, MIN_MATCH)),
        // Its begin, then its end.
        whileTrue(
          and(
            and(isAbove(p.get, anchor.get), isAbove(from.get, src.get)),
            isEqual(loadByte(sub(p.get, 1)), loadByte(sub(from.get, 1))),
          ),
          step(p, -1),
          step(from, -1),
        ),
        from.set(sub(p.get, from.get)),
        difference.set(long(0n)),
        whileTrue(
          isBelow(at.get, sub(end.get, LAST_LITERALS + 7)),
          difference.set(xor64(load64(at.get), load64(sub(at.get, from.get)))),
          step(at, shiftRight(trailingZeros64(difference.get), 3)),
          endIf(isNotZero64(difference.get)),
        ),
        when(
          not(isNotZero64(difference.get)),
          whileTrue(
            isBelow(at.get, sub(end.get, LAST_LITERALS)),
            endIf(isNot(loadByte(at.get), loadByte(sub(at.get, from.get)))),
            step(at, 1),
          ),
        ),
        literals,
        store16At(out.get, from.get),
        step(out, 2),
        n.set(sub(sub(at.get, p.get), MIN_MATCH)),
        when(isBelow(n.get, 15), storeByteAt(token.get, or(loadByte(token.get), n.get))),
        when(isAbove(n.get, 14), storeByteAt(token.get, or(loadByte(token.get), 15)), longer),
        anchor.set(at.get),
      ),
      p.set(end.get),
      literals,
      out.get,
    ];
  });
}

/** What is used of the global WebAssembly, which the types of Node.js leave to those of browsers. */
interface WebAssemblyApi {
  Module: new (bytes: Uint8Array) => object;
  Instance: new (module: object) => { exports: unknown };
}

interface Exports {
  memory: { buffer: ArrayBuffer };
  encode(src: number, end: number, out: number): number;
}

/** The encoder that is between two frames: whoever takes it owns it until it is released. */
class SpareEncoder {
  private spare: Lz4Encoder | undefined;
  private blockSize = 0;

  take(blockSize: number): Lz4Encoder | undefined {
    const { spare } = this;
    if (!spare || this.blockSize !== blockSize) return undefined;
    this.spare = undefined;
    return spare;
  }

  giveBack(encoder: Lz4Encoder, blockSize: number): void {
    this.spare = encoder;
    this.blockSize = blockSize;
  }
}

const SPARE = new SpareEncoder();

/**
 * An encoder for blocks of up to `blockSize` bytes. In WebAssembly, more than twice as fast, where
 * that is to be had.
 */
export function takeLz4Encoder(blockSize: number): Lz4Encoder {
  const spare = SPARE.take(blockSize);
  if (spare) return spare;
  try {
    return makeKernel(blockSize);
  } catch {
    // Not allowed to compile code at run time (node --jitless), or no memory of that kind.
    const table = new Int32Array(HASH_TABLE_SIZE);
    const out = new Uint8Array(compressBound(blockSize));
    return { block: (src) => out.subarray(0, compressBlock(src, out, table)), release() {} };
  }
}

function makeKernel(blockSize: number): Lz4Encoder {
  const { WebAssembly } = globalThis as unknown as { WebAssembly: WebAssemblyApi };
  const start = TABLE + blockSize + SLACK;
  const pages = Math.ceil((start + compressBound(blockSize) + SLACK) / WASM_PAGE);
  const module = new WebAssembly.Module(wasmModule(pages, [encodeFunction()]));
  const { memory, encode } = new WebAssembly.Instance(module).exports as Exports;
  const bytes = new Uint8Array(memory.buffer);
  const encoder: Lz4Encoder = {
    block: (src) => {
      if (src.length > blockSize) throw new RangeError('an LZ4 block is too large');
      bytes.fill(0, 0, TABLE);
      bytes.set(src, TABLE);
      return bytes.subarray(start, encode(TABLE, TABLE + src.length, start));
    },
    release: () => SPARE.giveBack(encoder, blockSize),
  };
  return encoder;
}
