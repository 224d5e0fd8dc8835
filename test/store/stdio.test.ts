import { randomBytes } from 'node:crypto';
import { PassThrough } from 'node:stream';
import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import {
  CorruptObjectError,
  DiskFullError,
  FsyncError,
  StoreAccessError,
  StoreUncertainError,
  WalkeepError,
} from '../../src/errors.js';
import { bytesOf, contentOf } from '../../src/store/content.js';
import { MemoryObjects, MemoryStore } from '../../src/store/memory.js';
import { StdioStore } from '../../src/store/stdio/client.js';
import { encodeHeader, FRAME, MAGIC, WINDOW } from '../../src/store/stdio/frame.js';
import { type ServerRole, serveStore } from '../../src/store/stdio/server.js';
import { StdioSession } from '../../src/store/stdio/session.js';
import type { ObjectStore } from '../../src/store/store.js';
import { waitFor } from '../support/wait.js';
import { keys, storeContract, whole } from './contract.js';

/** One connection: what goes to the server, and what comes from it. */
interface Line {
  up: PassThrough;
  down: PassThrough;
}

/** A client of a store that is served in this process. */
function served(
  open: () => Promise<ObjectStore>,
  {
    onLine,
    attempts,
    ...role
  }: ServerRole & { onLine?: (line: Line) => void; attempts?: number } = {},
): StdioStore {
  return connected(
    ({ up, down }) => {
      onLine?.({ up, down });
      void serveStore(open, { input: up, output: down, ...role });
    },
    { attempts },
  );
}

function connected(
  serve: (line: Line) => void,
  { silence = 30_000, attempts }: { silence?: number; attempts?: number | undefined } = {},
): StdioStore {
  return new StdioStore({
    place: 'stdio:',
    backOff: 1,
    attempts,
    connect: async () => {
      const line = { up: new PassThrough(), down: new PassThrough() };
      serve(line);
      return new StdioSession({ input: line.down, output: line.up, place: 'stdio:', silence });
    },
  });
}

const text = (content: string) => contentOf(Buffer.from(content));

function frame(type: number, id: number, payload: Uint8Array | object): Buffer {
  const bytes = payload instanceof Uint8Array ? payload : Buffer.from(JSON.stringify(payload));
  return Buffer.concat([encodeHeader(type, id, bytes.length), bytes]);
}

const HELLO = Buffer.concat([MAGIC, frame(FRAME.hello, 0, { version: 1, requests: 64 })]);

storeContract('a memory over pipes', async () => {
  const objects = new MemoryObjects();
  const store = served(async () => new MemoryStore({ objects }));
  return {
    store,
    again: async () => served(async () => new MemoryStore({ objects })),
    [Symbol.asyncDispose]: () => store.close(),
  };
});

describe('a store over pipes', () => {
  it('hands on errors as what they are', async () => {
    const errors: WalkeepError[] = [
      new StoreUncertainError('u', { key: 'k' }),
      new StoreAccessError('a', { hint: 'h', detail: 'd' }),
      new DiskFullError('f', { path: '/p' }),
      new FsyncError('s'),
      new CorruptObjectError('c', { expected: 'e', actual: 'a' }),
    ];
    for (const error of errors) {
      const store = served(
        async () => new MemoryStore({ faults: () => ({ kind: 'error', error }) }),
      );
      const got = await store.head('a').catch((e) => e);
      expect(got).toBeInstanceOf(error.constructor);
      const { message, code, retryable, key, hint, path, expected, actual } = error;
      expect(got).toMatchObject({ message, code, retryable });
      expect({ ...got }).toMatchObject(
        JSON.parse(JSON.stringify({ key, hint, path, expected, actual })),
      );
      expect(got.detail).toBe(error.detail ?? 'At stdio:.');
      await store.close();
    }
  });

  it('takes a defect there for no answer', async () => {
    const error = new TypeError('undefined is not a function');
    const store = served(async () => new MemoryStore({ faults: () => ({ kind: 'error', error }) }));
    await expect(store.get('a')).rejects.toThrow(StoreUncertainError);
  });

  it('says why a store there could not be opened', async () => {
    const store = served(async () => {
      throw new StoreAccessError('no such directory', { hint: 'mount it' });
    });
    const error = await store.head('a').catch((e) => e);
    expect(error).toBeInstanceOf(StoreAccessError);
    expect(error).toMatchObject({ message: 'no such directory', hint: 'mount it' });
  });

  it('finds its own object when the answer to a create was lost', async () => {
    const objects = new MemoryObjects();
    let lines = 0;
    const store = served(async () => new MemoryStore({ objects }), {
      onLine: ({ up, down }) => {
        lines += 1;
        // The first connection is lost as soon as the object is there.
        if (lines > 1) return;
        const { write } = down;
        down.write = ((...args: Parameters<typeof write>) => {
          if (objects.get('a') === undefined) return write.apply(down, args);
          up.destroy();
          down.destroy();
          return true;
        }) as typeof write;
      },
    });
    expect(await store.create('a', text('x'))).toEqual({ created: true });
    expect(lines).toBe(2);
    expect((await store.create('a', text('x'))).created).toBe(false);
  });

  it('tries again what is not known, so often and no more', async () => {
    const objects = new MemoryObjects();
    let faults = 3;
    const open = async () =>
      new MemoryStore({ objects, faults: () => (faults-- > 0 ? { kind: 'refused' } : undefined) });
    const store = served(open);
    expect(await store.create('a', text('x'))).toEqual({ created: true });
    faults = 4;
    await expect(store.head('a')).rejects.toThrow(StoreUncertainError);
    expect(faults).toBe(0);
  });

  it('reads no more there than is read here', async () => {
    const sent: number[] = [];
    const size = 16 * 1024 * 1024;
    const bytes = randomBytes(size);
    const objects = new MemoryObjects();
    await new MemoryStore({ objects }).create('a', contentOf(bytes));
    const open = async () => {
      const store = new MemoryStore({ objects });
      const get = store.get.bind(store);
      store.get = async (...args) => {
        const got = await get(...args);
        const { body } = got!;
        async function* counted() {
          for await (const piece of body) {
            sent.push(piece.length);
            yield piece;
          }
        }
        return { ...got!, body: counted() };
      };
      return store;
    };
    const store = served(open);
    const got = await store.get('a');
    const reader = got!.body[Symbol.asyncIterator]();
    await reader.next();
    const total = () => sent.reduce((a, b) => a + b, 0);
    await waitFor(() => total() >= WINDOW);
    // Others get on meanwhile.
    for (let i = 0; i < 20; i++) await store.head('a');
    expect(total()).toBeLessThan(2 * WINDOW);
    let read = (await reader.next()).value?.length ?? 0;
    for (let next = await reader.next(); !next.done; next = await reader.next()) {
      read += next.value.length;
    }
    expect(read).toBeGreaterThan(size - WINDOW);
    expect(total()).toBe(size);
  });

  it('sends no more than is wanted there', async () => {
    let asked = 0;
    const stop = new AbortController();
    const open = async () => {
      const store = new MemoryStore();
      // Reads the first piece only, and then nothing more.
      store.create = async (_key, content) => {
        for await (const _ of content.open()) await new Promise(() => {});
        return { created: true };
      };
      return store;
    };
    const store = served(open);
    const piece = Buffer.alloc(65_536);
    function* endless() {
      for (;;) {
        asked += 1;
        yield piece;
      }
    }
    const content = { ...contentOf(piece), size: 1e12, open: endless };
    const call = store.create('a', content, { signal: stop.signal });
    await waitFor(() => asked * piece.length >= WINDOW);
    for (let i = 0; i < 20; i++) await store.head('a');
    expect(asked * piece.length).toBeLessThan(2 * WINDOW);
    stop.abort(new Error('enough'));
    await expect(call).rejects.toThrow('enough');
  });

  it('stops sending what is there already', async () => {
    const objects = new MemoryObjects();
    await new MemoryStore({ objects }).create('a', text('x'));
    const open = async () => {
      const store = new MemoryStore({ objects });
      store.create = async (key) => ({ created: false, found: (await store.head(key))! });
      return store;
    };
    const store = served(open);
    async function* hanging() {
      yield Buffer.alloc(10);
      await new Promise(() => {});
    }
    const content = { ...text('y'), size: 1e9, open: hanging };
    expect((await store.create('a', content)).created).toBe(false);
  });

  it('goes on beside any number of bodies that nobody reads', async () => {
    const store = served(async () => new MemoryStore());
    const bytes = randomBytes(2 * WINDOW);
    await store.create('a', contentOf(bytes));
    const unread = [];
    for (let i = 0; i < 150; i++) unread.push(await store.get('a'));
    // Also the first of them is there still, as it was.
    for (const got of [unread[0], unread.at(-1)]) {
      expect(Buffer.compare(await bytesOf(got!.body), bytes)).toBe(0);
    }
  });

  it('waits for its turn no longer than its signal, and takes it from nobody then', async () => {
    const [up, down] = [new PassThrough(), new PassThrough()];
    const session = new StdioSession({ input: down, output: up, place: 'stdio:', silence: 30_000 });
    const greeted = session.greet();
    down.write(Buffer.concat([MAGIC, frame(FRAME.hello, 0, { version: 1, requests: 1 })]));
    await greeted;
    const { signal } = new AbortController();
    const stop = new AbortController();
    const first = await session.call({ op: 'head', key: 'a' }, signal);
    const given = session.call({ op: 'head', key: 'b' }, stop.signal);
    const third = session.call({ op: 'head', key: 'c' }, signal);
    stop.abort(new Error('stop'));
    await expect(given).rejects.toThrow('stop');
    down.write(frame(FRAME.result, 1, { absent: true }));
    await first.result;
    (await third).done();
    session.fail(new StoreUncertainError('over'));
  });

  it('keeps to the role of the server, whatever a client sends', async () => {
    const objects = new MemoryObjects();
    await new MemoryStore({ objects }).create('a', text('x'));
    const store = served(async () => new MemoryStore({ objects }), { readOnly: true });
    await expect(store.create('b', text('x'))).rejects.toThrow(StoreAccessError);
    await expect(store.remove(['a'])).rejects.toThrow(StoreAccessError);
    const adding = served(async () => new MemoryStore({ objects }), { noRemove: true });
    await expect(adding.remove(['a'])).rejects.toThrow(StoreAccessError);
    expect(await adding.create('b', text('x'))).toEqual({ created: true });
    expect(await keys(store.list(''))).toEqual(['a', 'b']);
  });

  it('finds a body that was changed on the way', async () => {
    const bytes = randomBytes(500_000);
    const objects = new MemoryObjects();
    const plain = new MemoryStore({ objects });
    await plain.create('a', contentOf(bytes));
    const store = served(async () => plain, {
      onLine: ({ down }) => {
        const { write } = down;
        down.write = ((chunk: Buffer) => {
          const large = chunk.length > 50_000 ? Buffer.from(chunk) : chunk;
          if (large !== chunk) large[1000] = (large[1000] as number) ^ 4;
          return write.call(down, large, 'utf8');
        }) as typeof write;
      },
    });
    await expect(whole(store, 'a')).rejects.toThrow(CorruptObjectError);
  });
});

describe('a server that does not keep to the protocol', () => {
  const long = Buffer.alloc(9);
  long.writeUInt32BE(0xffff_ffff, 0);
  const wrong: Record<string, (line: Line) => void> = {
    'says something else': ({ down }) => down.end('Last login: Monday\n'),
    'ends at once': ({ down }) => down.end(),
    'ends in the greeting': ({ down }) => down.end(MAGIC.subarray(0, 5)),
    'ends before its hello': ({ down }) => down.end(MAGIC),
    'is of another version': ({ down }) =>
      down.end(Buffer.concat([MAGIC, frame(FRAME.hello, 0, { version: 2 })])),
    'sends a frame that is too long': ({ down }) => down.end(Buffer.concat([HELLO, long])),
    'ends in a frame': ({ down }) => down.end(Buffer.concat([HELLO, long.subarray(0, 3)])),
    'sends no JSON': ({ down }) =>
      down.end(Buffer.concat([HELLO, frame(FRAME.result, 1, Buffer.from('{'))])),
    'sends an unknown frame': ({ down }) => down.end(Buffer.concat([HELLO, frame(77, 1, {})])),
    'answers with nothing': ({ down }) =>
      down.write(Buffer.concat([HELLO, frame(FRAME.result, 1, {}), frame(FRAME.result, 2, {})])),
    'answers null': ({ down }) =>
      down.write(Buffer.concat([HELLO, frame(FRAME.result, 1, Buffer.from('null'))])),
    'says nothing': () => {},
    'greets and says nothing': ({ down }) => down.write(HELLO),
  };
  for (const [what, serve] of Object.entries(wrong)) {
    it(`${what}: nothing is known`, async () => {
      const calls: ((store: StdioStore) => Promise<unknown>)[] = [
        (store) => store.head('a'),
        (store) => store.get('a'),
        (store) => store.create('a', text('x')),
        (store) => store.remove(['a']),
      ];
      for (const call of calls) {
        const store = connected(serve, { silence: 100, attempts: 2 });
        const error = await call(store).then(
          (value) => value,
          (e) => e,
        );
        expect(error).toBeInstanceOf(WalkeepError);
        expect(['WK_STORE_UNCERTAIN', 'WK_STORE_ACCESS']).toContain(error.code);
        await store.close();
      }
    });
  }

  it('sends any bytes: a call ends, and nothing is absent', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async (bytes) => {
        const serve = ({ down }: Line) => down.end(Buffer.concat([HELLO, bytes]));
        const store = connected(serve, { attempts: 1 });
        const got = await store.get('a').catch((e) => e);
        expect(got).toBeInstanceOf(WalkeepError);
        await store.close();
      }),
      { numRuns: 300 },
    );
  });
});

describe('a client that does not keep to the protocol', () => {
  const hello = Buffer.concat([MAGIC, frame(FRAME.hello, 0, { version: 1 })]);
  const request = (id: number, fields: object) => frame(FRAME.request, id, fields);
  /** What the server sends until it ends. */
  const answers = async (bytes: Uint8Array, objects = new MemoryObjects()) => {
    const [up, down] = [new PassThrough(), new PassThrough()];
    const serving = serveStore(async () => new MemoryStore({ objects }), {
      input: up,
      output: down,
    });
    up.end(bytes);
    const [sent] = await Promise.all([bytesOf(down), serving]);
    return sent.toString('latin1');
  };

  it('is told what is wrong, and left', async () => {
    const many = Array.from({ length: 65 }, (_, i) =>
      request(i + 1, { op: 'create', key: `k${i}`, size: 1, sha256: '0'.repeat(64) }),
    );
    const flood = frame(FRAME.data, 1, Buffer.alloc(1024 * 1024));
    const wrong: [Uint8Array, RegExp][] = [
      [Buffer.from('GET / HTTP/1.1\r\n\r\n'), /another greeting/],
      [Buffer.concat([MAGIC, request(1, { op: 'head', key: 'a' })]), /no greeting/],
      [Buffer.concat([MAGIC, frame(FRAME.hello, 0, { version: 9 })]), /speaks version 1, not 9/],
      [Buffer.concat([hello, frame(99, 1, {})]), /^(?!.*WK_INTERNAL)/s],
      [Buffer.concat([hello, request(1, { op: 'nothing' })]), /no request/],
      [Buffer.concat([hello, ...many]), /too many requests/],
      [Buffer.concat([hello, many[0]!, many[0]!]), /a request twice/],
      [Buffer.concat([hello, many[0]!, flood, flood, flood]), /more data than there was credit/],
      [Buffer.concat([hello, request(1, { op: 'get', key: '../etc/passwd' })]), /WK_USAGE/],
      [Buffer.concat([hello, request(1, { op: 'list', prefix: '../' })]), /WK_USAGE/],
      [Buffer.concat([hello, request(1, { op: 'remove', keys: ['a/../..'] })]), /WK_USAGE/],
      [Buffer.concat([hello, request(1, { op: 'remove', keys: 'a' })]), /no keys/],
      [Buffer.concat([hello, request(1, { op: 'get', key: 'a', range: null })]), /^/],
    ];
    for (const [bytes, message] of wrong) expect(await answers(bytes)).toMatch(message);
  });

  it('stores nothing by going away in the middle', async () => {
    const objects = new MemoryObjects();
    const content = contentOf(Buffer.from('whole'));
    const { size, sha256 } = content;
    const begin = request(1, { op: 'create', key: 'a', size, sha256, meta: {} });
    const data = frame(FRAME.data, 1, Buffer.from('whole'));
    await answers(Buffer.concat([hello, begin]), objects);
    await answers(Buffer.concat([hello, begin, data.subarray(0, -1)]), objects);
    await answers(Buffer.concat([hello, begin, frame(FRAME.data, 1, Buffer.from('who'))]), objects);
    const cancel = frame(FRAME.cancel, 1, Buffer.alloc(0));
    await answers(
      Buffer.concat([hello, begin, frame(FRAME.data, 1, Buffer.from('who')), cancel]),
      objects,
    );
    expect(objects.get('a')).toBeUndefined();
  });

  it('sends any bytes: the server ends', async () => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async (bytes) => {
        const objects = new MemoryObjects();
        await answers(Buffer.concat([hello, bytes]), objects);
        expect(objects.entries()).toEqual([]);
      }),
      { numRuns: 300 },
    );
  });
});

describe('a server that lists what it should not', () => {
  const listing = (names: readonly string[]) =>
    served(async () =>
      Object.assign(new MemoryStore(), {
        async *list() {
          for (const key of names) yield { key, size: 1, modified: new Date() };
        },
      }),
    );

  it.each([
    [['wal/2', 'wal/1'], /not list in order/],
    [['wal/1', 'wal/1'], /not list in order/],
    [['other/1'], /not asked for/],
    [['wal/0'], /not list in order/],
  ])('%j is told of', async (names, message) => {
    const store = listing(names);
    await expect(keys(store.list('wal/', { after: 'wal/0' }))).rejects.toThrow(message);
    await store.close();
  });
});

it('closes though the other side never greets', async () => {
  let line: Line | undefined;
  const store = connected((opened) => {
    line = opened;
  });
  const asked = store.head('key').catch((e) => e);
  await waitFor(() => line !== undefined);
  await store.close();
  expect(await asked).toBeInstanceOf(StoreUncertainError);
  expect((await asked).message).toContain('was closed');
});
