import {
  add,
  add64,
  type Code,
  isBelow,
  load64,
  long,
  mul64,
  rotateLeft64,
  store64At,
  wasmFunction,
  wasmModule,
  whileTrue,
} from '../../wasm/wasm-writer.js';

const [P1, P2, P3, P4, P5]: readonly [bigint, bigint, bigint, bigint, bigint] = [
  0x9e3779b185ebca87n,
  0xc2b2ae3d27d4eb4fn,
  0x165667b19e3779f9n,
  0x85ebca77c2b2ae63n,
  0x27d4eb2f165667c5n,
];

const u64 = (n: bigint): bigint => BigInt.asUintN(64, n);
const rotate = (n: bigint, bits: bigint): bigint => u64((n << bits) | (n >> (64n - bits)));
const round = (lane: bigint, word: bigint): bigint => u64(rotate(u64(lane + word * P2), 31n) * P1);

/** Bytes that four lanes take at a time. */
const STRIPE = 32;

/** Runs the four lanes over whole stripes. */
interface Lanes {
  state: BigUint64Array;
  run(stripes: Uint8Array): void;
}

/** In WebAssembly: what JavaScript has for 64 bits is a hundred times slower. */
function makeLanes(): Lanes {
  const { WebAssembly } = globalThis as unknown as { WebAssembly: WebAssemblyApi };
  const module = new WebAssembly.Module(wasmModule(PAGES, [stripesFunction()]));
  const { memory, stripes } = new WebAssembly.Instance(module).exports as {
    memory: { buffer: ArrayBuffer };
    stripes(at: number, end: number): number;
  };
  const input = new Uint8Array(memory.buffer, STRIPE);
  const room = input.length - (input.length % STRIPE);
  return {
    state: new BigUint64Array(memory.buffer, 0, 4),
    run(bytes) {
      for (let at = 0; at < bytes.length; at += room) {
        const part = bytes.subarray(at, at + room);
        input.set(part);
        stripes(STRIPE, STRIPE + part.length);
      }
    },
  };
}

const PAGES = 2;

/** From `at` to `end` of the memory, which begins with the lanes. */
function stripesFunction() {
  return wasmFunction('stripes', [2, 0, 4], (at, end, ...lanes) => {
    const addresses = lanes.map((_, i): Code => [0x41, 8 * i]);
    return [
      ...lanes.map((lane, i) => lane.set(load64(addresses[i] as Code))),
      whileTrue(
        isBelow(at!.get, end!.get),
        ...lanes.map((lane, i) => {
          const sum = add64(lane.get, mul64(load64(at!.get, 8 * i), long(P2)));
          return lane.set(mul64(rotateLeft64(sum, 31), long(P1)));
        }),
        at!.set(add(at!.get, STRIPE)),
      ),
      ...lanes.map((lane, i) => store64At(addresses[i] as Code, lane.get)),
      at!.get,
    ];
  });
}

/** Without it (node --jitless). */
function slowLanes(): Lanes {
  const state = new BigUint64Array(4);
  return {
    state,
    run(bytes) {
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
      for (let at = 0; at < bytes.length; at += 8) {
        const lane = (at % STRIPE) / 8;
        state[lane] = round(state[lane] as bigint, view.getBigUint64(at, true));
      }
    },
  };
}

interface WebAssemblyApi {
  Module: new (code: Uint8Array) => unknown;
  Instance: new (module: unknown) => { exports: unknown };
}

/** One for the process; who uses it puts its own state in and takes it out again. */
let lanes: Lanes | undefined;

function theLanes(): Lanes {
  try {
    lanes ??= makeLanes();
  } catch {
    lanes ??= slowLanes();
  }
  return lanes;
}

/** xxHash with 64 bits and seed 0 (xxhash_spec.md), the checksum of zstd's content. */
export class Xxh64 {
  readonly #state = [u64(P1 + P2), P2, 0n, u64(-P1)];
  readonly #rest = new Uint8Array(STRIPE);
  #have = 0;
  #total = 0n;

  update(bytes: Uint8Array): void {
    this.#total += BigInt(bytes.length);
    let at = 0;
    if (this.#have > 0) {
      at = Math.min(STRIPE - this.#have, bytes.length);
      this.#rest.set(bytes.subarray(0, at), this.#have);
      this.#have += at;
      if (this.#have < STRIPE) return;
      this.#run(this.#rest);
    }
    const whole = bytes.length - ((bytes.length - at) % STRIPE);
    if (whole > at) this.#run(bytes.subarray(at, whole));
    this.#rest.set(bytes.subarray(whole));
    this.#have = bytes.length - whole;
  }

  #run(stripes: Uint8Array): void {
    const { state, run } = theLanes();
    state.set(this.#state);
    run(stripes);
    this.#state.splice(0, 4, ...state);
  }

  digest(): bigint {
    const [a = 0n, b = 0n, c = 0n, d = 0n] = this.#state;
    let hash = P5;
    if (this.#total >= STRIPE) {
      hash = u64(rotate(a, 1n) + rotate(b, 7n) + rotate(c, 12n) + rotate(d, 18n));
      for (const lane of [a, b, c, d]) hash = u64((hash ^ round(0n, lane)) * P1 + P4);
    }
    hash = u64(hash + this.#total);
    const view = new DataView(this.#rest.buffer);
    let at = 0;
    for (; at + 8 <= this.#have; at += 8) {
      hash ^= round(0n, view.getBigUint64(at, true));
      hash = u64(rotate(hash, 27n) * P1 + P4);
    }
    if (at + 4 <= this.#have) {
      hash ^= u64(BigInt(view.getUint32(at, true)) * P1);
      hash = u64(rotate(hash, 23n) * P2 + P3);
      at += 4;
    }
    for (; at < this.#have; at++) {
      hash ^= u64(BigInt(this.#rest[at] as number) * P5);
      hash = u64(rotate(hash, 11n) * P1);
    }
    hash = u64((hash ^ (hash >> 33n)) * P2);
    hash = u64((hash ^ (hash >> 29n)) * P3);
    return hash ^ (hash >> 32n);
  }
}
