import type { Archive } from '../archive/archive.js';
import { type BackupArea, openBackupArea } from '../archive/backups/area.js';
import { isStore, openArchive } from '../archive/places/open-archive.js';
import { readCatalog } from '../archive/read-catalog.js';
import { StoreArchiveWriter } from '../archive/store-archive-writer.js';
import { parseRecipients, type Recipients } from '../codec/age/recipients.js';
import type { ReplicationConnection } from '../connection/connection.js';
import { SystemIdentifierError, WalkeepError } from '../errors.js';
import { ownIdentity } from '../files/process-identity.js';
import { type BackupFacts, readBackupFacts } from '../server/backup-facts.js';
import { readServerState, type ServerState } from '../server/server-state.js';
import { sqlRows } from '../server/sql.js';
import {
  type BackupProgress,
  type BackupWarning,
  checkTakeOptions,
  type TakeBackupOptions,
  type TakenBackup,
} from './options.js';
import { BackupRun, Warnings } from './run.js';

export type { BackupProgress, BackupWarning, TakeBackupOptions, TakenBackup };

/**
 * Takes a full base backup over the replication protocol: every file is compared with the server's
 * manifest as it comes, and the backup exists once all of it is durable, and so is the WAL that it
 * needs. One that fails leaves nothing behind; one that is killed is cleaned up by the next.
 * @throws UsageError, ServerError, ConnectionError, CorruptObjectError, TimeoutError if the WAL does
 *   not come, SystemIdentifierError, what the place throws, the signal's reason
 */
export async function takeBackup(options: TakeBackupOptions): Promise<TakenBackup> {
  checkTakeOptions(options);
  const { recipients = [], signal } = options;
  const parsed = recipients.length > 0 ? await parseRecipients(recipients) : undefined;
  const warnings = new Warnings(options.onWarning);
  const physical = await options.connect('physical', ({ severity, message, code }) => {
    if (severity !== 'WARNING') return;
    warnings.add({ code: code ?? 'WK_SERVER', message: `the server says: ${message}` });
  });
  try {
    signal?.throwIfAborted();
    return await fromServer(options, physical, parsed, warnings);
  } finally {
    await physical.close();
  }
}

async function fromServer(
  options: TakeBackupOptions,
  physical: ReplicationConnection,
  recipients: Recipients | undefined,
  warnings: Warnings,
): Promise<TakenBackup> {
  const { place, signal } = options;
  const state = await readServerState(physical);
  const { systemId } = state;
  await requireOwnCluster(options, state);
  const { facts, clock } = await factsOf(options, physical, warnings);
  const area = await openBackupArea(place, { systemId, writable: true, signal });
  try {
    const archive = await openArchive(place, { systemId });
    try {
      const found = { physical, state, facts, clock };
      const source = { ...found, area, archive, recipients, warnings };
      const taken = await new BackupRun(options, source).run();
      await indexWal(archive, area, recipients, warnings, signal);
      return taken;
    } finally {
      await archive.close();
    }
  } finally {
    await area.close();
  }
}

/** Objects of the index that one backup makes at most, so that an old archive's first is not the last. */
const MOST_INDEXED = 64;

/**
 * Restores find their targets by an index of the WAL. In a store who ships makes it, of WAL that it
 * has at hand. The backup exists, whatever comes of this.
 */
async function indexWal(
  archive: Archive,
  area: BackupArea,
  recipients: Recipients | undefined,
  warnings: Warnings,
  signal: AbortSignal | undefined,
): Promise<void> {
  if (!archive.isDirectory) return;
  try {
    const { updateIndex } = await import('../archive/index/update.js');
    const catalog = await readCatalog(archive);
    await updateIndex(catalog, area, { recipients, limit: MOST_INDEXED, signal });
  } catch (e) {
    if (signal?.aborted) return;
    if (!(e instanceof WalkeepError)) throw e;
    const { code, message } = e;
    warnings.add({ code, message: `the index of the WAL could not be completed: ${message}` });
  }
}

/** What needs SQL, as far as the role may have it: a backup can be taken without. */
async function factsOf(
  { connect }: TakeBackupOptions,
  physical: ReplicationConnection,
  warnings: Warnings,
): Promise<{ facts: BackupFacts; clock: () => Date }> {
  const sql = await connect('off', () => {}).catch((e) => {
    if (e instanceof WalkeepError) return undefined;
    throw e;
  });
  try {
    const facts = await readBackupFacts(physical, sql);
    for (const { code, message, hint } of facts.warnings) {
      warnings.add({ code, message, ...(hint === undefined ? {} : { hint }) });
    }
    return { facts, clock: sql ? await serverClock(sql) : () => new Date() };
  } finally {
    await sql?.close();
  }
}

/** The server's clock, which is that of its commits; rather late than early. */
async function serverClock(sql: ReplicationConnection): Promise<() => Date> {
  const asked = performance.now();
  const [row] = await sqlRows(sql, 'SELECT extract(epoch FROM clock_timestamp()) AS now');
  const then = Number(row?.now) * 1000;
  return () => new Date(then + performance.now() - asked);
}

/** Before anything is stored. A store is begun as an archive where it is none yet. */
async function requireOwnCluster(
  { place, newSystem, unfenced, signal }: TakeBackupOptions,
  { systemId, segmentSize }: ServerState,
): Promise<void> {
  if (isStore(place)) {
    const { openStore } = await import('../store/open.js');
    const store = await openStore(place, { unfenced });
    try {
      const codec = {
        encode: async (bytes: Uint8Array) => ({ bytes, stages: 'none', release: () => {} }),
        decode: async () => undefined,
      };
      const writer = (await ownIdentity()).host;
      const given = { systemId, segmentSize, codec, writer, newSystem, unfenced, signal };
      await StoreArchiveWriter.open(store, given);
    } finally {
      await store.close();
    }
    return;
  }
  const archive = await openArchive(place);
  try {
    const cluster = await archive.cluster();
    if (cluster === undefined || cluster.systemId === systemId) return;
    throw new SystemIdentifierError(`"${place}" is the archive of another cluster`, {
      path: place,
      expected: `${cluster.systemId}`,
      actual: `${systemId}`,
      hint: 'Give the archive that the WAL of this server is received into.',
    });
  } finally {
    await archive.close();
  }
}
