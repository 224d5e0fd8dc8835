import {
  add,
  and,
  type Code,
  divide,
  isAbove,
  isBelow,
  isEqual,
  type Local,
  leave,
  load16,
  load64,
  loadByte,
  mul,
  or,
  shiftRight,
  store64At,
  storeByteAt,
  sub,
  type WasmFunction,
  wasmFunction,
  wasmModule,
  when,
  whileTrue,
} from '../../wasm/wasm-writer.js';
import { BLOCK_FAULTS, type BlockFault, decompressBlock, MIN_MATCH, malformed } from './block.js';

/** What decompresses the blocks of one frame. */
export interface Lz4Decoder {
  /** Where the output goes, behind what it may refer to. */
  output: Uint8Array;
  /**
   * Decompresses a block to `output[start, limit)`; returns the end of what it gave.
   * @throws RangeError if the block is damaged
   */
  block(src: Uint8Array, start: number, limit: number): number;
  /** It may be used for another frame. */
  release(): void;
}

/** Copies go by 8 bytes: so many behind input and output may be read and overwritten. */
const SLACK = 16;
const WASM_PAGE = 65_536;

/** The WebAssembly of `decompressBlock`: input `[at, end)`, output from `out`, back to `low`. */
function decodeFunction(): WasmFunction {
  return wasmFunction('decode', [5, 6, 0], (...variables) => {
    const [at, end, out, limit, low, token, n, more, from, stop, distance] =
      variables as unknown as readonly [
        ...[Local, Local, Local, Local, Local, Local],
        ...[Local, Local, Local, Local, Local],
      ];
    const failIf = (condition: Code, fault: BlockFault): Code =>
      when(condition, leave(sub(-1, BLOCK_FAULTS.indexOf(fault))));
    const step = (local: Local, by: Code | number): Code => local.set(add(local.get, by));
    /** The rest of a length of which the token holds 15. */
    const longer = when(
      isEqual(n.get, 15),
      more.set(255),
      whileTrue(
        isEqual(more.get, 255),
        failIf(isEqual(at.get, end.get), 'length'),
        more.set(loadByte(at.get)),
        step(at, 1),
        step(n, more.get),
      ),
    );
    const copyByEight = (source: Local): Code =>
      whileTrue(
        isBelow(out.get, stop.get),
        store64At(out.get, load64(source.get)),
        step(out, 8),
        step(source, 8),
      );
    return [
      whileTrue(
        isBelow(at.get, end.get),
        token.set(loadByte(at.get)),
        step(at, 1),
        n.set(shiftRight(token.get, 4)),
        longer,
        failIf(
          or(isAbove(n.get, sub(end.get, at.get)), isAbove(n.get, sub(limit.get, out.get))),
          'literals',
        ),
        from.set(at.get),
        stop.set(add(out.get, n.get)),
        copyByEight(from),
        out.set(stop.get),
        step(at, n.get),
        when(isEqual(at.get, end.get), leave(out.get)),
        failIf(isBelow(sub(end.get, at.get), 2), 'cut'),
        distance.set(load16(at.get)),
        step(at, 2),
        n.set(and(token.get, 15)),
        longer,
        step(n, MIN_MATCH),
        failIf(
          or(isEqual(distance.get, 0), isAbove(distance.get, sub(out.get, low.get))),
          'offset',
        ),
        failIf(isAbove(n.get, sub(limit.get, out.get)), 'match'),
        from.set(sub(out.get, distance.get)),
        stop.set(add(out.get, n.get)),
        when(
          isBelow(distance.get, 8),
          // Eight bytes singly; what follows repeats from a multiple of the distance further back.
          more.set(add(out.get, 8)),
          whileTrue(
            isBelow(out.get, more.get),
            storeByteAt(out.get, loadByte(from.get)),
            step(out, 1),
            step(from, 1),
          ),
          from.set(sub(out.get, mul(divide(add(distance.get, 7), distance.get), distance.get))),
        ),
        copyByEight(from),
        out.set(stop.get),
      ),
      sub(-1, BLOCK_FAULTS.indexOf('end')),
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
  decode(at: number, end: number, out: number, limit: number, low: number): number;
}

/**
 * The decoder that is between two frames: compiling one costs as much as a small frame. Who takes it
 * owns it until it is released.
 */
class SpareDecoder {
  /** How large its blocks may be, and its output is. */
  private spare: { decoder: Lz4Decoder; blockSize: number; outputSize: number } | undefined;

  take(blockSize: number, outputSize: number): Lz4Decoder | undefined {
    const { spare } = this;
    if (!spare || spare.blockSize < blockSize || spare.outputSize < outputSize) return undefined;
    this.spare = undefined;
    return spare.decoder;
  }

  giveBack(decoder: Lz4Decoder, blockSize: number, outputSize: number): void {
    this.spare ??= { decoder, blockSize, outputSize };
  }
}

const SPARE = new SpareDecoder();

/**
 * A decoder for blocks of up to `blockSize` bytes, compressed or not, and `outputSize` bytes of
 * output. In WebAssembly, three times as fast and fast from the start, where that is to be had.
 */
export function takeLz4Decoder(blockSize: number, outputSize: number): Lz4Decoder {
  const spare = SPARE.take(blockSize, outputSize);
  if (spare) return spare;
  try {
    return makeKernel(blockSize, outputSize);
  } catch {
    // Not allowed to compile code at run time (node --jitless), or no memory of that kind.
    const output = new Uint8Array(outputSize);
    return {
      output,
      block: (src, start, limit) => decompressBlock(src, output.subarray(0, limit), start),
      release() {},
    };
  }
}

function makeKernel(blockSize: number, outputSize: number): Lz4Decoder {
  const { WebAssembly } = globalThis as unknown as { WebAssembly: WebAssemblyApi };
  const low = blockSize + SLACK;
  const pages = Math.ceil((low + outputSize + SLACK) / WASM_PAGE);
  const module = new WebAssembly.Module(wasmModule(pages, [decodeFunction()]));
  const { memory, decode } = new WebAssembly.Instance(module).exports as Exports;
  const bytes = new Uint8Array(memory.buffer);
  const decoder: Lz4Decoder = {
    output: bytes.subarray(low, low + outputSize),
    block: (src, start, limit) => {
      if (src.length > blockSize || limit > outputSize)
        throw new RangeError('an LZ4 block is too large');
      bytes.set(src);
      const end = decode(0, src.length, low + start, low + limit, low);
      return end < 0 ? malformed(BLOCK_FAULTS[-1 - end] as BlockFault) : end - low;
    },
    release: () => SPARE.giveBack(decoder, blockSize, outputSize),
  };
  return decoder;
}
