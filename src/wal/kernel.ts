import {
  add,
  and,
  type Code,
  call,
  extend,
  isAbove,
  isBelow,
  isEqual,
  isNot,
  type Local,
  leave,
  load,
  load16,
  load64,
  loadByte,
  shiftLeft,
  shiftLeft64,
  shiftRight,
  shiftRight64,
  store,
  storeAt,
  sub,
  wasmFunction,
  wasmModule,
  when,
  whileTrue,
  wrap,
  xor,
  xor64,
} from '../wasm/wasm-writer.js';
import { CRC_TABLES, LITTLE_ENDIAN_HOST } from './crc32c.js';
import { NOTED, RECORD_HEADER_SIZE, type RecordKinds, RM_XLOG, XLOG_SWITCH } from './record.js';
import { PLAIN_LENGTH } from './records/xact.js';

/**
 * The two loops in which checking WAL spends its time, as WebAssembly: about twice as fast as the
 * same in JavaScript (crc32c.ts, walker.ts), which stays for what is not in its memory.
 */
export interface WalKernel {
  /** All of its memory, and the same as words. */
  bytes: Uint8Array;
  words: Int32Array;
  /** updateCrc for bytes at `start` in this memory. */
  crc(state: number, start: number, end: number): number;
  /**
   * Steps over records in `[from, limit)` as long as they are whole, good and nothing special,
   * and returns where it stopped. `prev…` are the halves of the last record's LSN, `hi` and
   * `shift` make the LSN of an index. The last record's index is then in `words[LAST_RECORD]`.
   * A record of the kinds at the address `kinds` is special too, but for plain ends where those are
   * to be noted: their transactions are put behind what `takeEnded` has not taken yet.
   */
  records(
    from: number,
    limit: number,
    prevLo: number,
    prevHi: number,
    hi: number,
    shift: number,
    kinds: number,
  ): number;
  /** Where these kinds are in its memory, and none: undefined if there is no place left. */
  addressOf(kinds: RecordKinds | undefined): number | undefined;
  /** Calls `take` with the transactions that were noted; they stay only meanwhile. */
  takeEnded(take: (xids: Int32Array) => void): void;
}

/** CRC tables (see crc32c.ts), those that shift a CRC by one and two stripes, then a word. */
const SHIFT_ONE = 16 * 1024;
const SHIFT_TWO = SHIFT_ONE + 4 * 1024;
const LAST_RECORD_ADDRESS = SHIFT_TWO + 4 * 1024;
export const LAST_RECORD = LAST_RECORD_ADDRESS >> 2;

/** Where copies of other memory are checked, and what is read for that purpose (bytes). */
export const SCRATCH_START = 32 * 1024;
export const SCRATCH_SIZE = 64 * 1024;
export const BUFFER_START = SCRATCH_START + SCRATCH_SIZE;
export const BUFFER_SIZE = 512 * 1024;
export const BUFFERS = 3;
/** Up to 8 bytes behind a buffer are read, though they do not matter. */
const KINDS_START = BUFFER_START + BUFFERS * BUFFER_SIZE + 64;
const KINDS_SIZE = 4096;
/** The first are none. */
const MOST_KINDS = 7;
/** Behind a word that has the address of the next one. */
const ENDED_START = KINDS_START + MOST_KINDS * KINDS_SIZE;
const ENDED_SIZE = 64 * 1024;
/** Of 64 kB. */
const PAGES = Math.ceil((ENDED_START + ENDED_SIZE) / 65_536);

/** What the first half of a plain end's body is: see `isPlainBody`. */
const PLAIN_BODY = 0x08ff;

/**
 * Three stripes of this many bytes are taken at the same time: the CPU would otherwise wait for
 * each table entry before it could look up the next one. 4.0 GB/s instead of 2.6.
 */
const STRIPE = 128;

/** So many variables. */
type Variables<N extends number, All extends Local[] = []> = All['length'] extends N
  ? All
  : Variables<N, [...All, Local]>;

/** Entry of table `k` for byte `j` of `word`; `table` is the address of table 0. */
function entry(word: Local, j: number, k: number, table = 0): Code {
  // Four times the byte, in one shift and one mask.
  const index = j === 0 ? shiftLeft(word.get, 2) : shiftRight(word.get, 8 * j - 2);
  return load(and(index, 1020), table + k * 1024);
}

/**
 * The CRC of `words`, of which the first already holds the state. That one comes last: it is what
 * the step before has just computed, and the CPU looks up the others meanwhile.
 */
function lookup(words: readonly Local[]): Code {
  const parts = words.flatMap((word, i) =>
    [0, 1, 2, 3].map((j) => entry(word, j, 4 * (words.length - i) - 1 - j)),
  );
  const [first, ...others] = parts.reverse();
  return xor(first!, ...others);
}

/** `shift(state)`: the state after as many zero bytes as the table stands for. */
function shifted(state: Local, table: number): Code {
  return xor(entry(state, 0, 0, table), ...[1, 2, 3].map((j) => entry(state, j, j, table)));
}

/** Takes 8 bytes at `p + from` into the state `s`, by way of two words. */
function eight(s: Local, p: Local, from: number, x0: Local, x1: Local): Code {
  return [
    x0.set(xor(load(p.get, from), s.get)),
    x1.set(load(p.get, from + 4)),
    s.set(lookup([x0, x1])),
  ];
}

/** The state after `[at, end)` without stripes; moves `at`. */
function short(
  state: Local,
  at: Local,
  end: Local,
  [x0, x1, y0, y1]: readonly [Local, Local, Local, Local],
  last: Local,
): Code {
  const left = sub(end.get, at.get);
  const bits = shiftLeft(left, 3);
  return [
    whileTrue(
      isAbove(left, 15),
      x0.set(xor(load(at.get), state.get)),
      x1.set(load(at.get, 4)),
      y0.set(load(at.get, 8)),
      y1.set(load(at.get, 12)),
      state.set(lookup([x0, x1, y0, y1])),
      at.set(add(at.get, 16)),
    ),
    when(isAbove(left, 7), eight(state, at, 0, x0, x1), at.set(add(at.get, 8))),
    // The last 0 to 7 bytes as the end of 8 that begin with zeros, which change nothing: no branch
    // that the CPU could not foresee. Shifted in two steps, since none shifts by 64.
    last.set(xor64(load64(at.get), extend(state.get))),
    last.set(shiftLeft64(shiftLeft64(last.get, 8), sub(56, bits))),
    x0.set(wrap(last.get)),
    x1.set(wrap(shiftRight64(last.get, 32))),
    xor(lookup([x0, x1]), wrap(shiftRight64(extend(state.get), bits))),
  ];
}

const crcFunction = wasmFunction('crc', [3, 9, 1], (...variables) => {
  const [state, at, end, b, c, x0, x1, y0, y1, z0, z1, stop, last] =
    variables as unknown as Variables<13>;
  const step = (bytes: number): Code => at.set(add(at.get, bytes));
  return [
    whileTrue(
      isAbove(sub(end.get, at.get), 3 * STRIPE - 1),
      b.set(0),
      c.set(0),
      stop.set(add(at.get, STRIPE)),
      whileTrue(
        isBelow(at.get, stop.get),
        eight(state, at, 0, x0, x1),
        eight(b, at, STRIPE, y0, y1),
        eight(c, at, 2 * STRIPE, z0, z1),
        step(8),
      ),
      state.set(xor(shifted(state, SHIFT_TWO), shifted(b, SHIFT_ONE), c.get)),
      step(2 * STRIPE),
    ),
    short(state, at, end, [x0, x1, y0, y1], last),
  ];
});

const recordsFunction = wasmFunction('records', [7, 12, 1], (...variables) => {
  const [
    at,
    limit,
    prevLo,
    prevHi,
    hi,
    shift,
    kinds,
    length,
    next,
    kind,
    end,
    x0,
    x1,
    x2,
    x3,
    state,
    p,
    special,
    ended,
    last,
  ] = variables as unknown as Variables<20>;
  const left = sub(limit.get, at.get);
  const stopIf = (condition: Code): Code => when(condition, leave(at.get));
  return [
    whileTrue(
      isAbove(left, RECORD_HEADER_SIZE - 1),
      length.set(load(at.get)),
      // One comparison for both bounds: what is below the header's size wraps around.
      stopIf(isAbove(sub(length.get, RECORD_HEADER_SIZE), sub(left, RECORD_HEADER_SIZE))),
      end.set(add(at.get, length.get)),
      // An index and its LSN agree modulo 4 only.
      next.set(add(at.get, and(add(length.get, 7), -8))),
      stopIf(isAbove(next.get, limit.get)),
      stopIf(isNot(load(at.get, 8), prevLo.get)),
      stopIf(isNot(load(at.get, 12), prevHi.get)),
      kind.set(load(at.get, 16)),
      // Two bytes that must be zero, then xl_rmid and xl_info.
      stopIf(shiftRight(kind.get, 16)),
      stopIf(isEqual(and(kind.get, 0xfff0), (RM_XLOG << 8) | XLOG_SWITCH)),
      special.set(loadByte(add(kinds.get, shiftRight(kind.get, 4)))),
      when(
        special.get,
        stopIf(isNot(special.get, NOTED)),
        stopIf(isNot(length.get, PLAIN_LENGTH)),
        stopIf(isNot(load16(at.get, RECORD_HEADER_SIZE), PLAIN_BODY)),
        ended.set(load(and(at.get, 0), ENDED_START)),
        stopIf(isEqual(ended.get, ENDED_START + ENDED_SIZE)),
      ),
      // The body first, then the header up to its CRC.
      state.set(-1),
      p.set(add(at.get, RECORD_HEADER_SIZE)),
      // A call costs as much as the CRC of a short record.
      when(
        isAbove(length.get, RECORD_HEADER_SIZE + 3 * STRIPE - 1),
        state.set(call(0, -1, p.get, end.get)),
        p.set(end.get),
      ),
      state.set(short(state, p, end, [x0, x1, x2, x3], last)),
      x0.set(xor(length.get, state.get)),
      x1.set(load(at.get, 4)),
      x2.set(prevLo.get),
      x3.set(prevHi.get),
      x0.set(xor(lookup([x0, x1, x2, x3]), kind.get)),
      stopIf(isNot(xor(lookup([x0]), -1), load(at.get, 20))),
      when(special.get, storeAt(ended.get, load(at.get, 4)), store(ENDED_START, add(ended.get, 4))),
      store(LAST_RECORD_ADDRESS, at.get),
      prevLo.set(add(at.get, shift.get)),
      prevHi.set(hi.get),
      at.set(next.get),
    ),
    at.get,
  ];
});

/** A CRC state after `bytes` zero bytes. */
function shiftState(state: number, bytes: number): number {
  let crc = state;
  for (let i = 0; i < bytes; i++) crc = (crc >>> 8) ^ CRC_TABLES[crc & 255]!;
  return crc;
}

/** Tables for `shifted`: entry `j * 256 + b` is what byte `j` of the state contributes. */
function shiftTables(bytes: number): Int32Array {
  const tables = new Int32Array(4 * 256);
  for (let bit = 0; bit < 32; bit++) {
    const shifted = shiftState(1 << bit, bytes);
    // Its entry, and with it those of all bytes that have lower bits, too.
    const at = (bit >> 3) * 256;
    const value = 1 << (bit & 7);
    for (let rest = 0; rest < value; rest++) {
      tables[at + value + rest] = tables[at + rest]! ^ shifted;
    }
  }
  return tables;
}

/** What is used of the global WebAssembly, which the types of Node.js leave to those of browsers. */
interface WebAssemblyApi {
  Module: new (bytes: Uint8Array) => object;
  Instance: new (module: object) => { exports: unknown };
}

function makeKernel(): WalKernel | undefined {
  const { WebAssembly } = globalThis as { WebAssembly?: WebAssemblyApi };
  if (!LITTLE_ENDIAN_HOST || !WebAssembly) return undefined;
  try {
    const module = new WebAssembly.Module(wasmModule(PAGES, [crcFunction, recordsFunction]));
    const { memory, crc, records } = new WebAssembly.Instance(module).exports as Pick<
      WalKernel,
      'crc' | 'records'
    > & { memory: { buffer: ArrayBuffer } };
    const words = new Int32Array(memory.buffer);
    words.set(CRC_TABLES);
    words.set(shiftTables(STRIPE), SHIFT_ONE >> 2);
    words.set(shiftTables(2 * STRIPE), SHIFT_TWO >> 2);
    const bytes = new Uint8Array(memory.buffer);
    const placed: (RecordKinds | undefined)[] = [undefined];
    const addressOf = (kinds: RecordKinds | undefined): number | undefined => {
      let at = placed.indexOf(kinds);
      if (at < 0) {
        if (placed.length === MOST_KINDS) return undefined;
        at = placed.push(kinds) - 1;
        bytes.set(kinds as RecordKinds, KINDS_START + at * KINDS_SIZE);
      }
      return KINDS_START + at * KINDS_SIZE;
    };
    const endedWord = ENDED_START >> 2;
    words[endedWord] = ENDED_START + 4;
    const takeEnded = (take: (xids: Int32Array) => void): void => {
      const end = words[endedWord]! >> 2;
      words[endedWord] = ENDED_START + 4;
      if (end > endedWord + 1) take(words.subarray(endedWord + 1, end));
    };
    return { bytes, words, crc, records, addressOf, takeEnded };
  } catch {
    // Not allowed to compile code at run time (node --jitless).
    return undefined;
  }
}

/**
 * The thread's kernel; undefined before `loadKernel`, and where WebAssembly is not to be had. Of its memory the tables are its
 * own, the scratch part belongs to `readChunk` for the time of a call, and the buffers are lent out as
 * `WAL_BUFFERS` (chunk.ts).
 */
export let KERNEL: WalKernel | undefined;

let isLoaded = false;

/** Compiles the kernel at the first call: who only asks for names or positions does without it. */
export function loadKernel(): WalKernel | undefined {
  if (!isLoaded) KERNEL = makeKernel();
  isLoaded = true;
  return KERNEL;
}
