import { createHash } from 'node:crypto';
import { copyFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { progressDirectory } from '../../src/archive/shipping/progress.js';
import { type MemoryFault, MemoryObjects, MemoryStore } from '../../src/store/memory.js';
import { segmentFileName, segmentOf } from '../../src/wal/file-name.js';
import { randomNumbers, SEGMENT, sampleArchive } from '../support/archives.js';
import { scratchDir } from '../support/scratch.js';
import { switchedWal } from '../wal/switched.js';
import { contentOf, differences, keysOf, listened, memory, shipOnce } from './shipping.js';

const PLACE = 'memory:one';

/** A state directory with what a process that died has left of its progress. */
function stateOf(before: string | undefined): string {
  const state = scratchDir('state');
  if (before === undefined) return state;
  const [from, to] = [before, state].map((dir) =>
    join(progressDirectory(dir, PLACE), 'progress.json'),
  );
  if (existsSync(from!)) {
    mkdirSync(progressDirectory(state, PLACE), { recursive: true });
    copyFileSync(from!, to!);
  }
  return state;
}

/**
 * Ships with a process that dies at the n-th call on the store, before the call is done or after.
 * Gives the state directory; true in `ended` if it did not come to that many calls.
 */
async function shipAndDie(
  directory: string,
  objects: MemoryObjects,
  { at, done, state }: { at: number; done: boolean; state: string | undefined },
) {
  const own = stateOf(state);
  let calls = 0;
  let die = (): void => {};
  const dead = new Promise<void>((resolve) => {
    die = resolve;
  });
  const store: MemoryStore = new MemoryStore({
    objects,
    place: PLACE,
    faults: (): MemoryFault | undefined => {
      calls += 1;
      if (calls < at) return undefined;
      die();
      if (calls === at && done) return { kind: 'stall', done: true };
      store.crash();
      return undefined;
    },
  });
  const { shipper, told } = listened({ source: directory, places: [store], state: own, jobs: 2 });
  const run = shipper.run();
  const result = await Promise.race([run, dead]);
  expect(told('stopped')).toEqual([]);
  return { state: own, ended: result !== undefined };
}

test.each([false, true])('goes on after a death at any call, the call done: %s', async (done) => {
  const { directory, names } = sampleArchive(5);
  for (let at = 1; ; at++) {
    const objects = new MemoryObjects();
    const first = await shipAndDie(directory, objects, { at, done, state: undefined });
    const { result, told } = await shipOnce(directory, [memory(objects)], {
      state: stateOf(first.state),
    });
    expect(result.places[0], `${at}`).toMatchObject({ segments: 0, held: [] });
    expect(differences(directory, objects)).toEqual([]);
    expect(keysOf(objects)).toHaveLength(names.length);
    expect(told('stopped')).toEqual([]);
    if (first.ended) return;
  }
});

test('goes on after many deaths', async () => {
  const { directory } = sampleArchive(8);
  const random = randomNumbers(3);
  for (let round = 0; round < 5; round++) {
    const objects = new MemoryObjects();
    let state: string | undefined;
    for (let ended = false; !ended; ) {
      const at = 2 + Math.floor(random() * 24);
      const done = random() < 0.5;
      ({ state, ended } = await shipAndDie(directory, objects, { at, done, state }));
    }
    expect(differences(directory, objects)).toEqual([]);
    expect(keysOf(objects).some((key) => key.startsWith('conflict/'))).toBe(false);
  }
});

test('what no answer came to is tried until it is there, once', async () => {
  const { directory } = sampleArchive(8);
  const random = randomNumbers(7);
  for (let round = 0; round < 8; round++) {
    const objects = new MemoryObjects();
    const store = new MemoryStore({
      objects,
      place: PLACE,
      faults: (): MemoryFault | undefined => {
        const n = random();
        if (n < 0.1) return { kind: 'refused' };
        if (n < 0.2) return { kind: 'lost' };
        if (n < 0.3) return { kind: 'late' };
        if (n < 0.35) objects.settle();
        return undefined;
      },
    });
    const { result } = await shipOnce(directory, [store], { state: scratchDir('state') });
    objects.settle();
    expect(result.places[0]).toMatchObject({ segments: 0, held: [] });
    expect(result.places[0]?.error).toBeUndefined();
    expect(differences(directory, objects)).toEqual([]);
    expect(keysOf(objects).some((key) => key.startsWith('conflict/'))).toBe(false);
  }
});

/** Two segments as one server's receivers may have them: other bytes behind the switch record. */
function switched(fill: (rest: Buffer) => void, at: number): string {
  const directory = scratchDir('archive');
  const { tail, start } = switchedWal(at);
  const bytes = tail(fill);
  for (let n = 0; (n + 1) * SEGMENT <= bytes.length; n++) {
    const name = segmentFileName(1, segmentOf(start, SEGMENT) + BigInt(n), SEGMENT);
    writeFileSync(join(directory, name), bytes.subarray(n * SEGMENT, (n + 1) * SEGMENT));
  }
  return directory;
}

describe('two receivers of one server share a prefix without alarm', () => {
  const random = randomNumbers(5);
  const rubbish = (rest: Buffer): void => {
    for (let i = 0; i < rest.length; i++) rest[i] = random() * 256;
  };

  test.each([
    ['in a page', 300_000],
    ['in the last page', SEGMENT - 2000],
    ['at the end', SEGMENT - 24],
    ['over the end', SEGMENT - 16],
    ['with its first word in the segment', SEGMENT - 8],
  ])('with other bytes behind a switch record %s', async (_, at) => {
    const one = switched((rest) => rest.fill(0), at);
    const other = switched(rubbish, at);
    const objects = new MemoryObjects();
    const first = await shipOnce(one, [memory(objects)]);
    const reading = memory(objects);
    const second = await shipOnce(other, [reading]);
    expect(first.result.places[0]?.error).toBeUndefined();
    const fresh = new MemoryObjects();
    await shipOnce(other, [memory(fresh)]);
    // What is said of the bytes is true of those that are stored, undefined ones included.
    for (const [, { bytes, sha256 }] of [...objects.entries(), ...fresh.entries()]) {
      expect(createHash('sha256').update(bytes).digest('hex')).toBe(sha256);
    }
    expect(second.result.places[0]).toMatchObject({ segments: 0 });
    expect(second.result.places[0]?.error).toBeUndefined();
    expect(second.told('shipped').map(({ outcome }) => outcome)).toEqual(
      first.told('shipped').map(() => 'present'),
    );
    // Their digests are equal: nothing had to be read, which a ciphertext would not allow.
    const read = reading.calls.filter(({ op, key }) => op === 'get' && key.includes('/wal/'));
    expect(read).toEqual([]);
  });

  test('also where what is stored has no metadata', async () => {
    const directory = switched(() => {}, 300_000);
    const objects = new MemoryObjects();
    const names = (await shipOnce(directory, [memory(objects)])).told('shipped');
    const plain = new MemoryObjects();
    for (const { key, name } of names) {
      if (!key.includes('/wal/')) continue;
      const bytes = readFileSync(join(directory, name));
      const sha256 = createHash('sha256').update(bytes).digest('hex');
      plain.create(key, { bytes, sha256, meta: {}, token: '' });
    }
    const other = switched(rubbish, 300_000);
    const { result } = await shipOnce(other, [memory(plain)]);
    expect(result.places[0]?.error).toBeUndefined();
  });

  test('at the same time, through faults', async () => {
    const { directory, names } = sampleArchive(5);
    const other = sampleArchive(5).directory;
    for (let round = 0; round < 5; round++) {
      const objects = new MemoryObjects();
      const faults = (): MemoryFault | undefined => {
        const n = random();
        return n < 0.1 ? { kind: 'lost' } : n < 0.2 ? { kind: 'late' } : undefined;
      };
      const ships = [directory, other].map((source) =>
        shipOnce(source, [new MemoryStore({ objects, place: PLACE, faults })], {
          state: scratchDir('state'),
          jobs: 3,
        }),
      );
      for (const { result } of await Promise.all(ships)) {
        expect(result.places[0]?.error).toBeUndefined();
        expect(result.places[0]).toMatchObject({ segments: 0, held: [] });
      }
      objects.settle();
      expect(differences(directory, objects)).toEqual([]);
      expect(keysOf(objects)).toHaveLength(names.length);
      expect(contentOf(objects, names[0]!)).toHaveLength(SEGMENT);
    }
  });
});

test('the position never runs ahead of what is stored', async () => {
  const { directory } = sampleArchive(12);
  const objects = new MemoryObjects();
  const random = randomNumbers(9);
  const store = new MemoryStore({
    objects,
    place: PLACE,
    faults: () => (random() < 0.3 ? { kind: 'refused' } : undefined),
  });
  const { shipper } = listened({ source: directory, places: [store], jobs: 4 });
  let looks = 0;
  shipper.on('shipped', ({ lsn }) => {
    looks += lsn === undefined ? 0 : 1;
  });
  shipper.on('progress', ({ position }) => {
    if (!position) return;
    const missing = differences(directory, objects).filter((name) => {
      const end = (BigInt(`0x${name.slice(16)}`) + 1n) * BigInt(SEGMENT);
      return end <= position.lsn;
    });
    expect(missing).toEqual([]);
  });
  await shipper.run();
  expect(looks).toBe(12);
});
