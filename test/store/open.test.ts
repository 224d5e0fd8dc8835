import { describe, expect, it } from 'vitest';
import { StoreAccessError, UsageError, WalkeepError } from '../../src/errors.js';
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

  it('opens a directory on another host without going there', async () => {
    const env = { WALKEEP_RSH: '/no/such/program', PATH: '' };
    const patience = { whole: 500 };
    await using store = await openStore('ssh://host/archive', { env, patience });
    expect(store.place).toBe('ssh://host/archive');
    await expect(store.head('key')).rejects.toThrow(WalkeepError);
  });

  it('refuses what is no place', async () => {
    await expect(openStore('ftp://host/x')).rejects.toThrow(UsageError);
  });
});
