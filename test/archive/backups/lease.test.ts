import { spawnSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import type { BackupArea } from '../../../src/archive/backups/area.js';
import { backupKey } from '../../../src/archive/backups/keys.js';
import {
  endDeadLeases,
  holdIntent,
  holdLease,
  readLeases,
  type WatchedLease,
} from '../../../src/archive/backups/lease.js';
import { ArchiveBusyError, LeaseLostError } from '../../../src/errors.js';
import { ownIdentity } from '../../../src/files/process-identity.js';
import type { Lsn } from '../../../src/lsn.js';
import { contentOf } from '../../../src/store/content.js';
import { MemoryStore } from '../../../src/store/memory.js';
import { Interleaving } from '../../support/interleaving.js';

const lsn = (n: number) => BigInt(n) as Lsn;
const area = (store: MemoryStore): BackupArea => ({
  ...{ place: 'memory:', store, prefix: 'systems/1/' },
  close: async () => {},
});
const keysOf = (world: Interleaving) => world.objects.entries().map(([key]) => key);

const json = (content: object) => Buffer.from(JSON.stringify({ format: 1, ...content }));

const NEEDS = { backups: ['B'], wal: [{ timeline: 1, lsn: lsn(100) }] };

function lease(world: Interleaving, who: string, needs = NEEDS) {
  const store = world.store(who);
  const options = { id: who, kind: 'restore' as const, needs, timing: world.timing(who) };
  return holdLease(area(store), options);
}

function intent(world: Interleaving, who: string) {
  return holdIntent(area(world.store(who)), { id: who, timing: world.timing(who) });
}

describe('a lease', () => {
  it('is renewed, can be read, and is gone when it is released', async () => {
    const world = new Interleaving(1);
    const run = async () => {
      const held = await lease(world, 'restore');
      await world.pass('restore', 1_000_000);
      const leases = await readLeases(area(world.store('restore')));
      expect(leases).toMatchObject([{ id: 'restore', kind: 'restore', needs: NEEDS }]);
      await held.confirm();
      expect(keysOf(world)).toHaveLength(2);
      await held.release();
    };
    await world.run([run()]);
    expect(keysOf(world)).toEqual([]);
  });

  it('is seen by an expire, or sees it, however their calls come', async () => {
    for (let seed = 1; seed <= 300; seed++) {
      const world = new Interleaving(seed);
      /** What is needed, and whether it was taken for not to be removed. */
      let holding = false;
      const reads = async () => {
        const held = await lease(world, 'restore');
        holding = true;
        await world.pass('restore', world.random(400_000));
        holding = false;
        await held.release();
      };
      const expires = async (who: string) => {
        const own = await intent(world, who);
        const needed = (await own.leases()).length > 0;
        await own.settle({ backups: needed ? [] : ['B'], wal: [] });
        await world.pass(who, world.random(100_000));
        await own.confirm();
        if (!needed) expect(holding, `${seed}`).toBe(false);
        await own.release();
      };
      await world.run([reads(), expires('one'), expires('two')]);
      expect(keysOf(world), `${seed}`).toEqual([]);
    }
  });

  it('does not wait for an expire that was killed before it said what it removes', async () => {
    const store = new MemoryStore();
    // A younger process has its number.
    const process = { ...(await ownIdentity()), startTime: '1' };
    const put = (key: string, content: object) =>
      store.create(`systems/1/intent/${key}/0123456789abcdef/00000000`, contentOf(json(content)));
    await put('dead', { kind: 'expire', process });
    const options = { id: 'backup', kind: 'backup' as const, needs: NEEDS, patience: 0 };
    await (await holdLease(area(store), options)).release();
    expect(store.objects.entries()).toEqual([]);
    // What it had asked for may still be done.
    await put('settled', { kind: 'expire', process, backups: ['B'], wal: [] });
    await expect(holdLease(area(store), options)).rejects.toThrow(ArchiveBusyError);
    await put('alive', { kind: 'expire', process: await ownIdentity() });
    const others = { ...options, needs: { backups: ['C'], wal: [] } };
    await expect(holdLease(area(store), others)).rejects.toThrow(ArchiveBusyError);
  });

  it('waits no longer than it is to, and leaves nothing behind', async () => {
    const world = new Interleaving(1);
    const run = async () => {
      const own = await intent(world, 'expire');
      const timing = world.timing('backup');
      const told: string[] = [];
      const held = holdLease(area(world.store('backup')), {
        ...{ id: 'backup', kind: 'backup' as const, needs: NEEDS, timing, patience: 60_000 },
        onWait: (expire) => void told.push(expire),
      });
      await expect(held).rejects.toThrow(ArchiveBusyError);
      expect(told).toEqual(['expire']);
      // What it settles for says of others that they may go on.
      await own.settle({
        backups: ['A'],
        wal: [{ timeline: 1, from: lsn(0), to: lsn(100) }],
      });
      await (await lease(world, 'restore')).release();
      const other = { backups: ['A'], wal: [] };
      const last = lease(world, 'late', other);
      await world.pass('expire', 5_000);
      await own.release();
      await (await last).release();
    };
    await world.run([run()]);
    expect(keysOf(world)).toEqual([]);
  });

  it('of one who is dead ends by itself', async () => {
    const world = new Interleaving(1);
    const run = async () => {
      const dead = world.store('dead');
      await holdLease(area(dead), {
        ...{ id: 'dead', kind: 'backup', needs: NEEDS },
        timing: world.timing('dead'),
      });
      dead.crash();
      await world.pass('later', 600_000);
      const first = await intent(world, 'later');
      expect(await first.leases()).toHaveLength(1);
      await first.release();
      await world.pass('later', 600_000);
      const second = await intent(world, 'later');
      expect(await second.leases()).toEqual([]);
      await second.release();
    };
    await world.run([run()]);
    expect(keysOf(world)).toEqual([]);
  });

  it.each([-30, -1, 1, 30])(
    'lives on when the clock of the place is set by %s days',
    async (days) => {
      const world = new Interleaving(1);
      const run = async () => {
        const held = await lease(world, 'restore');
        await world.pass('restore', 30_000);
        world.ahead = days * 86_400_000;
        const own = await intent(world, 'expire');
        expect(await own.leases()).toHaveLength(1);
        await own.release();
        await held.confirm();
        await held.release();
      };
      await world.run([run()]);
    },
  );

  it('that was ended by others is lost, also where nothing can be removed', async () => {
    for (const locked of [false, true]) {
      const world = new Interleaving(1);
      const run = async () => {
        const store = world.store('restore');
        const asleep = world.timing('restore', { renew: 10_000_000 });
        const options = { id: 'r', kind: 'restore' as const, needs: NEEDS, timing: asleep };
        const held = await holdLease(area(store), options);
        await held.confirm();
        await world.pass('restore', 1_000_000);
        const other = world.store('expire');
        if (locked) other.remove = async (keys) => ({ removed: [], retained: [...keys] });
        const own = await holdIntent(area(other), { id: 'e', timing: world.timing('expire') });
        expect(await own.leases()).toEqual([]);
        await expect(held.confirm()).rejects.toThrow(LeaseLostError);
        expect(held.signal.aborted).toBe(true);
        expect(await own.leases()).toEqual([]);
        await own.release();
      };
      await world.run([run()]);
    }
  });

  it('is never ended and held at the same time', async () => {
    for (let seed = 1; seed <= 300; seed++) {
      const world = new Interleaving(seed);
      const asleep = world.timing('restore', { renew: 10_000_000 });
      const options = { id: 'r', kind: 'restore' as const, needs: NEEDS, timing: asleep };
      const run = async () => {
        const held = await holdLease(area(world.store('restore')), options);
        await held.confirm();
        await world.pass('restore', 1_000_000);
        let ended = false;
        let alive = false;
        const wakes = async () => {
          await world.pass('restore', 150_000 + world.random(3));
          alive = await held.confirm().then(
            () => true,
            () => false,
          );
        };
        const expires = async () => {
          const own = await intent(world, 'expire');
          ended = (await own.leases()).length === 0;
          await own.release();
        };
        await Promise.all([wakes(), expires()]);
        expect(ended && alive, `${seed}`).toBe(false);
        await held.release();
      };
      await world.run([run()]);
    }
  });

  it('is ended at once where its backup exists, and watched, which is told, where it may not', async () => {
    const world = new Interleaving(1);
    const run = async () => {
      for (const [who, kind] of [
        ['whole', 'backup'],
        ['begun', 'backup'],
        ['whole', 'restore'],
      ] as const) {
        const store = world.store(who);
        await holdLease(area(store), {
          ...{ id: who, kind, needs: NEEDS, timing: world.timing(who) },
        });
        store.crash();
      }
      const store = world.store('next');
      const key = backupKey('systems/1/', 'whole', 'backup.json');
      await store.create(key, contentOf(Buffer.from('{}')));
      const timing = world.timing('next');
      const left = async () =>
        (await readLeases(area(store))).map(({ id, kind }) => `${id} ${kind}`);
      const look = async () => {
        await store.create(`now/${world.mono}`, contentOf(Buffer.from('x')));
        const now = (await store.head(`now/${world.mono}`))?.modified as Date;
        await endDeadLeases(area(store), { now, timing });
        return left();
      };
      expect(await look()).toHaveLength(3);
      await world.pass('next', 1_000_000);
      const before = world.mono;
      expect((await look()).sort()).toEqual(['begun backup', 'whole restore']);
      expect(world.mono).toBe(before);
      const told: WatchedLease[] = [];
      const own = await holdIntent(area(store), {
        ...{ id: 'e', timing, onWatch: (leases) => void told.push(...leases) },
      });
      expect(await own.leases()).toEqual([]);
      expect(told.map(({ id, kind }) => `${id} ${kind}`).sort()).toEqual([
        'begun backup',
        'whole restore',
      ]);
      expect(told[0]?.until.getTime()).toBeGreaterThan(Date.now());
      await own.release();
    };
    await world.run([run()]);
    expect(keysOf(world).filter((key) => /lease|intent/.test(key))).toEqual([]);
  });

  it('of a process of this machine that is dead is ended at once', async () => {
    const store = new MemoryStore({ place: 'memory:' });
    const self = await ownIdentity();
    const gone = spawnSync(process.execPath, ['--version']).pid;
    const put = async (id: string, content: object) =>
      store.create(
        `systems/1/${id}`,
        contentOf(Buffer.from(JSON.stringify({ format: 1, backups: [], wal: [], ...content }))),
      );
    const dead = { ...self, pid: gone };
    await put('lease/dead/0123/00000000', { kind: 'restore', process: dead });
    await put('lease/alive/0123/00000000', { kind: 'restore', process: self });
    // Another machine of the same name.
    await put('lease/away/0123/00000000', {
      ...{ kind: 'restore', process: { ...dead, bootId: 'another' } },
    });
    await put('lease/older/0123/00000000', { kind: 'restore' });
    const unsettled = { backups: undefined, wal: undefined };
    await put('intent/gone/0123/00000000', { kind: 'expire', process: dead, ...unsettled });
    const living = ['alive', 'away', 'older'];
    const ids = async () => (await readLeases(area(store))).map(({ id }) => id).sort();
    expect(await ids()).toEqual(living);
    expect(store.objects.get('systems/1/lease/dead/0123/00000000')).toBeDefined();
    // Nor is its expire waited for.
    const held = await holdLease(area(store), { id: 'new', kind: 'restore', needs: NEEDS });
    await endDeadLeases(area(store), { now: await held.time() });
    await held.release();
    const left = store.objects.entries().map(([key]) => key.split('/')[3]);
    expect(left.sort()).toEqual(living);
  });
});
