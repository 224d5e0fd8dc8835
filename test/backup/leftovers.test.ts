import { expect, test } from 'vitest';
import { abandonedOf } from '../../src/archive/backups/abandoned.js';
import { readBackups } from '../../src/archive/backups/catalog.js';
import { backupKey, CLAIM, RECORD } from '../../src/archive/backups/keys.js';
import { holdLease } from '../../src/archive/backups/lease.js';
import { claimBackup } from '../../src/backup/claim.js';
import { removeLeftovers } from '../../src/backup/commit.js';
import { ownIdentity, type ProcessIdentity } from '../../src/files/process-identity.js';
import { contentOf } from '../../src/store/content.js';
import { MemoryObjects, MemoryStore } from '../../src/store/memory.js';
import type { ListOptions } from '../../src/store/store.js';

const ID = '20261128T010000F-3fa91c';
const KEEP = `keep/${ID}`;
const VOLUME = backupKey('', ID, 'base.tar.0000');
const DEAD: Partial<ProcessIdentity> = { startTime: '1' };

const bytes = (text: string) => contentOf(Buffer.from(text));

/** A backup without a record, and what the clean-up of another one removes of it. */
async function cleaned(
  writer: Partial<ProcessIdentity>,
  { onListed, age = 0 }: { onListed?: (store: MemoryStore) => Promise<void>; age?: number } = {},
) {
  let now = 1_000_000_000_000;
  const objects = new MemoryObjects(() => now);
  const others = new MemoryStore({ objects });
  const claim = { format: 1, writer: { ...(await ownIdentity()), ...writer } };
  await others.create(backupKey('', ID, CLAIM), bytes(JSON.stringify(claim)));
  await others.create(VOLUME, bytes('volume'));
  await others.create(KEEP, bytes('\n'));
  now += age;

  class Listed extends MemoryStore {
    override async *list(prefix: string, options: ListOptions = {}) {
      yield* super.list(prefix, options);
      if (prefix === 'backups/') await onListed?.(others);
    }
  }
  const area = { place: 'memory:', store: new Listed({ objects }), prefix: '' };
  const opened = { ...area, close: async () => {} };
  const { id } = await claimBackup(opened, 'F');
  await using lease = await holdLease(opened, {
    ...{ id, kind: 'backup', needs: { backups: [], wal: [] } },
  });
  const warnings: unknown[] = [];
  const { signal } = new AbortController();
  const removed = await removeLeftovers(opened, lease, signal, (w) => void warnings.push(w));
  expect(warnings).toEqual([]);
  const left = objects.entries().flatMap(([key]) => (key.includes(ID) ? [key] : []));
  return { removed, left };
}

const ALL = [VOLUME, backupKey('', ID, CLAIM), KEEP];

test('what a process that is gone left is removed', async () => {
  expect(await cleaned(DEAD)).toEqual({ removed: [ID], left: [] });
});

test.each([0, 3 * 3_600_000])(
  'a backup that was completed after it was listed stays: %s',
  async (age) => {
    const onListed = async (store: MemoryStore) => {
      await store.create(backupKey('', ID, RECORD), bytes('{}'));
    };
    const { removed, left } = await cleaned(DEAD, { onListed, age });
    expect(removed).toEqual([]);
    expect(left).toEqual([...ALL, backupKey('', ID, RECORD)].sort());
  },
);

test('what a machine of the same name works on is left alone until nothing came for long', async () => {
  const writer = { bootId: 'another', pid: 1 };
  expect(await cleaned(writer)).toEqual({ removed: [], left: ALL.toSorted() });
  expect(await cleaned(writer, { age: 3 * 3_600_000 })).toEqual({ removed: [ID], left: [] });
});

test.each([
  [DEAD, true],
  [{}, false],
  [{ bootId: 'another' }, false],
  [{ ...DEAD, bootId: '' }, false],
])('that the writer %o is dead is proven: %s', async (writer, isDead) => {
  const store = new MemoryStore();
  const area = { place: 'memory:', store, prefix: '', close: async () => {} };
  const claim = { format: 1, writer: { ...(await ownIdentity()), ...writer } };
  await store.create(backupKey('', ID, CLAIM), bytes(JSON.stringify(claim)));
  const abandoned = await abandonedOf(area, await readBackups(area), []);
  expect([...abandoned]).toEqual(isDead ? [ID] : []);
});
