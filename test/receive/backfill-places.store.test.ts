import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { afterEach, describe, expect, it } from 'vitest';
import { parseRecipients } from '../../src/codec/age/recipients.js';
import { encodeBytes } from '../../src/codec/stages.js';
import { type BackfillPlace, BackfillWork } from '../../src/receive/backfill/work.js';
import { environmentOf, openStore } from '../store/s3/stores.js';
import type { Rgw } from '../support/rgw.js';
import { sharedRgw } from '../support/rgw-setup.js';
import { scratchDir } from '../support/scratch.js';
import { sshdOfSuite, sshMissing } from '../support/sshd.js';
import { beginArchive, storeArchiveOf, storeFiles } from '../support/store-archive.js';
import { archiveOf, SYSTEM_ID, segmentOf, writeLedger } from '../support/wal-archive.js';

const seg = (n: number) => `0000000100000000${n.toString(16).toUpperCase().padStart(8, '0')}`;
const shared = sharedRgw();
const rgw = shared as Rgw;
const before = { ...process.env };
let work: BackfillWork;
afterEach(async () => {
  await work?.close();
  process.env = { ...before };
});

/** All that can be had from a place comes, as it was written, and once; what is not there does not. */
async function fills(place: string, keys = {}, env: Record<string, string> = {}): Promise<void> {
  Object.assign(process.env, env);
  work = new BackfillWork();
  const directory = scratchDir('own');
  const from: BackfillPlace = { place, directory, keys, systemId: SYSTEM_ID };
  const names = [6, 7, 8, 9, 10, 11].map(seg);
  const look = await work.run({ ...from, ask: 'look' });
  expect(look).toMatchObject({ state: 'looked', begun: true });
  expect([...(look as { segments: Set<string> }).segments].sort()).toEqual(names);
  const take = (name: string) => work.run({ ...from, ask: 'take', name });
  for (const name of names) {
    expect(await take(name)).toEqual({ state: 'stored' });
    expect(readFileSync(join(directory, name)).equals(segmentOf('switch', name))).toBe(true);
  }
  expect(await take(seg(8))).toEqual({ state: 'present' });
  // The last one is not whole there.
  expect(await take(seg(12))).toEqual({ state: 'absent' });
  writeFileSync(join(directory, seg(9)), segmentOf('switch', seg(10)));
  expect(await take(seg(9))).toMatchObject({ state: 'failed', refused: true });
  expect(
    readdirSync(directory)
      .filter((name) => !name.startsWith('.'))
      .sort(),
  ).toEqual(names);
  expect(existsSync(join(directory, '.walkeep-backfill'))).toBe(false);
  const another = { ...from, systemId: SYSTEM_ID + 1n };
  expect(await work.run({ ...another, ask: 'look' })).toMatchObject({ state: 'failed' });
  // A store is asked for that cluster's, of which it has none.
  const taken = await work.run({ ...another, ask: 'take', name: seg(7) });
  expect(['failed', 'absent']).toContain(taken.state);
}

describe('a receiver is filled from', () => {
  it('a directory', async () => {
    const { dir } = archiveOf('switch');
    await writeLedger(dir, [[1, '0/600000']], '0/C00000');
    await fills(dir);
  });

  it('a store in a directory', async () => {
    await fills((await storeArchiveOf(archiveOf('switch').dir)).place);
  });

  it('an encrypted one, with the key and not without', async () => {
    const secret = await generateX25519Identity();
    const recipients = await parseRecipients([await identityToRecipient(secret)]);
    const { place } = await storeArchiveOf(archiveOf('switch').dir, (plain) =>
      encodeBytes(plain, { codec: 'zstd', recipients }),
    );
    const identity = join(scratchDir('key'), 'identity');
    writeFileSync(identity, `${secret}\n`, { mode: 0o600 });
    await fills(place, { identityFiles: [identity] });
    work = new BackfillWork();
    const directory = scratchDir('own');
    const without = { place, directory, keys: {}, systemId: SYSTEM_ID };
    const answer = await work.run({ ...without, ask: 'take', name: seg(7) });
    expect(answer).toMatchObject({ state: 'failed', refused: true });
    expect(readdirSync(directory)).toEqual([]);
  });
});

describe.skipIf(!shared)('a receiver is filled from', () => {
  it('an object store', async () => {
    const bucket = await rgw.createBucket();
    await using store = openStore(rgw, bucket);
    await beginArchive(store);
    await storeFiles(store, archiveOf('switch').dir);
    const place = `s3://${bucket}?endpoint=${rgw.facts.http}`;
    await fills(place, {}, environmentOf(rgw.owner));
  });
});

describe.skipIf(sshMissing)('a receiver is filled from another machine', () => {
  const own = sshdOfSuite();

  it("which has a receiver's directory", async () => {
    const { dir } = archiveOf('switch');
    await writeLedger(dir, [[1, '0/600000']], '0/C00000');
    await fills(own.sshd.place(dir), {}, own.env);
  });

  it('and later, where it cannot be asked', async () => {
    Object.assign(process.env, own.env, { WALKEEP_RSH: '/nowhere/ssh' });
    work = new BackfillWork();
    const from = { place: own.sshd.place(archiveOf('switch').dir), keys: {}, systemId: SYSTEM_ID };
    const answer = await work.run({ ...from, directory: scratchDir('own'), ask: 'look' });
    expect(answer).toMatchObject({ state: 'failed', refused: false });
  });
});
