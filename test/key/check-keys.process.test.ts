import { spawnSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { expect, it } from 'vitest';
import { parseRecipients } from '../../src/codec/age/recipients.js';
import { encodeBytes } from '../../src/codec/stages.js';
import { packageRoot, scratchDir } from '../support/scratch.js';
import { storeArchiveOf } from '../support/store-archive.js';
import { archiveOf } from '../support/wal-archive.js';

const BIN = join(packageRoot, 'bin', 'walkeep');

it('the program answers with 0 or 1, and with 2 where node does not even start', async () => {
  const [used, unused] = [await generateX25519Identity(), await generateX25519Identity()];
  const name = await identityToRecipient(used);
  const recipients = await parseRecipients(name);
  const { place } = await storeArchiveOf(archiveOf('promoted').dir, (plain) =>
    encodeBytes(plain, { codec: 'gzip', recipients }),
  );
  const check = (secret: string, env: Record<string, string> = {}) => {
    const file = join(scratchDir('keys'), 'identity');
    writeFileSync(file, secret);
    const args = ['key', 'check', '--identity-command', `cat ${file}`, place];
    return spawnSync(BIN, args, { encoding: 'utf8', env: { ...process.env, ...env } });
  };
  const found = check(used);
  expect(found).toMatchObject({ status: 0, stderr: '' });
  expect(found.stdout).toContain(`opened by ${name}\n`);
  expect(check(unused)).toMatchObject({ status: 1, stderr: '' });
  expect(check(used, { NODE_OPTIONS: '--no-such-option' }).status).toBe(2);
});
