/**
 * Just enough of a WebAssembly encoder (WebAssembly Core Specification, "Binary Format") for one
 * small module of functions on i32, with i64 in between. An instruction is its bytes; instructions
 * nest as expressions, and stay nested until the module is written: this runs at every start.
 */
export type Code = readonly (number | Code)[];

const I32 = 0x7f;
const I64 = 0x7e;
const NO_RESULT = 0x40;

function unsigned(n: number): number[] {
  const bytes: number[] = [];
  let rest = n;
  do {
    bytes.push((rest & 127) | (rest > 127 ? 128 : 0));
    rest >>>= 7;
  } while (rest > 0);
  return bytes;
}

function signed(n: number): number[] {
  const bytes: number[] = [];
  for (let rest = n; ; ) {
    const byte = rest & 127;
    rest >>= 7;
    const done = (rest === 0 && (byte & 64) === 0) || (rest === -1 && (byte & 64) !== 0);
    bytes.push(done ? byte : byte | 128);
    if (done) return bytes;
  }
}

/** The bytes one behind the other, appended to `out`. */
function flatten(code: Code, out: number[] = []): number[] {
  for (const part of code) {
    if (typeof part === 'number') out.push(part);
    else flatten(part, out);
  }
  return out;
}

const value = (operand: Code | number): Code =>
  typeof operand === 'number' ? [0x41, signed(operand)] : operand;
const binary =
  (opcode: number) =>
  (a: Code | number, b: Code | number): Code => [value(a), value(b), opcode];

export const add = binary(0x6a);
export const sub = binary(0x6b);
export const mul = binary(0x6c);
/** Unsigned. */
export const divide = binary(0x6e);
export const and = binary(0x71);
export const or = binary(0x72);
export const shiftLeft = binary(0x74);
export const shiftRight = binary(0x76);
export const isEqual = binary(0x46);
export const isNot = binary(0x47);
/** Unsigned. */
export const isBelow = binary(0x49);
/** Unsigned. */
export const isAbove = binary(0x4b);
const xor2 = binary(0x73);

export function xor(first: Code, ...others: readonly (Code | number)[]): Code {
  return others.reduce<Code>((all, next) => xor2(all, next), first);
}

/** The little-endian word at `address + offset`, aligned or not. */
export function load(address: Code, offset = 0): Code {
  return [address, 0x28, 0, unsigned(offset)];
}

export function loadByte(address: Code, offset = 0): Code {
  return [address, 0x2d, 0, unsigned(offset)];
}

export function load16(address: Code, offset = 0): Code {
  return [address, 0x2f, 0, unsigned(offset)];
}

export function load64(address: Code, offset = 0): Code {
  return [address, 0x29, 0, unsigned(offset)];
}

/** i32 to i64, unsigned. */
export function extend(operand: Code): Code {
  return [operand, 0xad];
}

/** The lower half of an i64. */
export function wrap(operand: Code): Code {
  return [operand, 0xa7];
}

/** An i64 shifted by an i32. */
export const shiftLeft64 = (a: Code, bits: Code | number): Code => [a, extend(value(bits)), 0x86];
export const shiftRight64 = (a: Code, bits: Code | number): Code => [a, extend(value(bits)), 0x88];
export const xor64 = (a: Code, b: Code): Code => [a, b, 0x85];
export const add64 = (a: Code, b: Code): Code => [a, b, 0x7c];
export const mul64 = (a: Code, b: Code): Code => [a, b, 0x7e];
/** 1 if it is 0, otherwise 0. */
export const not = (a: Code): Code => [a, 0x45];
/** Of an i64, as an i32. */
export const isNotZero64 = (a: Code): Code => [a, long(0n), 0x52];
/** Of an i64, as an i32: how many bits below the lowest one that is set. */
export const trailingZeros64 = (a: Code): Code => wrap([a, 0x7a]);
export const rotateLeft64 = (a: Code, bits: number): Code => [a, long(BigInt(bits)), 0x89];

/** An i64, of which only the lower 64 bits count. */
export function long(n: bigint): Code {
  const bytes: number[] = [];
  for (let rest = BigInt.asIntN(64, n); ; ) {
    const byte = Number(rest & 127n);
    rest >>= 7n;
    const done = (rest === 0n && (byte & 64) === 0) || (rest === -1n && (byte & 64) !== 0);
    bytes.push(done ? byte : byte | 128);
    if (done) return [0x42, bytes];
  }
}

export function store(address: number, word: Code): Code {
  return [value(0), word, 0x36, 2, unsigned(address)];
}

/** Stores a word at an address that is computed, aligned or not. */
export function storeAt(address: Code, word: Code): Code {
  return [address, word, 0x36, 0, unsigned(0)];
}

export function store16At(address: Code, half: Code): Code {
  return [address, half, 0x3b, 0, unsigned(0)];
}

export function storeByteAt(address: Code, byte: Code | number): Code {
  return [address, value(byte), 0x3a, 0, unsigned(0)];
}

/** Stores an i64, aligned or not. */
export function store64At(address: Code, long: Code): Code {
  return [address, long, 0x37, 0, unsigned(0)];
}

/** Leaves the function with a result. */
export function leave(result: Code): Code {
  return [result, 0x0f];
}

/** Calls a function of the module by its number. */
export function call(index: number, ...operands: readonly (Code | number)[]): Code {
  return [operands.map(value), 0x10, unsigned(index)];
}

/** Runs `body` if `condition` is not 0. */
export function when(condition: Code, ...body: readonly Code[]): Code {
  return [condition, 0x04, NO_RESULT, body, 0x0b];
}

/** Runs `body` as long as `condition` is not 0. */
export function whileTrue(condition: Code, ...body: readonly Code[]): Code {
  // Inside `if` the loop is the second label from within.
  const again: Code = [0x0c, 1];
  return [0x03, NO_RESULT, when(condition, ...body, again), 0x0b];
}

/** A local variable or parameter of a function. */
export interface Local {
  get: Code;
  set(value: Code | number): Code;
}

/** Leaves the loop in whose body it stands if `condition` is not 0. */
export function endIf(condition: Code): Code {
  return [condition, 0x0d, 0];
}

/** Begins the next round of the loop in whose body it stands if `condition` is not 0. */
export function againIf(condition: Code): Code {
  return [condition, 0x0d, 1];
}

/** One function: its parameters and the last instruction's value are i32. */
export interface WasmFunction {
  name: string;
  parameters: number;
  locals: number;
  longs: number;
  body: Code;
}

/**
 * Declares a function; `build` gets its parameters, then so many other variables of i32, then
 * those of i64.
 */
export function wasmFunction(
  name: string,
  [parameters, locals, longs]: readonly [number, number, number],
  build: (...variables: Local[]) => Code,
): WasmFunction {
  const variables = Array.from({ length: parameters + locals + longs }, (_, i) => ({
    get: [0x20, unsigned(i)],
    set: (to: Code | number): Code => [value(to), 0x21, unsigned(i)],
  }));
  return { name, parameters, locals, longs, body: build(...variables) };
}

/** Behind the number of its bytes. */
const sized = (content: Code): Code => {
  const bytes = flatten(content);
  return [unsigned(bytes.length), bytes];
};
/** Behind the number of its items. */
const list = (items: readonly Code[]): Code => [unsigned(items.length), items];
const text = (name: string): Code => sized([...new TextEncoder().encode(name)]);

/** A module that exports its functions and one memory, `memory`, of `pages` times 64 kB. */
export function wasmModule(pages: number, functions: readonly WasmFunction[]): Uint8Array {
  const section = (id: number, content: Code): Code => [id, sized(content)];
  const type = (f: WasmFunction): Code => {
    const parameters = new Array<number>(f.parameters).fill(I32);
    return [0x60, sized(parameters), 1, I32];
  };
  const code = (f: WasmFunction): Code => {
    const locals = [unsigned(f.locals), I32, unsigned(f.longs), I64];
    return sized([2, locals, f.body, 0x0b]);
  };
  return new Uint8Array(
    flatten([
      [0, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
      section(1, list(functions.map(type))),
      section(3, list(functions.map((_, i) => unsigned(i)))),
      section(5, list([[1, unsigned(pages), unsigned(pages)]])),
      section(
        7,
        list([[text('memory'), 2, 0], ...functions.map((f, i) => [text(f.name), 0, unsigned(i)])]),
      ),
      section(10, list(functions.map(code))),
    ]),
  );
}
