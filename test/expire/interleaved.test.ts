import { expect, it } from 'vitest';
import { readBackups, readRecord } from '../../src/archive/backups/catalog.js';
import { backupKey, CLAIM } from '../../src/archive/backups/keys.js';
import { holdLease } from '../../src/archive/backups/lease.js';
import { judgeBackups } from '../../src/archive/backups/state.js';
import { segmentKey } from '../../src/archive/store-keys.js';
import { UsageError } from '../../src/errors.js';
import { expireArea } from '../../src/expire/expire.js';
import { keepInArea } from '../../src/expire/keep.js';
import type { Lsn } from '../../src/lsn.js';
import { contentOf } from '../../src/store/content.js';
import { segmentFileName } from '../../src/wal/file-name.js';
import { Interleaving } from '../support/interleaving.js';
import {
  archiveOf,
  areaOf,
  beginArchive,
  idOf,
  PREFIX,
  putBackup,
  putWal,
  SEGMENT,
  SYSTEM,
} from './memory-place.js';

const DAY = 86_400_000;
const DAYS = 5;

const lsnOf = (segment: number) => (BigInt(segment) * BigInt(SEGMENT)) as Lsn;
const keyOf = (segment: number) => segmentKey(SYSTEM, segmentFileName(1, BigInt(segment), SEGMENT));

/** A place with some days of backups; then all that can be at work there at the same time. */
class Place {
  readonly world: Interleaving;
  /** Segments that are there. */
  behind = DAYS * 3;
  /** Who saw what that should not be. */
  readonly wrong: string[] = [];

  constructor(seed: number) {
    this.world = new Interleaving(seed);
  }

  async begin(): Promise<void> {
    const store = this.world.store('begin');
    await beginArchive(store);
    for (let day = 0; day < DAYS; day++) {
      await putWal(store, 1, day * 3, day * 3 + 3);
      const parent = day % 2 === 1 ? { parent: idOf(day - 1) } : {};
      await putBackup(store, idOf(day), day * 3, parent);
      await this.world.pass('begin', DAY);
    }
  }

  async expire(who: string, rules: { window?: number; redundancy?: number }): Promise<void> {
    const { world } = this;
    await world.pass(who, world.random(3) * 1000);
    const store = world.store(who);
    await expireArea(areaOf(store), archiveOf(store), { ...rules, timing: world.timing(who) });
  }

  async ship(who: string): Promise<void> {
    const store = this.world.store(who);
    for (let n = 0; n < 6; n++) {
      await putWal(store, 1, this.behind, this.behind + 1);
      this.behind += 1;
      await this.world.pass(who, 1000);
    }
  }

  /** Takes an incremental one, of the newest that is there. */
  async backup(who: string, number: number): Promise<void> {
    const { world } = this;
    const store = world.store(who);
    const area = areaOf(store);
    const id = idOf(number);
    await store.create(backupKey(PREFIX, id, CLAIM), contentOf(Buffer.from('claim')));
    const start = this.behind - 1;
    const parent = (await readBackups(area)).filter((b) => b.record).at(-1)?.id as string;
    const lease = await holdLease(area, {
      ...{ id, kind: 'backup', timing: world.timing(who) },
      needs: { backups: [id, ...chain(parent)], wal: [{ timeline: 1, lsn: lsnOf(start) }] },
    });
    if (!(await readRecord(area, parent)).record) {
      await lease.release();
      return;
    }
    await world.pass(who, world.random(200_000));
    await lease.confirm();
    await putBackup(store, id, start, { parent });
    await lease.release();
    await this.#requireWhole(who, id);
  }

  async restore(who: string): Promise<void> {
    const { world } = this;
    const store = world.store(who);
    const area = areaOf(store);
    await world.pass(who, world.random(3) * 1000);
    const there = (await readBackups(area)).filter((b) => b.record);
    const id = there[world.random(there.length)]?.id as string;
    const { record } = await readRecord(area, id);
    if (!record) return;
    const { lsn } = record.start;
    const lease = await holdLease(area, {
      ...{ id: who, kind: 'restore', timing: world.timing(who) },
      needs: { backups: chain(id), wal: [{ timeline: 1, lsn }] },
    });
    // Chosen before it was held: all is looked up once more, and what is there then stays.
    if ((await readRecord(area, id)).record) {
      const first = Number(lsn / BigInt(SEGMENT));
      const segments: number[] = [];
      for (let n = first; await store.head(keyOf(n)); n++) segments.push(n);
      if (segments.length === 0) this.wrong.push(`${who}: ${id} is of no use`);
      for (const one of chain(id)) await this.#requireWhole(who, one);
      await world.pass(who, world.random(200_000));
      const missing: number[] = [];
      for (const n of segments) if (!(await store.get(keyOf(n)))) missing.push(n);
      if (missing.length > 0) this.wrong.push(`${who}: WAL ${missing} of ${id} is gone`);
    }
    await lease.release();
  }

  async keep(who: string, number: number): Promise<void> {
    const area = areaOf(this.world.store(who));
    const timing = this.world.timing(who);
    try {
      await keepInArea(area, idOf(number), { timing });
    } catch (e) {
      if (e instanceof UsageError) return;
      throw e;
    }
    await this.world.pass(who, this.world.random(100_000));
    for (const id of chain(idOf(number))) await this.#requireWhole(who, id);
    const start = number * 3;
    if (!this.world.objects.get(keyOf(start))) this.wrong.push(`${who}: WAL ${start} is gone`);
  }

  async #requireWhole(who: string, id: string): Promise<void> {
    const all = judgeBackups(await readBackups(areaOf(this.world.store(who))), {
      ...{ leases: [], now: new Date(this.world.objects.now) },
    });
    const one = all.find((b) => b.id === id);
    if (one?.state !== 'complete') this.wrong.push(`${who}: ${id} is ${one?.state ?? 'gone'}`);
  }
}

/** A backup and what it is based on: those of odd days on the day before; the new one on all. */
function chain(id: string): string[] {
  const day = Number(id.slice(13, 15));
  if (day >= DAYS) return [id, ...chain(idOf(DAYS - 1))];
  return day % 2 === 1 ? [id, idOf(day - 1)] : [id];
}

it('never removes what anybody needs, however the calls of all come', async () => {
  let removed = 0;
  for (let seed = 1; seed <= 400; seed++) {
    const place = new Place(seed);
    const { world } = place;
    await world.run([place.begin()]);
    const before = world.objects.entries().length;
    await world.run([
      place.expire('one', { window: 2 * DAY }),
      place.expire('two', { redundancy: 1 }),
      place.backup('backup', 7),
      place.restore('restore'),
      place.ship('ship'),
      place.keep('keep', 1 + world.random(3)),
    ]);
    expect(place.wrong, `${seed}`).toEqual([]);
    removed += Math.max(0, before - world.objects.entries().length);
    const left = world.objects.entries().map(([key]) => key);
    expect(
      left.filter((key) => /lease|intent/.test(key)),
      `${seed}`,
    ).toEqual([]);
    // What is listed is whole, and what is whole has its WAL.
    const area = areaOf(world.store('end'));
    const check = async () => {
      const now = new Date(world.objects.now);
      const all = judgeBackups(await readBackups(area), { leases: [], now });
      expect(
        all.filter((b) => b.state === 'damaged'),
        `${seed}`,
      ).toEqual([]);
      for (const { record } of all) {
        if (!record) continue;
        const n = Number(record.start.lsn / BigInt(SEGMENT));
        expect(left, `${seed}`).toContain(keyOf(n));
      }
      expect(left, `${seed}`).toContain(keyOf(place.behind - 1));
    };
    await world.run([check()]);
  }
  expect(removed).toBeGreaterThan(1000);
});
