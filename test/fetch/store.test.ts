import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { beforeAll, describe, expect, it } from 'vitest';
import { partialKey, segmentKey, systemPrefix } from '../../src/archive/store-keys.js';
import { exitCodeOf } from '../../src/cli/commands/fetch.js';
import { parseRecipients } from '../../src/codec/age/recipients.js';
import { encodeBytes } from '../../src/codec/stages.js';
import { type AheadOrder, ORDER_FILE, readAhead, takePrefetched } from '../../src/fetch/ahead.js';
import { type FetchOptions, fetchFile } from '../../src/fetch/fetch.js';
import { openFileStore } from '../../src/store/file/file-store.js';
import { verifyArchive } from '../../src/verify/verify.js';
import { scratchDir } from '../support/scratch.js';
import { beginArchive, put, storeArchiveOf } from '../support/store-archive.js';
import { waitFor } from '../support/wait.js';
import {
  archiveOf,
  flip,
  SEGMENT,
  SYSTEM_ID,
  segmentOf,
  writeControl,
} from '../support/wal-archive.js';

const seg = (n: number, timeline = 1) =>
  `0000000${timeline}00000000${n.toString(16).toUpperCase().padStart(8, '0')}`;

async function stored(fixture: string) {
  const flat = archiveOf(fixture);
  return { flat, ...flat, ...(await storeArchiveOf(flat.dir)) };
}

/** As the command would answer: 0, 1 or above 125. */
async function fetch(
  { data, target }: { data: string; target: string },
  places: readonly string[],
  name: string,
  more: Partial<FetchOptions> = {},
) {
  rmSync(target, { force: true });
  try {
    const result = await fetchFile({ places, name, target, dataDir: data, ...more });
    return { code: result.found ? 0 : 1, result };
  } catch (error) {
    expect(existsSync(target)).toBe(false);
    return { code: exitCodeOf(error), error };
  }
}

describe('fetch from a store', () => {
  it('serves segments, histories and the last partial, verified', async () => {
    const archive = await stored('switch');
    for (const n of [6, 7, 8, 9, 10, 11]) {
      expect(await fetch(archive, [archive.place], seg(n))).toMatchObject({ code: 0 });
      expect(readFileSync(archive.target).equals(segmentOf('switch', seg(n)))).toBe(true);
    }
    expect(await fetch(archive, [archive.place], seg(12))).toMatchObject({
      code: 0,
      result: { validEnd: expect.anything() },
    });
    expect(readdirSync(archive.out)).toEqual(['RECOVERYXLOG']);
    const promoted = await stored('promoted');
    expect(await fetch(promoted, [promoted.place], '00000002.history')).toMatchObject({ code: 0 });
    expect(readFileSync(promoted.target)).toEqual(
      readFileSync(join(promoted.dir, '00000002.history')),
    );
  });

  it('says "not there" of an archive, and of nothing else', async () => {
    const archive = await stored('switch');
    writeControl(archive.data, SYSTEM_ID);
    expect(await fetch(archive, [archive.place], seg(13))).toMatchObject({ code: 1 });
    expect(await fetch(archive, [archive.place], '00000002.history')).toMatchObject({ code: 1 });
    // A directory below which nothing was begun, one that is not there, and no archive at all.
    const root = join(scratchDir('store'), 'empty');
    await openFileStore(root, { init: true });
    writeFileSync(join(root, 'archive.json'), '{"format":2}');
    expect((await fetch(archive, [root], seg(13))).code).toBeGreaterThan(125);
    writeFileSync(join(root, 'archive.json'), '');
    expect((await fetch(archive, [root], seg(13))).code).toBeGreaterThan(125);
    expect((await fetch(archive, [join(root, 'nowhere')], seg(13))).code).toBe(205);
    // Begun, and of this cluster: it knows that it has nothing.
    const begun = join(scratchDir('store'), 'begun');
    await beginArchive(await openFileStore(begun, { init: true }));
    expect(await fetch(archive, [begun], seg(13))).toMatchObject({ code: 1 });
    // Begun, and of no cluster yet: whoever asks is the first to name one.
    rmSync(join(begun, systemPrefix(SYSTEM_ID)), { recursive: true });
    for (const name of [seg(13), '00000002.history']) {
      expect(await fetch(archive, [begun], name)).toMatchObject({ code: 205 });
    }
  });

  it('refuses the archive of another cluster', async () => {
    const archive = await stored('switch');
    writeControl(archive.data, 77n);
    expect((await fetch(archive, [archive.place], seg(7))).code).toBe(202);
    expect((await fetch(archive, [archive.place], '00000002.history')).code).toBe(202);
    // WAL of another cluster under this one's key.
    await beginArchive(archive.store, 77n);
    await put(archive.store, segmentKey(77n, seg(7)), segmentOf('switch', seg(7)));
    expect((await fetch(archive, [archive.place], seg(7))).code).toBe(202);
  });

  it('asks which cluster where there are several and no server tells', async () => {
    const archive = await stored('switch');
    await beginArchive(archive.store, 77n);
    expect((await fetch(archive, [archive.place], seg(7))).code).toBe(200);
    writeControl(archive.data, SYSTEM_ID);
    expect((await fetch(archive, [archive.place], seg(7))).code).toBe(0);
  });

  it('sees a hole, and damage', async () => {
    const archive = await stored('switch');
    await archive.store.remove([segmentKey(SYSTEM_ID, seg(8))]);
    expect((await fetch(archive, [archive.place], seg(8))).code).toBe(203);
    await put(archive.store, segmentKey(SYSTEM_ID, seg(8)), segmentOf('switch', seg(9)));
    expect((await fetch(archive, [archive.place], seg(8))).code).toBe(201);
    const path = join(archive.place, segmentKey(SYSTEM_ID, seg(9)));
    flip(path, 200);
    expect((await fetch(archive, [archive.place], seg(9))).code).toBeGreaterThan(125);
    const short = segmentOf('switch', seg(10)).subarray(0, SEGMENT / 2);
    await archive.store.remove([segmentKey(SYSTEM_ID, seg(10))]);
    await put(archive.store, segmentKey(SYSTEM_ID, seg(10)), short);
    expect((await fetch(archive, [archive.place], seg(10))).code).toBe(201);
  });
});

describe('fetch of what is encrypted', () => {
  const own = join(scratchDir('keys'), 'own');
  const other = join(scratchDir('keys'), 'other');
  let place: string;
  beforeAll(async () => {
    const secret = await generateX25519Identity();
    writeFileSync(own, `# ours\n${secret}\n`);
    writeFileSync(other, await generateX25519Identity());
    const recipients = await parseRecipients([await identityToRecipient(secret)]);
    const { dir } = archiveOf('switch');
    ({ place } = await storeArchiveOf(dir, (plain) =>
      encodeBytes(plain, { codec: 'zstd', recipients }),
    ));
  });

  it('opens it with the identities of a file or a command', async () => {
    const flat = archiveOf('switch');
    for (const keys of [
      { identityFiles: [own] },
      { identityFiles: [other, own] },
      { identityCommand: `cat ${own}` },
    ]) {
      expect(await fetch(flat, [place], seg(7), { keys })).toMatchObject({ code: 0 });
      expect(readFileSync(flat.target).equals(segmentOf('switch', seg(7)))).toBe(true);
    }
    const keys = { identityFiles: [own] };
    expect((await fetch(flat, [place], seg(12), { keys })).code).toBe(0);
    expect((await fetch(flat, [place], seg(13), { keys })).code).toBe(1);
    const { summary } = await verifyArchive(place, { keys });
    expect(summary).toMatchObject({ segments: 7, errors: 0 });
  });

  it('writes nothing without them, and says so', async () => {
    const flat = archiveOf('switch');
    for (const keys of [
      undefined,
      { identityFiles: [other] },
      { identityFiles: [join(place, 'nowhere')] },
      { identityCommand: 'false' },
    ]) {
      const found = await fetch(flat, [place], seg(7), { keys });
      expect(found).toMatchObject({ code: 205, error: { code: 'WK_ENCRYPTED' } });
    }
    expect(readdirSync(flat.out)).toEqual([]);
    const { summary } = await verifyArchive(place);
    expect(summary.errors).toBeGreaterThan(0);
  });

  it('finds one that was cut, or put in the place of another', async () => {
    const flat = archiveOf('switch');
    const keys = { identityFiles: [own] };
    const copy = join(scratchDir('store'), 'copy');
    cpSync(place, copy, { recursive: true });
    const path = (n: number) => join(copy, segmentKey(SYSTEM_ID, seg(n)));
    const whole = readFileSync(path(8));
    rmSync(join(copy, '.walkeep-store', 'meta'), { recursive: true });
    for (const bytes of [whole.subarray(0, -1), whole.subarray(0, 200), readFileSync(path(9))]) {
      writeFileSync(path(8), bytes);
      expect((await fetch(flat, [copy], seg(8), { keys })).code).toBe(201);
    }
  });
});

describe('fetch from several archives', () => {
  it('takes the first that has the file, and another for one that is damaged', async () => {
    const { flat, place } = await stored('switch');
    const places = [flat.dir, place];
    expect(await fetch(flat, places, seg(7))).toMatchObject({
      result: { path: join(flat.dir, seg(7)) },
    });
    rmSync(join(flat.dir, seg(7)));
    expect(await fetch(flat, places, seg(7))).toMatchObject({
      result: { path: expect.stringContaining(place) },
    });
    flip(join(flat.dir, seg(8)), 0x30);
    expect(await fetch(flat, places, seg(8))).toMatchObject({
      result: { passedOver: [{ code: 'WK_CORRUPT_WAL' }] },
    });
    expect(readFileSync(flat.target).equals(segmentOf('switch', seg(8)))).toBe(true);
    // The whole one, though the first has a part.
    writeFileSync(join(flat.dir, `${seg(9)}.partial`), segmentOf('switch', seg(9)));
    rmSync(join(flat.dir, seg(9)));
    const whole = await fetch(flat, places, seg(9));
    expect(whole).toMatchObject({ result: { path: expect.stringContaining(place) } });
  });

  it('says "not there" only if each says so', async () => {
    const { flat, place } = await stored('switch');
    const away = join(flat.data, 'nowhere');
    expect((await fetch(flat, [flat.dir, place], seg(13))).code).toBe(1);
    for (const places of [
      [away, place],
      [place, away],
      [flat.dir, away, place],
    ]) {
      expect((await fetch(flat, places, seg(13))).code).toBe(205);
      expect((await fetch(flat, places, '00000002.history')).code).toBe(205);
      // What is not whole may be so in the one that could not be asked.
      expect((await fetch(flat, places, seg(12))).code).toBe(205);
      expect((await fetch(flat, places, seg(7))).code).toBe(0);
    }
    mkdirSync(away);
    expect((await fetch(flat, [place, away], seg(13))).code).toBe(205);
    await expect(fetchFile({ places: [], name: seg(7), target: '/x' })).rejects.toMatchObject({
      code: 'WK_USAGE',
    });
  });

  it('takes the longest of several partials', async () => {
    const { flat, place, store } = await stored('switch');
    const name = `${seg(12)}.partial`;
    const content = readFileSync(join(flat.dir, name));
    const most = await fetch(flat, [place], seg(12));
    const { validEnd } = most.result as { validEnd: bigint };
    const cut = Buffer.from(content).fill(0, Number(validEnd % BigInt(SEGMENT)) - 40);
    writeFileSync(join(flat.dir, name), cut);
    for (const places of [
      [flat.dir, place],
      [place, flat.dir],
    ]) {
      const found = await fetch(flat, places, seg(12));
      expect(found).toMatchObject({ result: { validEnd, path: expect.stringContaining(place) } });
    }
    // A hole that the other one knows of.
    await put(store, segmentKey(SYSTEM_ID, seg(13)), segmentOf('switch', seg(9)));
    const keys: string[] = [];
    for await (const { key } of store.list(`${systemPrefix(SYSTEM_ID)}partial/`)) keys.push(key);
    await store.remove(keys);
    expect(keys[0]).toContain(partialKey(SYSTEM_ID, seg(12), 0n).slice(0, -16));
    expect((await fetch(flat, [flat.dir, place], seg(12))).code).toBe(203);
  });
});

it('reads ahead from the first archive that has the next segments', async () => {
  const { flat, place } = await stored('switch');
  for (const n of [7, 8]) rmSync(join(flat.dir, seg(n)));
  const spool = join(flat.out, '.walkeep-spool');
  mkdirSync(spool, { mode: 0o700 });
  const places = [join(flat.data, 'nowhere'), flat.dir, place];
  const order: AheadOrder = {
    ...{ places, name: seg(6), count: 3, dataDir: undefined },
    ...{ recovering: false, near: flat.out },
  };
  writeFileSync(join(spool, ORDER_FILE), JSON.stringify(order));
  const reading = readAhead(spool);
  const ready = () => readdirSync(spool).filter((name) => /^0.{23}-/.test(name));
  await waitFor(() => ready().length === 3, { what: 'three segments to be ready' });
  for (const n of [7, 8, 9]) {
    expect(await takePrefetched(spool, places, seg(n), undefined, flat.target)).toBe(true);
    expect(readFileSync(flat.target).equals(segmentOf('switch', seg(n)))).toBe(true);
  }
  expect(await takePrefetched(spool, places, seg(10), undefined, flat.target)).toBe(false);
  rmSync(join(spool, ORDER_FILE));
  await reading;
  expect(existsSync(spool)).toBe(false);
});
