import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { expect, it } from 'vitest';
import { segmentKey } from '../../src/archive/store-keys.js';
import { parseRecipients } from '../../src/codec/age/recipients.js';
import { encodeBytes } from '../../src/codec/stages.js';
import { environmentOf, openStore } from '../store/s3/stores.js';
import { runCli } from '../support/cli.js';
import type { Rgw } from '../support/rgw.js';
import { sharedRgw } from '../support/rgw-setup.js';
import { scratchDir } from '../support/scratch.js';
import { beginArchive, put, storeFiles } from '../support/store-archive.js';
import { archiveOf, SYSTEM_ID } from '../support/wal-archive.js';

const shared = sharedRgw();
const rgw = shared as Rgw;

it.skipIf(!shared)('says of an object store who can read it', async () => {
  const secrets = [await generateX25519Identity(), await generateX25519Identity()];
  const names = await Promise.all(secrets.map(identityToRecipient));
  const [used, unused] = names as [string, string];
  const recipients = await parseRecipients(used);
  const bucket = await rgw.createBucket();
  await using store = openStore(rgw, bucket);
  await beginArchive(store);
  await storeFiles(store, archiveOf('switch').dir, (plain) =>
    encodeBytes(plain, { codec: 'gzip', recipients }),
  );
  const file = join(scratchDir('keys'), 'identity');
  writeFileSync(file, secrets.join('\n'));
  const check = async (where = bucket) => {
    const place = `s3://${where}?endpoint=${rgw.facts.http}`;
    const run = runCli(['key', 'check', '--identity', file, place], {
      env: environmentOf(rgw.owner),
    });
    const { code } = await run.exit;
    return { code, stdout: run.stdout, stderr: run.stderr };
  };
  const found = await check();
  expect(found).toMatchObject({ code: 0, stderr: '' });
  expect(found.stdout).toContain(`  opened by ${used}\nlooked at 7 of 7 objects\n`);
  expect(found.stdout).toContain(`opens nothing: ${unused}\n`);
  const cut = '000000010000000000000020';
  await put(store, segmentKey(SYSTEM_ID, cut), new Uint8Array(0));
  expect(await check()).toMatchObject({
    code: 1,
    stdout: expect.stringContaining(`${cut}\n  1 object: begins with nothing that is known\n`),
  });
  expect(await check(`${bucket}-none`)).toMatchObject({ code: 2, stdout: '' });
});
