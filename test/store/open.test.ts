import { describe, expect, it } from 'vitest';
import { StoreAccessError, UsageError } from '../../src/errors.js';
import { contentOf } from '../../src/store/content.js';
import { openStore } from '../../src/store/open.js';
import { scratchDir } from '../support/scratch.js';

describe('openStore', () => {
  it('opens a directory, and makes one only when told', async () => {
    const path = `${scratchDir('open')}/new`;
    await expect(openStore(path)).rejects.toThrow(StoreAccessError);
    await using store = await openStore(`file://${path}`, { init: true });
    await store.create('key', contentOf(Buffer.from('x')));
    await using again = await openStore(path);
    expect(await again.head('key')).toMatchObject({ size: 1 });
  });

  it('opens a bucket without asking anybody', async () => {
    await using store = await openStore('s3://bucket/shop?endpoint=http://127.0.0.1:1', {
      env: { AWS_EC2_METADATA_DISABLED: 'true' },
    });
    expect(store.place).toContain('s3://bucket/shop');
    await expect(store.head('key')).rejects.toThrow(/AWS_ACCESS_KEY_ID|credentials/);
  });

  it('refuses what is no place', async () => {
    await expect(openStore('ftp://host/x')).rejects.toThrow(UsageError);
  });
});
