import { chmodSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, expect, it } from 'vitest';
import { StoreAccessError } from '../../../src/errors.js';
import { openServerStore } from '../../../src/serve/config/stores.js';
import { contentOf } from '../../../src/store/content.js';
import { Service } from '../../store/s3/scripted-service.js';
import { scratchDir } from '../../support/scratch.js';

const WAL = contentOf(Buffer.from('WAL'));
const services: Service[] = [];
afterEach(async () => {
  for (const service of services.splice(0)) await service[Symbol.asyncDispose]();
});

async function serviceWithKeys() {
  const service = await Service.start();
  services.push(service);
  const valid = new Set(['first']);
  service.script = (request, usual) => {
    const [, key = ''] = /Credential=([^/]+)/.exec(request.headers.authorization ?? '') ?? [];
    if (valid.has(key)) return usual.usual(request);
    const body = '<Error><Code>InvalidAccessKeyId</Code><Message>no</Message></Error>';
    return { status: 403, body };
  };
  const dir = scratchDir('keys');
  const [accessKeyFile, secretKeyFile] = [join(dir, 'id'), join(dir, 'key')];
  const write = (id: string, mode = 0o600): void => {
    for (const [file, text] of [
      [accessKeyFile, id] as const,
      [secretKeyFile, 'kEtZeR99'] as const,
    ]) {
      writeFileSync(file, `${text}\n`);
      chmodSync(file, mode);
    }
  };
  write('first');
  const place = service.place().text;
  return { valid, write, accessKeyFile, access: { place, accessKeyFile, secretKeyFile } };
}

it('reads keys again when the store refuses the ones it has', async () => {
  const { valid, write, access } = await serviceWithKeys();
  const store = await openServerStore(access, { env: {} });
  try {
    await store.create('a', WAL);
    write('second');
    // As long as the old ones are good nobody looks.
    await store.create('b', WAL);
    valid.clear();
    await expect(store.create('c', WAL)).rejects.toThrow(StoreAccessError);
    valid.add('second');
    await store.create('d', WAL);
  } finally {
    await store.close();
  }
});

it('says what is wrong with a file of keys, and nothing of what is in it', async () => {
  const { write, access, accessKeyFile } = await serviceWithKeys();
  const store = await openServerStore(access, { env: {} });
  try {
    write('first', 0o644);
    const asked = store.create('a', WAL);
    await expect(asked).rejects.toThrow(StoreAccessError);
    await expect(asked).rejects.toThrow('may be read or written by others');
    await expect(asked).rejects.not.toThrow('kEtZeR99');
    rmSync(accessKeyFile);
    await expect(store.create('a', WAL)).rejects.toThrow('could not read file');
    write('first');
    await store.create('a', WAL);
  } finally {
    await store.close();
  }
});
