import { type BackupManifest, type ManifestAlgorithm, parseManifest } from '../base/manifest.js';
import { CorruptObjectError, NotSupportedError } from '../errors.js';
import type { BackupPosition, BackupTablespace } from '../protocol/base-backup.js';
import type { BackupFacts } from '../server/backup-facts.js';
import type { TakeBackupOptions } from './options.js';
import type { BackupSink, ReceivedTar } from './sink.js';
import type { BackupSource } from './source.js';
import { VOLUME, type VolumeMemory } from './volumes.js';

/** Digits of the number of a volume where nothing is known of the size. */
const MOST_DIGITS = 6;

/** All that came of a base backup, stored. */
export interface Copied {
  start: BackupPosition;
  end: BackupPosition;
  startTime: Date;
  endTime: Date;
  tablespaces: readonly BackupTablespace[];
  tars: ReceivedTar[];
  manifest: BackupManifest;
  /** Of the manifest. */
  bytes: Buffer;
  sink: BackupSink;
}

/** Who is told how far it is. */
export interface CopyListener {
  /** @param total bytes, as the server estimated */
  onStart(start: BackupPosition, total: number | undefined): void;
  onBytes(bytes: number): void;
  /** The server has sent everything. */
  onEnd(): void;
}

/**
 * Runs BASE_BACKUP into a sink, no faster than that stores it. Resolves when all of it is stored.
 * @throws what the server, the connection or the sink throws, the signal's reason
 */
export async function copyBackup(
  source: Pick<BackupSource, 'physical' | 'facts' | 'clock'>,
  options: Pick<TakeBackupOptions, 'checkpoint' | 'maxRate' | 'wal' | 'verifyChecksums'> & {
    label: string;
    manifestChecksums: ManifestAlgorithm;
    /** Against the manifest that was uploaded. */
    isIncremental: boolean;
  },
  { sink, memory }: { sink: BackupSink; memory: VolumeMemory },
  { onStart, onBytes, onEnd }: CopyListener,
  signal: AbortSignal,
): Promise<Copied> {
  const { physical, facts, clock } = source;
  const { checkpoint = 'fast', label, manifestChecksums, maxRate, wal, verifyChecksums } = options;
  let start: BackupPosition | undefined;
  let tablespaces: readonly BackupTablespace[] = [];
  let paused = false;
  const startTime = clock();
  const stream = physical.baseBackup(
    {
      ...{ label, checkpoint, progress: true, noWait: true, tablespaceMap: true },
      ...{ manifest: 'yes', manifestChecksums },
      ...(options.isIncremental ? { incremental: true } : {}),
      ...(maxRate === undefined ? {} : { maxRate }),
      ...(wal === 'include' ? { wal: true } : {}),
      ...(verifyChecksums === false ? { verifyChecksums } : {}),
    },
    {
      onStart: (position, found) => {
        start = position;
        tablespaces = found;
        requireInPlace(facts.inPlaceTablespaces, found);
        const total = totalOf(found);
        sink.digits = digitsFor(total);
        onStart(position, total);
      },
      onArchive: (archive) => sink.onArchive(archive),
      onData: (chunk) => {
        sink.onData(chunk);
        onBytes(sink.bytes);
        if (paused || !memory.isFull) return;
        paused = true;
        stream.pause();
      },
      onManifest: (chunk) => sink.onManifest(chunk),
    },
    signal,
  );
  memory.onRoom = () => {
    if (paused) stream.resume();
    paused = false;
  };
  const { end } = await stream.done;
  const endTime = clock();
  onEnd();
  const { tars, manifest: bytes } = await untilStopped(sink.end(), signal);
  // Its files are as many as the database's: what they take is not added to what the volumes took.
  memory.clear();
  const manifest = parseManifest(bytes);
  const begin = start as BackupPosition | undefined;
  if (!begin) throw new CorruptObjectError('the base backup has no start');
  return { start: begin, end, startTime, endTime, tablespaces, tars, manifest, bytes, sink };
}

/** Versions that leave out what lies in pg_tblspc itself do so in silence. @throws NotSupportedError */
function requireInPlace(
  inPlace: BackupFacts['inPlaceTablespaces'],
  tablespaces: readonly BackupTablespace[],
): void {
  const left = inPlace?.filter(({ oid }) => !tablespaces.some((one) => one.oid === oid)) ?? [];
  if (left.length === 0) return;
  const names = left.map(({ name, oid }) => `"${name}" (${oid})`).join(', ');
  throw new NotSupportedError(`the server leaves tablespaces out of its base backups: ${names}`, {
    detail: 'They lie in pg_tblspc itself; PostgreSQL 14 and 15 send no such directory.',
    hint: 'Move what is in them to another tablespace and drop them, or go to PostgreSQL 16 or newer.',
  });
}

function totalOf(tablespaces: readonly BackupTablespace[]): number | undefined {
  let total = 0;
  for (const { size } of tablespaces) {
    if (size === undefined) return undefined;
    total += size;
  }
  return total;
}

/**
 * Digits of the number of a volume: all names have as many, so that sorting them is sorting the
 * volumes. A volume may be cut early by a third, and a database may grow while it is copied.
 */
export function digitsFor(total: number | undefined): number {
  if (total === undefined) return MOST_DIGITS;
  const most = (4 * total) / VOLUME;
  return Math.max(4, String(Math.ceil(most)).length);
}

/** What the promise says, unless something else failed before: then it may never settle. */
function untilStopped<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const stopped = (): void => reject(signal.reason);
    if (signal.aborted) stopped();
    signal.addEventListener('abort', stopped, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', stopped));
  });
}
