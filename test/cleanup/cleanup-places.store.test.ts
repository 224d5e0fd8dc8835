import { expect, test } from 'vitest';
import { backupHistoryKey, segmentKey } from '../../src/archive/store-keys.js';
import { environmentOf, openStore } from '../store/s3/stores.js';
import { runCli } from '../support/cli.js';
import { FaultProxy } from '../support/fault-proxy.js';
import type { Rgw } from '../support/rgw.js';
import { sharedRgw } from '../support/rgw-setup.js';
import { beginArchive, put, storeFiles } from '../support/store-archive.js';
import { archiveOf, SYSTEM_ID } from '../support/wal-archive.js';

const shared = sharedRgw();
const rgw = shared as Rgw;
const segment = (n: number) => `0000000100000000${n.toString(16).toUpperCase().padStart(8, '0')}`;

test.skipIf(!shared)('one request removes what a dry run shows, in an object store', async () => {
  const bucket = await rgw.createBucket();
  await using store = openStore(rgw, bucket);
  await beginArchive(store);
  await storeFiles(store, archiveOf('switch').dir);
  const backup = `${segment(7)}.00000028.backup`;
  await put(store, backupHistoryKey(SYSTEM_ID, backup), Buffer.from('x'));
  await using proxy = await FaultProxy.listen({ target: rgw.facts.http });
  const place = `s3://${bucket}?endpoint=${proxy.url}`;
  const clean = async (...args: string[]) => {
    const run = runCli(['cleanup', ...args, place, segment(9)], { env: environmentOf(rgw.owner) });
    const { code } = await run.exit;
    return { code, stdout: run.stdout, stderr: run.stderr };
  };
  const dry = await clean('-n', '-b');
  const names = [segment(6), segment(7), backup, segment(8)];
  expect(dry).toMatchObject({
    code: 0,
    stdout: names.map((name) => `${place}/${name}\n`).join(''),
  });
  expect(await store.head(segmentKey(SYSTEM_ID, segment(6)))).toBeDefined();
  proxy.seen.length = 0;
  expect(await clean()).toEqual({ code: 0, stdout: '', stderr: '' });
  expect(proxy.seen.filter(({ method }) => method !== 'GET')).toHaveLength(1);
  // Of the segment in its name nothing goes with it, nor it with that.
  expect(await store.head(backupHistoryKey(SYSTEM_ID, backup))).toBeDefined();
  expect(await clean('-b')).toEqual({ code: 0, stdout: '', stderr: '' });
  expect(await store.head(backupHistoryKey(SYSTEM_ID, backup))).toBeUndefined();
  const left: string[] = [];
  for await (const { key } of store.list('systems/')) left.push(key.split('/').at(-1)!);
  expect(left).toEqual(expect.arrayContaining([segment(9), segment(11)]));
  for (const name of names) expect(left).not.toContain(name);
});
