import { describe, expect, it } from 'vitest';
import { CorruptObjectError, StoreAccessError, StoreUncertainError } from '../../src/errors.js';
import { bytesOf, contentOf } from '../../src/store/content.js';
import { type MemoryFault, MemoryObjects, MemoryStore } from '../../src/store/memory.js';
import { waitFor } from '../support/wait.js';
import { keys, storeContract, whole } from './contract.js';

storeContract('memory', async () => {
  const store = new MemoryStore();
  return {
    store,
    again: async () => new MemoryStore({ objects: store.objects }),
    [Symbol.asyncDispose]: () => store.close(),
  };
});

const text = (content: string) => contentOf(Buffer.from(content));

/** A store whose next call has a fault, and another one without. */
function faulty(): { store: MemoryStore; plain: MemoryStore; next(fault: MemoryFault): void } {
  const queue: MemoryFault[] = [];
  const store = new MemoryStore({ faults: () => queue.shift() });
  const plain = new MemoryStore({ objects: store.objects });
  return { store, plain, next: (fault) => void queue.push(fault) };
}

describe('a fault of the store in memory', () => {
  it('refused: nothing is done, and nobody can tell', async () => {
    const { store, plain, next } = faulty();
    next({ kind: 'refused' });
    await expect(store.create('a', text('x'))).rejects.toThrow(StoreUncertainError);
    expect(await plain.head('a')).toBeUndefined();
    expect(await store.create('a', text('x'))).toEqual({ created: true });
  });

  it('lost: it is done, and a repeated call finds its own', async () => {
    const { store, plain, next } = faulty();
    next({ kind: 'lost' });
    const create = (token: string) => store.create('a', text('x'), { token });
    await expect(create('mine')).rejects.toThrow(StoreUncertainError);
    expect(await whole(plain, 'a')).toEqual(Buffer.from('x'));
    expect(await create('mine')).toEqual({ created: true });
    expect((await create('other')).created).toBe(false);
    next({ kind: 'lost' });
    await expect(store.remove(['a'])).rejects.toThrow(StoreUncertainError);
    expect(await plain.head('a')).toBeUndefined();
  });

  it('late: it arrives when its caller has long given up, and may be too late', async () => {
    const { store, plain, next } = faulty();
    for (const key of ['a', 'b']) {
      next({ kind: 'late' });
      await expect(store.create(key, text('late'))).rejects.toThrow(StoreUncertainError);
    }
    expect(await plain.head('a')).toBeUndefined();
    await plain.create('b', text('in time'));
    expect(store.objects.settle()).toBe(2);
    expect(await whole(plain, 'a')).toEqual(Buffer.from('late'));
    expect(await whole(plain, 'b')).toEqual(Buffer.from('in time'));
    expect(store.objects.settle()).toBe(0);
  });

  it('stall: no answer until the call is aborted, done or not', async () => {
    for (const done of [false, true]) {
      const { store, plain, next } = faulty();
      const stop = new AbortController();
      next({ kind: 'stall', done });
      const call = store.create('a', text('x'), { signal: stop.signal });
      const first = await Promise.race([call.catch(() => 'failed'), plain.head('none')]);
      expect(first).toBeUndefined();
      if (done) await waitFor(() => plain.head('a'));
      stop.abort(new Error('deadline'));
      await expect(call).rejects.toThrow('deadline');
      expect((await plain.head('a')) !== undefined).toBe(done);
    }
  });

  it('short: the body ends early and says so', async () => {
    const { store, next } = faulty();
    await store.create('a', text('0123456789'));
    for (const bytes of [0, 4, 9, 50]) {
      next({ kind: 'short', bytes });
      const got = await store.get('a');
      await expect(bytesOf(got!.body)).rejects.toThrow(StoreUncertainError);
    }
    next({ kind: 'short', bytes: 2 });
    const part = await store.get('a', { range: { start: 2, end: 6 } });
    await expect(bytesOf(part!.body)).rejects.toThrow(StoreUncertainError);
  });

  it('corrupt: the whole body is found to be another one, a part is not', async () => {
    const { store, next } = faulty();
    await store.create('a', text('0123456789'));
    next({ kind: 'corrupt' });
    const got = await store.get('a');
    await expect(bytesOf(got!.body)).rejects.toThrow(CorruptObjectError);
    next({ kind: 'corrupt' });
    const part = await store.get('a', { range: { start: 0, end: 4 } });
    expect((await bytesOf(part!.body)).toString()).toBe('0133');
    expect(await whole(store, 'a')).toEqual(Buffer.from('0123456789'));
    store.objects.damage('a', 3);
    const damaged = await store.get('a');
    await expect(bytesOf(damaged!.body)).rejects.toThrow(CorruptObjectError);
  });

  it('stale: a listing from before the last changes, all else is as it is now', async () => {
    const { store, next } = faulty();
    await store.create('a', text('x'));
    await store.create('b', text('x'));
    await store.remove(['a']);
    for (const [changes, seen] of [
      [1, ['a', 'b']],
      [2, ['a']],
      [3, []],
      [9, []],
    ] as const) {
      next({ kind: 'stale', changes });
      expect(await keys(store.list(''))).toEqual(seen);
    }
    expect(await keys(store.list(''))).toEqual(['b']);
    next({ kind: 'stale', changes: 3 });
    expect(await store.head('b')).toBeDefined();
  });

  it('error: whatever is to be thrown', async () => {
    const { store, next } = faulty();
    const error = new StoreAccessError('no rights');
    next({ kind: 'error', error });
    await expect(keys(store.list(''))).rejects.toBe(error);
  });

  it('is chosen by what is called', async () => {
    const store = new MemoryStore({
      faults: ({ op, key }) => (op === 'get' && key === 'b' ? { kind: 'refused' } : undefined),
    });
    await store.create('a', text('x'));
    await store.create('b', text('x'));
    expect(await whole(store, 'a')).toBeDefined();
    await expect(store.get('b')).rejects.toThrow(StoreUncertainError);
    expect(store.calls.map(({ op, key }) => `${op} ${key}`)).toEqual([
      'create a',
      'create b',
      'get a',
      'get b',
    ]);
  });
});

it('keeps what is stored when who uses it crashes, and answers him never again', async () => {
  const store = new MemoryStore();
  await store.create('a', text('x'));
  const never: unknown[] = [];
  const note = (value: unknown) => never.push(value);
  // One that is under way, and one that is begun by what is left of the process.
  store.create('b', text('y')).then(note, note);
  store.crash();
  store.head('a').then(note, note);
  const reopened = new MemoryStore({ objects: store.objects });
  expect(await whole(reopened, 'a')).toEqual(Buffer.from('x'));
  await reopened.create('b', text('z'));
  expect(await whole(reopened, 'b')).toEqual(Buffer.from('z'));
  expect(never).toEqual([]);
});

it('has a clock of its own', async () => {
  const objects = new MemoryObjects(() => 86_400_000);
  const store = new MemoryStore({ objects });
  await store.create('a', text('x'));
  expect((await store.head('a'))?.modified).toEqual(new Date(86_400_000));
  const { clockOffset } = await store.probe();
  expect(Math.abs((clockOffset ?? 0) + Date.now() - 86_400_000)).toBeLessThan(60_000);
});
