import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { blocksOf } from '../docs/documents.js';
import { bytesOf, environmentOf, openStore } from '../store/s3/stores.js';
import { sampleArchive } from '../support/archives.js';
import { disposer } from '../support/cleanup.js';
import { runCli } from '../support/cli.js';
import { sharedRgw } from '../support/rgw-setup.js';
import { scratchDir } from '../support/scratch.js';

const rgw = sharedRgw();
const keep = disposer();

describe.skipIf(!rgw)('walkeep ship to an object store', () => {
  it('stores all in the role that may not remove, and again from elsewhere', async () => {
    const bucket = await rgw!.createBucket();
    const { user, ...keys } = await rgw!.createUser();
    const [policy] = blocksOf('docs/stores.md').filter(({ info }) => info === 'policy=ship');
    await rgw!.grant(user, policy!.text.replaceAll('shop-wal', bucket));
    const { directory, names } = sampleArchive(12);
    const place = `s3://${bucket}/shop?endpoint=${rgw!.facts.http}`;
    const ship = async (...args: string[]) => {
      const cli = keep(runCli(['ship', '--once', '-v', ...args], { env: environmentOf(keys) }));
      return { ...(await cli.exit), stderr: cli.stderr };
    };
    expect(await ship('-Z', 'none', directory, place)).toMatchObject({ code: 0 });
    // What it stored is its own.
    const store = openStore(rgw!, bucket, { keys });
    for (const name of names.slice(0, -1)) {
      const key = `shop/systems/77/wal/00000001/${name}`;
      const stored = await bytesOf(store, key);
      expect(stored?.equals(readFileSync(join(directory, name))), name).toBe(true);
    }
    // Another receiver of the same server.
    const other = sampleArchive(12).directory;
    const again = await ship('-j', '4', other, place);
    expect(again).toMatchObject({ code: 0 });
    expect(again.stderr.match(/is there already/g)).toHaveLength(names.length);
    const foreign = sampleArchive(3, { systemId: 78n }).directory;
    expect(await ship('--state', scratchDir('state'), foreign, place)).toMatchObject({ code: 3 });
    const none = `s3://${bucket}-none/shop?endpoint=${rgw!.facts.http}`;
    const refused = await ship('--state', scratchDir('state'), directory, none);
    expect(refused).toMatchObject({ code: 2 });
    // From place to place.
    const env = { ...environmentOf(keys), XDG_STATE_HOME: scratchDir('states') };
    const next = await rgw!.createBucket();
    await rgw!.allow(next, user, ['GetObject', 'PutObject', 'ListBucket']);
    const second = `s3://${next}?endpoint=${rgw!.facts.http}`;
    const moved = keep(runCli(['ship', '--once', '-v', place, second], { env }));
    expect(await moved.exit).toEqual({ code: 0, signal: null });
    expect(moved.stderr.match(/shipped, /g)).toHaveLength(names.length);
  });
});
