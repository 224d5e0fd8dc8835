import { expect, it } from 'vitest';
import { CorruptObjectError, StoreUncertainError } from '../../src/errors.js';
import { contentOf } from '../../src/store/content.js';
import { MemoryStore } from '../../src/store/memory.js';
import { readWhole } from '../../src/store/read-whole.js';
import type { Got, ObjectStore } from '../../src/store/store.js';

/** A store whose first bodies end with an error. */
async function store(errors: Error[]): Promise<{ store: ObjectStore; asked: () => number }> {
  const whole = new MemoryStore();
  await whole.create('key', contentOf(Buffer.from('content')));
  let asked = 0;
  const get: ObjectStore['get'] = async (...args) => {
    asked += 1;
    const got = await whole.get(...args);
    const error = errors.shift();
    const body = async function* () {
      yield Buffer.from('con');
      throw error;
    };
    return error && got ? ({ ...got, body: body() } as Got) : got;
  };
  const spoilt = new Proxy(whole, {
    get: (target, name) => (name === 'get' ? get : Reflect.get(target, name)),
  });
  return { store: spoilt, asked: () => asked };
}

const broken = () => new StoreUncertainError('no answer');
const damaged = () => new CorruptObjectError('not what was stored');

it.each([
  ['breaks off', [broken(), broken(), broken(), broken()]],
  ['is changed on its way', [damaged()]],
  ['is both', [broken(), damaged()]],
])('a body that %s is read again', async (_, errors) => {
  const { store: spoilt } = await store(errors);
  expect(await readWhole(spoilt, 'key', String)).toBe('content');
});

it('what is so each time is', async () => {
  const away = await store([broken(), broken(), broken(), broken(), broken()]);
  await expect(readWhole(away.store, 'key', String)).rejects.toThrow('no answer');
  const bad = await store([damaged(), damaged()]);
  await expect(readWhole(bad.store, 'key', String)).rejects.toThrow('not what was stored');
  const none = await store([]);
  expect(await readWhole(none.store, 'other', String)).toBeUndefined();
  const parsed = await store([]);
  const refuse = () => {
    throw damaged();
  };
  await expect(readWhole(parsed.store, 'key', refuse)).rejects.toThrow('not what was stored');
  expect(parsed.asked()).toBe(2);
});

it('damage that only shows in what is made of it is read again', async () => {
  const { store: spoilt, asked } = await store([]);
  let tries = 0;
  const decode = async (bytes: Buffer) => {
    tries += 1;
    if (tries === 1) throw damaged();
    return String(bytes);
  };
  expect(await readWhole(spoilt, 'key', decode)).toBe('content');
  expect([tries, asked()]).toEqual([2, 2]);
});
