import { createHash, randomBytes } from 'node:crypto';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { CorruptObjectError, UsageError } from '../../src/errors.js';
import { bytesOf, contentOf } from '../../src/store/content.js';
import { compareKeys } from '../../src/store/key.js';
import type { Content, Entry, ObjectStore } from '../../src/store/store.js';

/** An empty store of its own for each test. */
export interface OpenedStore extends AsyncDisposable {
  store: ObjectStore;
  /** Another one for the same objects, as a second process has it. Closed by the tests. */
  again(): Promise<ObjectStore>;
}

export interface ContractSettings {
  /** Rounds of racing creates. */
  rounds?: number;
  /** Objects of the longest listing: more than a page of S3 has. */
  many?: number;
}

const MIB = 1024 * 1024;

/**
 * What every kind of store keeps, see ObjectStore. A kind's own tests are about its own ways to fail.
 */
export function storeContract(
  name: string,
  open: () => Promise<OpenedStore>,
  { rounds = 20, many = 1100 }: ContractSettings = {},
): void {
  describe(`the contract of stores: ${name}`, () => {
    let opened: OpenedStore;
    let store: ObjectStore;
    const more: ObjectStore[] = [];

    beforeEach(async () => {
      opened = await open();
      store = opened.store;
    });
    afterEach(async () => {
      for (const one of more.splice(0)) await one.close();
      await opened?.[Symbol.asyncDispose]();
    });

    const again = async () => {
      const one = await opened.again();
      more.push(one);
      return one;
    };
    const put = (key: string, text = key, meta?: Record<string, string>) =>
      store.create(key, contentOf(Buffer.from(text)), { meta });
    const text = async (key: string) => (await whole(store, key))?.toString();

    describe('create', () => {
      it('stores what is not there, with all that is said of it', async () => {
        const before = Date.now();
        const content = contentOf(Buffer.from('WAL'));
        expect(await put('a/b/c', 'WAL')).toEqual({ created: true });
        const head = await store.head('a/b/c');
        expect(head).toMatchObject({ key: 'a/b/c', size: 3, sha256: content.sha256, meta: {} });
        // Stores have their own clock.
        expect(Math.abs((head?.modified.getTime() ?? 0) - before)).toBeLessThan(600_000);
        expect(await text('a/b/c')).toBe('WAL');
      });

      it('never overwrites, and says what it found', async () => {
        await put('key', 'first', { lsn: '0/1' });
        const found = await store.head('key');
        expect(await put('key', 'other', { lsn: '0/2' })).toEqual({ created: false, found });
        expect(await put('key', 'first', { lsn: '0/3' })).toEqual({ created: false, found });
        expect(found).toMatchObject({ size: 5, meta: { lsn: '0/1' } });
        expect(await text('key')).toBe('first');
      });

      for (const size of [0, 1, 65_535, 65_536, 65_537, 5 * MIB + 3]) {
        it(`stores ${size} bytes`, async () => {
          const bytes = randomBytes(size);
          expect(await store.create('big', contentOf(bytes))).toEqual({ created: true });
          expect(await store.head('big')).toMatchObject({ size, sha256: sha256(bytes) });
          expect(equal(await whole(store, 'big'), bytes)).toBe(true);
        });
      }

      it('takes content in pieces of any size', async () => {
        const pieces = [0, 1, 70_000, 0, 13, 262_144, 1].map((size) => randomBytes(size));
        const bytes = Buffer.concat(pieces);
        const content = { ...contentOf(bytes), open: () => asynchronous(pieces) };
        await store.create('pieces', content);
        expect(equal(await whole(store, 'pieces'), bytes)).toBe(true);
      });

      it('keeps metadata', async () => {
        const meta = {
          codec: 'zstd:3',
          'plain-sha256': 'e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855',
          range: '0/3000000-0/4000000',
          json: '["a b", {"c":1}]',
          x1: '~!@#$%^&*()_+{}|:"<>?`-=[]\\;\',./',
        };
        await put('with', 'x', meta);
        expect((await store.head('with'))?.meta).toEqual(meta);
        expect((await store.get('with'))?.meta).toEqual(meta);
      });

      it('refuses metadata that some store could not keep', async () => {
        const wrong: Record<string, string>[] = [
          { Upper: 'x' },
          { '': 'x' },
          { a_b: 'x' },
          { a: '' },
          { a: ' x' },
          { a: 'x\n' },
          { a: 'ü' },
          { a: 'x'.repeat(2048) },
        ];
        for (const meta of wrong) await expect(put('m', 'x', meta)).rejects.toThrow(UsageError);
        expect(await store.head('m')).toBeUndefined();
      });

      it('tells a call that is repeated from another one', async () => {
        const content = contentOf(Buffer.from('same'));
        const other = await again();
        const meta = { a: 'b' };
        expect(await store.create('k', content, { meta, token: 'one' })).toEqual({ created: true });
        expect(await other.create('k', content, { meta, token: 'one' })).toEqual({ created: true });
        const found = await store.head('k');
        expect(found?.meta).toEqual(meta);
        for (const token of ['two', undefined]) {
          expect(await store.create('k', content, { meta, token })).toEqual({
            created: false,
            found,
          });
        }
        // What stands there is not what this call was to store.
        const changed = contentOf(Buffer.from('else'));
        expect(await other.create('k', changed, { meta, token: 'one' })).toEqual({
          created: false,
          found,
        });
      });

      it('has one winner of many at once, and its content', async () => {
        const other = await again();
        for (let round = 0; round < rounds; round++) {
          const key = `race/${round}`;
          const tries = Array.from({ length: 32 }, (_, i) => {
            const content = contentOf(randomBytes(100 + 1000 * i));
            return { content, by: i % 2 ? store : other, meta: { racer: `${i}` } };
          });
          const results = await Promise.all(
            tries.map(({ by, content, meta }) => by.create(key, content, { meta })),
          );
          const winners = tries.filter((_, i) => results[i]?.created);
          expect(winners).toHaveLength(1);
          const [winner] = winners;
          const stored = { size: winner?.content.size, sha256: winner?.content.sha256 };
          expect(await store.head(key)).toMatchObject({ ...stored, meta: winner?.meta });
          expect(sha256(await whole(other, key))).toBe(stored.sha256);
          for (const result of results) {
            if (!result.created) expect(result.found).toMatchObject({ key, size: stored.size });
          }
        }
      });

      const bytes = randomBytes(200_000);
      const wrong: Record<string, Content> = {
        'another digest': { ...contentOf(bytes), sha256: sha256(randomBytes(9)) },
        'too few bytes': { ...contentOf(bytes), size: bytes.length + 1 },
        'too many bytes': { ...contentOf(bytes), size: bytes.length - 1 },
        'bytes where there should be none': { ...contentOf(bytes), size: 0 },
        'no bytes': { ...contentOf(bytes), open: () => [] },
      };
      for (const [what, content] of Object.entries(wrong)) {
        it(`stores nothing of content with ${what}`, async () => {
          await expect(store.create('wrong', content)).rejects.toThrow(CorruptObjectError);
          expect(await store.head('wrong')).toBeUndefined();
          expect(await keys(store.list(''))).toEqual([]);
          // Nothing that was left of it is in the way.
          expect(await store.create('wrong', contentOf(bytes))).toEqual({ created: true });
        });
      }

      it('stores nothing of content that cannot be read, and says why', async () => {
        const broken = new Error('the source broke');
        const content = contentOf(bytes);
        async function* source() {
          yield bytes.subarray(0, 100_000);
          throw broken;
        }
        const thrower = () => {
          throw broken;
        };
        await expect(store.create('wrong', { ...content, open: source })).rejects.toBe(broken);
        await expect(store.create('wrong', { ...content, open: thrower })).rejects.toBe(broken);
        expect(await store.head('wrong')).toBeUndefined();
      });

      it('refuses content that is described wrongly', async () => {
        for (const size of [-1, 0.5, Number.NaN]) {
          await expect(store.create('k', { ...contentOf(bytes), size })).rejects.toThrow(
            UsageError,
          );
        }
        for (const digest of ['', 'abc', 'Z'.repeat(64)]) {
          const content = { ...contentOf(bytes), sha256: digest };
          await expect(store.create('k', content)).rejects.toThrow(UsageError);
        }
      });
    });

    describe('get and head', () => {
      it('say that what is not there is absent', async () => {
        await put('there/below');
        for (const key of ['nothing', 'there', 'there/below/more', 'there/belo', 'THERE/below']) {
          expect(await store.get(key)).toBeUndefined();
          expect(await store.head(key)).toBeUndefined();
        }
      });

      it('see what another one has stored', async () => {
        const other = await again();
        expect(await other.head('new')).toBeUndefined();
        await put('new', 'x');
        expect(await other.head('new')).toEqual(await store.head('new'));
        expect((await whole(other, 'new'))?.toString()).toBe('x');
      });

      it('give a part', async () => {
        const bytes = randomBytes(200_000);
        await store.create('part', contentOf(bytes), { meta: { a: 'b' } });
        const ranges: [number, number][] = [
          [0, 1],
          [0, 8192],
          [1, 199_999],
          [65_535, 65_537],
          [100_000, 200_000],
          [199_999, 200_000],
          [0, 200_000],
          [150_000, 1_000_000],
          [5, 5],
          [0, 0],
          [200_000, 200_001],
          [300_000, 400_000],
        ];
        for (const [start, end] of ranges) {
          const got = await store.get('part', { range: { start, end } });
          // Of the object, not of the part.
          expect(got).toMatchObject({ size: 200_000, sha256: sha256(bytes), meta: { a: 'b' } });
          expect(equal(await bytesOf(got!.body), bytes.subarray(start, end))).toBe(true);
        }
        expect(await store.get('none', { range: { start: 0, end: 1 } })).toBeUndefined();
      });

      it('give any part of an empty object as nothing', async () => {
        await put('empty', '');
        for (const range of [
          { start: 0, end: 0 },
          { start: 0, end: 10 },
          { start: 5, end: 9 },
        ]) {
          const got = await store.get('empty', { range });
          expect(got?.size).toBe(0);
          expect((await bytesOf(got!.body)).length).toBe(0);
        }
      });

      it('refuse a range that is none', async () => {
        await put('k');
        for (const [start, end] of [
          [2, 1],
          [-1, 2],
          [0.5, 2],
          [0, Number.NaN],
        ] as const) {
          await expect(store.get('k', { range: { start, end } })).rejects.toThrow(UsageError);
        }
      });

      it('let a body go early, or untouched, many times', async () => {
        await store.create('big', contentOf(randomBytes(3 * MIB)));
        for (let i = 0; i < 40; i++) {
          const got = await store.get('big');
          if (i % 2) continue;
          for await (const piece of got!.body) {
            expect(piece.length).toBeGreaterThan(0);
            break;
          }
        }
        expect((await whole(store, 'big'))?.length).toBe(3 * MIB);
      });

      it('read many at once', async () => {
        const all = Array.from({ length: 24 }, () => randomBytes(300_000));
        await Promise.all(all.map((b, i) => store.create(`many/${i}`, contentOf(b))));
        const read = await Promise.all(all.map((_, i) => whole(store, `many/${i}`)));
        expect(read.every((b, i) => equal(b, all[i]!))).toBe(true);
      });
    });

    describe('list', () => {
      it('is empty where nothing is', async () => {
        expect(await keys(store.list(''))).toEqual([]);
        expect(await keys(store.list('a/'))).toEqual([]);
      });

      it('sorts by the bytes of the keys', async () => {
        const all = [...ODD_KEYS, 'a', 'b/c', 'b-c', 'b.c', 'b0c', 'b/c-d', 'B', 'b/0', '￼', '𝕎'];
        for (const key of shuffled(all)) await put(key);
        const byBytes = [...all].sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)));
        const entries = await collect(store.list(''));
        expect(entries.map((e) => e.key)).toEqual(byBytes);
        for (const entry of entries) {
          expect(entry.size).toBe(Buffer.byteLength(entry.key));
          expect(entry.modified).toEqual((await store.head(entry.key))?.modified);
        }
      });

      it('gives what begins with a prefix, whether that ends at a slash or not', async () => {
        const all = ['w/1/a', 'w/1/b', 'w/10/a', 'w/2', 'wal', 'x'];
        for (const key of all) await put(key);
        for (const prefix of [
          '',
          'w',
          'w/',
          'w/1',
          'w/1/',
          'w/1/b',
          'w/1/bc',
          'x',
          'y/z',
          'w/2/',
        ]) {
          const expected = all.filter((key) => key.startsWith(prefix)).sort(compareKeys);
          expect(await keys(store.list(prefix))).toEqual(expected);
        }
      });

      it('begins behind a key, which need not be there', async () => {
        const all = ['a', 'b-', 'b/1', 'b/2', 'b/2/x'.replace('/x', '0'), 'b0', 'c/d/e', 'c/d/f'];
        for (const key of all) await put(key);
        const sorted = [...all].sort(compareKeys);
        for (const after of [
          ...all,
          '0',
          'b',
          'b/',
          'b/15',
          'c/d/',
          'c/d/e/',
          'c/d/ee',
          'd',
          'zz',
        ]) {
          const expected = sorted.filter((key) => compareKeys(key, after) > 0);
          expect(await keys(store.list('', { after }))).toEqual(expected);
          const below = expected.filter((key) => key.startsWith('b/'));
          expect(await keys(store.list('b/', { after }))).toEqual(below);
        }
      });

      it('goes on over any number', async () => {
        const names = Array.from(
          { length: many },
          (_, i) => `l/${i % 3}/${`${i}`.padStart(6, '0')}`,
        );
        await inParallel(16, names, (key) => put(key, ''));
        const sorted = [...names].sort(compareKeys);
        expect(await keys(store.list('l/'))).toEqual(sorted);
        const middle = sorted[many >> 1] as string;
        expect(await keys(store.list('', { after: middle }))).toEqual(
          sorted.slice((many >> 1) + 1),
        );
        // Ended early.
        for await (const entry of store.list('l/')) {
          expect(entry.key).toBe(sorted[0]);
          break;
        }
      });

      it('gives all that is there all the time, whatever comes and goes meanwhile', async () => {
        const stay = Array.from({ length: 40 }, (_, i) => `c/${i % 4}/stay-${i}`);
        const go = Array.from({ length: 40 }, (_, i) => `c/${i % 4}/go-${i}`);
        await inParallel(8, [...stay, ...go], (key) => put(key));
        const seen: string[] = [];
        const others: Promise<unknown>[] = [];
        for await (const { key } of store.list('c/')) {
          seen.push(key);
          if (seen.length === 1) {
            others.push(store.remove(go));
            others.push(...go.map((k) => put(`${k}-new`)));
          }
        }
        await Promise.all(others);
        expect(seen).toEqual([...new Set(seen)].sort(compareKeys));
        expect(seen.filter((key) => key.includes('stay'))).toEqual([...stay].sort(compareKeys));
        expect(await keys(store.list('c/'))).toEqual(
          [...stay, ...go.map((k) => `${k}-new`)].sort(compareKeys),
        );
      });

      it('refuses a prefix that no key has', async () => {
        for (const prefix of ['/', '/a', 'a//', '../', 'a/../b', './a', 'a\n']) {
          await expect(keys(store.list(prefix))).rejects.toThrow(UsageError);
        }
      });
    });

    describe('remove', () => {
      it('removes what is there, and what is not', async () => {
        for (const key of ['a', 'b/c', 'b/d']) await put(key, key, { of: 'the-first' });
        const wanted = ['b/c', 'nothing', 'a'];
        const { removed, retained } = await store.remove(wanted);
        expect([...removed].sort()).toEqual([...wanted].sort());
        expect(retained).toEqual([]);
        expect(await keys(store.list(''))).toEqual(['b/d']);
        expect(await store.get('a')).toBeUndefined();
        expect(await store.head('b/c')).toBeUndefined();
        expect(await store.remove([])).toEqual({ removed: [], retained: [] });
      });

      it('makes room for another one, which has nothing of the first', async () => {
        await put('again', 'one', { of: 'the-first' });
        await store.remove(['again']);
        const other = contentOf(Buffer.from('two'));
        expect(await store.create('again', other)).toEqual({ created: true });
        expect(await store.head('again')).toMatchObject({ sha256: other.sha256, meta: {} });
        expect(await text('again')).toBe('two');
      });

      it('removes any number at once', async () => {
        const names = Array.from({ length: many }, (_, i) => `r/${i}`);
        await inParallel(16, names, (key) => put(key, ''));
        const { removed } = await store.remove(names.slice(1));
        expect(removed.length).toBe(many - 1);
        expect(await keys(store.list(''))).toEqual(['r/0']);
      });
    });

    describe('keys', () => {
      it('may have odd characters', async () => {
        for (const key of ODD_KEYS) {
          expect(await put(key)).toEqual({ created: true });
          expect(await text(key)).toBe(key);
          expect(await store.head(key)).toMatchObject({ key });
          expect((await put(key, 'other')).created).toBe(false);
        }
        expect(await keys(store.list(''))).toEqual([...ODD_KEYS].sort(compareKeys));
        expect((await store.remove(ODD_KEYS)).retained).toEqual([]);
        expect(await keys(store.list(''))).toEqual([]);
      });

      it('may be long', async () => {
        const key = `${'d'.repeat(255)}/${'e'.repeat(255)}/${'f'.repeat(255)}/${'g'.repeat(255)}`;
        expect(Buffer.byteLength(key)).toBe(1023);
        await put(key, 'long');
        expect(await text(key)).toBe('long');
      });

      for (const key of IMPOSSIBLE_KEYS) {
        it(`cannot be ${JSON.stringify(key.length > 40 ? `${key.slice(0, 20)}…` : key)}`, async () => {
          await expect(put(key)).rejects.toThrow(UsageError);
          await expect(store.get(key)).rejects.toThrow(UsageError);
          await expect(store.head(key)).rejects.toThrow(UsageError);
          await expect(store.remove(['fine', key])).rejects.toThrow(UsageError);
        });
      }
    });

    describe('signals', () => {
      const stopped = new Error('stopped');
      const aborted = AbortSignal.abort(stopped);

      it('that are aborted already end every call', async () => {
        await put('k');
        const signal = aborted;
        await expect(store.create('n', contentOf(Buffer.of(1)), { signal })).rejects.toBe(stopped);
        await expect(store.get('k', { signal })).rejects.toBe(stopped);
        await expect(store.head('k', { signal })).rejects.toBe(stopped);
        await expect(keys(store.list('', { signal }))).rejects.toBe(stopped);
        await expect(store.remove(['k'], { signal })).rejects.toBe(stopped);
        await expect(store.probe({ signal })).rejects.toBe(stopped);
        expect(await keys(store.list(''))).toEqual(['k']);
      });

      it('end a create whose content does not come', async () => {
        const stop = new AbortController();
        const content = contentOf(randomBytes(100_000));
        async function* source() {
          yield Buffer.alloc(50_000);
          stop.abort(stopped);
          await new Promise(() => {});
        }
        const call = store.create('hangs', { ...content, open: source }, { signal: stop.signal });
        await expect(call).rejects.toBe(stopped);
        expect(await store.head('hangs')).toBeUndefined();
        expect(await store.create('hangs', content)).toEqual({ created: true });
      });

      it('end a body in the middle', async () => {
        const stop = new AbortController();
        await store.create('big', contentOf(randomBytes(4 * MIB)));
        const got = await store.get('big', { signal: stop.signal });
        const read = async () => {
          let pieces = 0;
          for await (const _ of got!.body) {
            pieces += 1;
            stop.abort(stopped);
          }
          return pieces;
        };
        await expect(read()).rejects.toBe(stopped);
        expect((await whole(store, 'big'))?.length).toBe(4 * MIB);
      });
    });

    it('tells what it can do, and leaves nothing of the trial', async () => {
      const { conditionalCreate, clockOffset = 0 } = await store.probe();
      expect(conditionalCreate).toBe(true);
      expect(Math.abs(clockOffset)).toBeLessThan(600_000);
      expect(await keys(store.list(''))).toEqual([]);
    });

    it('is closed once and for all, and what was stored stays', async () => {
      await put('k', 'stays');
      const other = await again();
      await other.close();
      await other.close();
      await expect(other.head('k')).rejects.toThrow(/closed/);
      await expect(other.get('k')).rejects.toThrow(/closed/);
      await expect(other.create('n', contentOf(Buffer.of(1)))).rejects.toThrow(/closed/);
      await expect(keys(other.list(''))).rejects.toThrow(/closed/);
      await expect(other.remove(['k'])).rejects.toThrow(/closed/);
      expect(await text('k')).toBe('stays');
    });

    it('has a name without secrets, by which it is known', () => {
      expect(store.place).not.toBe('');
      expect(store.place).not.toMatch(/secret|password/i);
    });
  });
}

/** What URLs, shells, XML and file systems each make something else of. */
const ODD_KEYS = [
  'with space',
  ' leading and trailing ',
  'a+b',
  'a%2Fb',
  '100%',
  '%',
  'a&b=c',
  'quote\'quote"',
  '<tag>&amp;',
  '(parentheses)[brackets]{braces}',
  '~tilde~/~',
  '!bang*star?question#hash',
  '$dollar`tick\\back|pipe;semi',
  'comma,colon:at@equals=',
  'ünïcödé/ключ/鍵',
  'e\u0301',
  '\u00e9',
  'emoji/🐘',
  '...',
  '.hidden/.file',
  '-dash/--',
  '..x/x..',
  '00000001000000000000000A.partial',
  '.walkeep-ledger',
];

const IMPOSSIBLE_KEYS = [
  '',
  '/',
  '/a',
  'a/',
  'a//b',
  '.',
  '..',
  'a/..',
  '../a',
  'a/../b',
  './a',
  'a/./b',
  'nul\0',
  'line\nfeed',
  'tab\t',
  'del\x7f',
  'c1\u0085',
  'lone\ud800',
  'lone\udc00x',
  '.walkeep-store',
  '.walkeep-store/store.json',
  '.Walkeep-Store/x',
  `${'d'.repeat(255)}/${'e'.repeat(255)}/${'f'.repeat(255)}/${'g'.repeat(255)}/h`,
  'x'.repeat(256),
];

export async function whole(store: ObjectStore, key: string): Promise<Buffer | undefined> {
  const got = await store.get(key);
  return got && bytesOf(got.body);
}

export async function collect(entries: AsyncIterable<Entry>): Promise<Entry[]> {
  const all: Entry[] = [];
  for await (const entry of entries) all.push(entry);
  return all;
}

export async function keys(entries: AsyncIterable<Entry>): Promise<string[]> {
  return (await collect(entries)).map((entry) => entry.key);
}

export function sha256(bytes: Uint8Array | undefined): string {
  return createHash('sha256')
    .update(bytes ?? '')
    .digest('hex');
}

function equal(a: Uint8Array | undefined, b: Uint8Array): boolean {
  return a !== undefined && Buffer.compare(a, b) === 0;
}

async function* asynchronous(pieces: readonly Uint8Array[]) {
  for (const piece of pieces) {
    await new Promise((resolve) => setImmediate(resolve));
    yield piece;
  }
}

function shuffled<T>(items: readonly T[]): T[] {
  return items
    .map((item, i) => ({ item, order: (i * 7919 + 13) % 101 }))
    .sort((a, b) => a.order - b.order)
    .map(({ item }) => item);
}

async function inParallel<T>(
  width: number,
  items: readonly T[],
  act: (item: T) => Promise<unknown>,
): Promise<void> {
  const queue = [...items];
  const worker = async () => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await act(item);
  };
  await Promise.all(Array.from({ length: width }, worker));
}
