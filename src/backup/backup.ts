import type { Archive } from '../archive/archive.js';
import { type BackupArea, openBackupArea } from '../archive/backups/area.js';
import { isStore, openArchive } from '../archive/places/open-archive.js';
import { readCatalog } from '../archive/read-catalog.js';
import { StoreArchiveWriter } from '../archive/store-archive-writer.js';
import { parseRecipients, type Recipients } from '../codec/age/recipients.js';
import { quickCompression } from '../codec/codecs.js';
import { encodeBytes, stagesOf } from '../codec/stages.js';
import type { ReplicationConnection } from '../connection/connection.js';
import { NoIncrementalError, SystemIdentifierError, WalkeepError } from '../errors.js';
import { ownIdentity } from '../files/process-identity.js';
import type { Lsn } from '../lsn.js';
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
import { findParent } from './parent.js';
import { BackupRun } from './run.js';
import { type BackupSource, Warnings } from './source.js';
import type { MissingWal } from './wal.js';
import { storeTail } from './wal-tail.js';

export type { BackupProgress, BackupWarning, TakeBackupOptions, TakenBackup };

/**
 * Takes a base backup over the replication protocol, full or incremental: every file is compared with the server's
 * manifest as it comes, and the backup exists once all of it is durable, and so is the WAL that it
 * needs. One that fails leaves nothing behind; one that is killed is cleaned up by the next.
 * @throws UsageError, NoIncrementalError where no full one may be taken instead, ServerError, ConnectionError, CorruptObjectError, TimeoutError if the WAL does
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
  if (!isStore(place)) await requireOwnDirectory(place, state);
  const { facts, clock } = await factsOf(options, physical, warnings);
  const { unfenced } = options;
  const area = await openBackupArea(place, { systemId, writable: true, unfenced, signal });
  try {
    const writer = isStore(place) ? await storeWriter(area, options, state, recipients) : undefined;
    const archive = await openArchive(place, { systemId });
    try {
      const tail = (missing: MissingWal & { end: Lsn }, stop: AbortSignal) =>
        writer ? storeTail(physical, writer, state, missing, stop) : Promise.resolve();
      const found = { physical, state, facts, clock, ...(writer && { tail }) };
      const source = { ...found, area, archive, recipients, warnings };
      const taken = await takeFrom(source, options);
      await indexWal(archive, area, recipients, warnings, signal);
      return taken;
    } finally {
      await archive.close();
    }
  } finally {
    await area.close();
  }
}

/** Takes what was asked for, or a full one where an incremental one cannot be had. */
async function takeFrom(source: BackupSource, options: TakeBackupOptions): Promise<TakenBackup> {
  const { incremental, fallback = true, keys = {}, signal } = options;
  if (incremental === undefined) return new BackupRun(options, source).run();
  try {
    const parent = await findParent(source, incremental, keys, signal);
    return await new BackupRun(options, source, parent).run();
  } catch (e) {
    if (!(e instanceof NoIncrementalError) || !fallback) throw e;
    const { code, message, hint } = e;
    const told = `taking a full backup instead of an incremental one: ${message}`;
    const why = { code, message: told, ...(hint === undefined ? {} : { hint }) };
    source.warnings.add(why);
    return { ...(await new BackupRun(options, source).run()), fallback: why };
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

/** Begins the store as an archive where it is none yet. @throws SystemIdentifierError */
async function storeWriter(
  { store }: BackupArea,
  { newSystem, unfenced, signal }: TakeBackupOptions,
  { systemId, segmentSize }: ServerState,
  recipients: Recipients | undefined,
): Promise<StoreArchiveWriter> {
  const { method, level } = quickCompression();
  const how = { codec: method, level, recipients };
  const codec = {
    encode: async (plain: Uint8Array) => {
      const bytes = await encodeBytes(plain, how);
      return { bytes, stages: stagesOf(how).join(','), release: () => {} };
    },
    // Who takes backups has public keys only.
    decode: async () => undefined,
  };
  const writer = (await ownIdentity()).host;
  const given = { systemId, segmentSize, codec, writer, newSystem, unfenced, signal };
  return StoreArchiveWriter.open(store, given);
}

/** Before anything is stored. @throws SystemIdentifierError */
async function requireOwnDirectory(place: string, { systemId }: ServerState): Promise<void> {
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
