import { describe, expect, it } from 'vitest';
import { contentOf } from '../../../src/store/content.js';
import { blocksOf } from '../../docs/documents.js';
import type { Rgw } from '../../support/rgw.js';
import { sharedRgw } from '../../support/rgw-setup.js';
import { bytesOf, openStore } from './stores.js';

const rgw = sharedRgw();
const body = contentOf(Buffer.from('a segment'));

/** The policy that docs/stores.md has for a role, for this bucket. */
function policyOf(role: string, bucket: string): string {
  const [block, ...more] = blocksOf('docs/stores.md').filter(
    ({ language, info }) => language === 'json' && info === `policy=${role}`,
  );
  if (!block || more.length > 0) throw new Error(`no one policy for ${role}`);
  return block.text.replaceAll('shop-wal', bucket);
}

/** A bucket with an object in it, and a store of somebody with a role there. */
async function withRole(gateway: Rgw, document: (bucket: string) => string) {
  const bucket = await gateway.createBucket();
  const owner = openStore(gateway, bucket);
  await owner.create('shop/old', body);
  const { user, ...keys } = await gateway.createUser();
  await gateway.grant(user, document(bucket));
  return { owner, store: openStore(gateway, bucket, { keys }) };
}

describe.skipIf(!rgw)('the policies of docs/stores.md', () => {
  const inRole = (role: string) => withRole(rgw as Rgw, (bucket) => policyOf(role, bucket));
  const refused = { code: 'WK_STORE_ACCESS' };

  it('ship: creates and reads, and removes nothing', async () => {
    const { store, owner } = await inRole('ship');
    expect(await store.create('shop/new', body)).toEqual({ created: true });
    expect(await store.create('shop/new', body)).toMatchObject({ created: false });
    await reads(store);
    await expect(store.remove(['shop/old'])).rejects.toMatchObject(refused);
    expect((await bytesOf(owner, 'shop/old'))?.toString()).toBe('a segment');
  });

  it('ship: can find out what the store can do', async () => {
    const { store } = await inRole('ship');
    expect(await store.probe()).toMatchObject({ conditionalCreate: true, versioning: false });
  });

  it('expire: removes as well', async () => {
    const { store, owner } = await inRole('expire');
    await store.create('shop/lease', body);
    await reads(store);
    expect(await store.remove(['shop/old'])).toEqual({ removed: ['shop/old'], retained: [] });
    expect(await owner.head('shop/old')).toBeUndefined();
  });

  it('restore: reads only', async () => {
    const { store, owner } = await inRole('restore');
    await reads(store);
    await expect(store.create('shop/new', body)).rejects.toMatchObject(refused);
    await expect(store.remove(['shop/old'])).rejects.toMatchObject(refused);
    expect(await owner.head('shop/new')).toBeUndefined();
    expect(await owner.head('shop/old')).toBeDefined();
  });

  it('nobody else gets in', async () => {
    const { store } = await withRole(rgw as Rgw, () => policyOf('restore', 'another-bucket'));
    await expect(store.get('shop/old')).rejects.toMatchObject(refused);
    await expect(store.get('shop/absent')).rejects.toMatchObject(refused);
    await expect(listed(store)).rejects.toMatchObject(refused);
  });

  it('with a condition on the prefix nothing would be proven absent', async () => {
    const { store } = await withRole(rgw as Rgw, (bucket) => {
      const policy = JSON.parse(policyOf('restore', bucket));
      policy.Statement[0].Condition = { StringLike: { 's3:prefix': 'shop/*' } };
      return JSON.stringify(policy);
    });
    expect((await bytesOf(store, 'shop/old'))?.toString()).toBe('a segment');
    expect(await listed(store)).toContain('shop/old');
    await expect(store.get('shop/absent')).rejects.toMatchObject(refused);
  });
});

type Store = ReturnType<typeof openStore>;

async function reads(store: Store): Promise<void> {
  expect((await bytesOf(store, 'shop/old'))?.toString()).toBe('a segment');
  expect(await store.head('shop/old')).toMatchObject({ size: body.size });
  expect(await listed(store)).toContain('shop/old');
  expect(await store.get('shop/absent')).toBeUndefined();
  expect(await store.head('shop/absent')).toBeUndefined();
}

async function listed(store: Store): Promise<string[]> {
  const keys: string[] = [];
  for await (const { key } of store.list('shop/')) keys.push(key);
  return keys;
}
