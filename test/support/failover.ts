import { type Lsn, parseLsn } from '../../src/lsn.js';
import { PostgresServer } from './postgres.js';
import { waitFor } from './wait.js';

/** Waits until a standby has received and replayed all that its primary has now. */
export async function caughtUp(primary: PostgresServer, standby: PostgresServer): Promise<Lsn> {
  const lsn = await primary.currentLsn();
  await waitFor(async () => (await standby.currentLsn()) >= lsn, { what: 'the standby to follow' });
  return lsn;
}

/** Where the newest timeline of a promoted server left its parent. */
export async function forkPoint(server: PostgresServer, timeline = 2): Promise<Lsn> {
  const name = `${timeline.toString(16).toUpperCase().padStart(8, '0')}.history`;
  const [row] = await server.sql<{ text: string }>(`SELECT pg_read_file('pg_wal/${name}') AS text`);
  const last = row?.text.trim().split('\n').at(-1)?.split('\t')[1];
  return parseLsn(last as string);
}

/** Cuts a standby off from its primary: what the primary writes from now on, it will never have. */
export async function cutOff(primary: PostgresServer, standby: PostgresServer): Promise<Lsn> {
  const lsn = await caughtUp(primary, standby);
  await standby.configure({ primary_conninfo: undefined });
  await waitFor(
    async () => (await standby.sql('SELECT 1 FROM pg_stat_wal_receiver')).length === 0,
    { what: 'the standby to disconnect' },
  );
  return lsn;
}

/** A primary with one standby, both with archived segments as reference. */
export async function pair(
  major: PostgresServer['major'],
): Promise<[PostgresServer, PostgresServer]> {
  const primary = await PostgresServer.create({ major, archive: true });
  try {
    // A promoted standby archives its last, cut segment of the old timeline as .partial only.
    return [primary, await primary.createStandby({ archive: true })];
  } catch (error) {
    await primary.destroy();
    throw error;
  }
}
