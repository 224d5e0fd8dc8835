import { mkdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { segmentKey } from '../../src/archive/store-keys.js';
import { encodeBytes } from '../../src/codec/stages.js';
import { openFileStore } from '../../src/store/file/file-store.js';
import { environmentOf, openStore } from '../store/s3/stores.js';
import { CertificateAuthority } from '../support/certificates.js';
import { type CliOptions, runCli } from '../support/cli.js';
import { FaultProxy } from '../support/fault-proxy.js';
import type { Rgw } from '../support/rgw.js';
import { sharedRgw } from '../support/rgw-setup.js';
import { scratchDir } from '../support/scratch.js';
import { sshdOfSuite, sshMissing } from '../support/sshd.js';
import { beginArchive, storeArchiveOf, storeFiles } from '../support/store-archive.js';
import { archiveOf, SYSTEM_ID, segmentOf, writeControl } from '../support/wal-archive.js';

const seg = (n: number) => `0000000100000000${n.toString(16).toUpperCase().padStart(8, '0')}`;
const zstd = (plain: Buffer) => encodeBytes(plain, { codec: 'zstd' });
const shared = sharedRgw();
const rgw = shared as Rgw;

async function command(args: string[], options: CliOptions) {
  const run = runCli(args, options);
  const { code } = await run.exit;
  return { code, stdout: run.stdout, stderr: run.stderr };
}

/** What restore_command gets of the places, run where a server recovers. */
function fetcher(flat: ReturnType<typeof archiveOf>, env: Record<string, string>) {
  writeControl(flat.data, SYSTEM_ID);
  return async (places: string[], name: string) => {
    const args = ['fetch', ...places, name, 'pg_wal/RECOVERYXLOG'];
    const { code, stderr } = await command(args, { cwd: flat.data, env });
    return { code, stderr };
  };
}

describe.skipIf(!shared)('fetch from an object store', () => {
  let bucket: string;
  let place: string;
  const flat = archiveOf('switch');
  beforeAll(async () => {
    bucket = await rgw.createBucket();
    place = `s3://${bucket}?endpoint=${rgw.facts.http}`;
    await using store = openStore(rgw, bucket);
    await beginArchive(store);
    await storeFiles(store, flat.dir, zstd);
  });

  it('asks once for a segment', async () => {
    await using proxy = await FaultProxy.listen({ target: rgw.facts.http });
    const fetch = fetcher(flat, environmentOf(rgw.owner));
    for (const n of [6, 7, 8]) {
      const { code } = await fetch([`s3://${bucket}?endpoint=${proxy.url}`], seg(n));
      expect(code).toBe(0);
    }
    const asked = proxy.seen.map(({ method, path }) => `${method} ${path.split('?')[0]}`);
    expect(asked).toEqual([6, 7, 8].map((n) => `GET /${bucket}/${segmentKey(SYSTEM_ID, seg(n))}`));
  });

  it('serves what is there, and says what is not', async () => {
    const fetch = fetcher(flat, environmentOf(rgw.owner));
    expect(await fetch([place], seg(7))).toEqual({ code: 0, stderr: '' });
    expect(readFileSync(flat.target).equals(segmentOf('switch', seg(7)))).toBe(true);
    expect((await fetch([place], seg(12))).code).toBe(0);
    expect(await fetch([place], seg(13))).toEqual({ code: 1, stderr: '' });
    expect(await fetch([place], '00000002.history')).toEqual({ code: 1, stderr: '' });
  });

  it('tells what could not be asked from what is not there', async () => {
    const env = environmentOf(rgw.owner);
    const fetch = fetcher(flat, env);
    const user = await rgw.createUser();
    const strangers = fetcher(flat, environmentOf(user));
    const { cert: ca } = await CertificateAuthority.create(scratchDir('ca'));
    const empty = await rgw.createBucket();
    const nowhere = [
      `s3://${bucket}-not?endpoint=${rgw.facts.http}`,
      `s3://${empty}?endpoint=${rgw.facts.http}`,
      `s3://${bucket}/elsewhere?endpoint=${rgw.facts.http}`,
      `s3://${bucket}?endpoint=${rgw.facts.https}&ca=${ca}`,
    ];
    for (const name of [seg(7), seg(13), '00000002.history']) {
      const { code } = await strangers([place], name);
      expect([name, code]).toEqual([name, 205]);
      for (const wrong of nowhere) {
        expect([wrong, name, (await fetch([wrong], name)).code]).toEqual([wrong, name, 205]);
      }
    }
    // These are tried again for a while.
    const away = ['http://127.0.0.1:1', 'http://nowhere.invalid'].map(
      (endpoint) => `s3://${bucket}?endpoint=${endpoint}`,
    );
    const asked = away.flatMap((place) => [seg(7), seg(13)].map((name) => fetch([place], name)));
    for (const { code } of await Promise.all(asked)) expect(code).toBe(205);
    for (const wrong of nowhere.slice(1, 3)) {
      expect((await fetch([wrong, place], seg(7))).code).toBe(0);
      expect((await fetch([wrong, place], seg(13))).code).toBe(205);
    }
  });

  it('is read by the other commands, too', async () => {
    const env = environmentOf(rgw.owner);
    const verified = await command(['verify', place], { env });
    expect(verified).toMatchObject({ code: 0, stdout: expect.stringContaining('7 segments') });
    expect(await command(['list', place], { env })).toMatchObject({ code: 0 });
    expect(await command(['find', '--limit', '1', flat.dir, place], { env })).toMatchObject({
      code: 0,
    });
    const planned = await command(['cleanup', '-n', place, seg(8)], { env });
    expect(
      planned.stdout
        .trim()
        .split('\n')
        .map((line) => line.split('/').at(-1)),
    ).toEqual([seg(6), seg(7)]);
    expect((await command(['cleanup', place, seg(7)], { env })).code).toBe(0);
    await using store = openStore(rgw, bucket);
    expect(await store.head(segmentKey(SYSTEM_ID, seg(6)))).toBeUndefined();
    expect(await store.head(segmentKey(SYSTEM_ID, seg(7)))).toBeDefined();
  });
});

describe.skipIf(sshMissing)(
  `fetch from another host${sshMissing ? ` (${sshMissing})` : ''}`,
  () => {
    const own = sshdOfSuite();

    it('serves what is there, and tells what could not be asked from what is not there', async () => {
      const flat = archiveOf('switch');
      const { place } = await storeArchiveOf(flat.dir, zstd);
      const fetch = fetcher(flat, own.env);
      expect(await fetch([own.sshd.place(place)], seg(7))).toEqual({ code: 0, stderr: '' });
      expect(readFileSync(flat.target).equals(segmentOf('switch', seg(7)))).toBe(true);
      expect(await fetch([own.sshd.place(place)], seg(13))).toEqual({ code: 1, stderr: '' });
      const empty = join(scratchDir('store'), 'empty');
      mkdirSync(empty);
      const begun = join(scratchDir('store'), 'begun');
      await openFileStore(begun, { init: true });
      for (const there of [join(empty, 'nowhere'), empty, begun]) {
        expect([there, (await fetch([own.sshd.place(there)], seg(13))).code]).toEqual([there, 205]);
      }
      const without = fetcher(flat, { ...own.env, WALKEEP_RSH: '/nowhere/ssh' });
      expect((await without([own.sshd.place(place)], seg(13))).code).toBe(205);
      const refused = fetcher(flat, {
        ...own.env,
        WALKEEP_RSH: 'ssh -F none -o IdentityFile=none',
      });
      expect((await refused([own.sshd.place(place)], seg(13))).code).toBe(205);
    });
  },
);
