import { signal } from '../support/processes.js';
import { waitFor } from '../support/wait.js';
import type { ChaosEvent } from './events.js';
import type { World } from './world.js';

export const SLOT_EVENTS = {
  /**
   * The receiver is away for so long that max_slot_wal_keep_size takes its slot. The WAL is still
   * there, since it is not archived yet: with it gone the archive would have a hole, which is the
   * alarm, and an operator's.
   */
  'slot invalidated': {
    weight: 'alone',
    async run(world) {
      const { primary, supervisor } = world;
      const archiving = primary.setting('archive_command');
      // From now on no segment is removed.
      await primary.configure({ archive_command: 'false' });
      await world.settle(20);
      const { pid } = supervisor;
      signal(pid, 'SIGSTOP');
      try {
        await primary.configure({ wal_keep_size: '0', max_slot_wal_keep_size: '1MB' });
        await world.writeWal(5_000_000);
        await waitFor(
          async () => {
            await primary.sql('CHECKPOINT');
            return (await slotStatus(world)) === 'lost';
          },
          { what: 'the slot to be lost', timeoutMs: 60_000 },
        );
      } finally {
        signal(pid, 'SIGCONT');
      }
      await primary.configure({ wal_keep_size: '256MB', max_slot_wal_keep_size: '-1' });
      await waitFor(async () => /reserved|extended/.test((await slotStatus(world)) ?? ''), {
        what: 'the slot to keep WAL again',
        timeoutMs: 60_000,
      });
      await primary.configure({ archive_command: archiving });
    },
  },
} as const satisfies Record<string, ChaosEvent>;

async function slotStatus(world: World): Promise<string | undefined> {
  const [row] = await world.primary.sql<{ status: string }>(
    "SELECT wal_status AS status FROM pg_replication_slots WHERE slot_name = 's'",
  );
  return row?.status;
}
