import type { FileSystem } from '../storage/file-system.js';
import { type Seed, seedFromComplete, seedPartial } from '../storage/partial-seed.js';
import { segmentFileName, segmentOf } from '../wal/file-name.js';
import { formatLsn, type Lsn } from '../wal/lsn.js';
import { WalVerifier } from '../wal/verifier.js';
import type { WalOptions } from '../wal/walker.js';
import { anchoredVerifier } from './anchor.js';
import type { Archive } from './archive.js';
import type { VerifyMode } from './inspector.js';
import { storedWal } from './known-wal.js';
import type { ReceiverWarning } from './options.js';

/** What a stream finds where it begins. */
export interface StoredStart {
  seed: Seed;
  /** Knows the record that goes on at the start; undefined: nothing is known of it, or not checked. */
  anchored: WalVerifier | undefined;
  /** Bytes below that come again must be the same as the stored ones. */
  compareUntil: bigint;
  /** Of these, bytes below are known to be good as they are stored. */
  soundUntil: bigint;
}

interface Options {
  directory: string;
  archive: Archive;
  /** The start, the first byte of a segment, with all that is known of its WAL. */
  wal: WalOptions & { segmentSize: number; timeline: number };
  verify: VerifyMode;
  sync: boolean;
  /** Find out how much a plain partial holds. */
  measure: boolean;
  fs: FileSystem;
  warn: (warning: ReceiverWarning) => void;
}

/**
 * Brings what is stored of a stream's first segment into its `.partial`, the one form in which WAL
 * is received, and finds out how much of it must not change.
 * @throws StorageError
 */
export async function storedStart(o: Options): Promise<StoredStart> {
  const anchor = () =>
    anchoredVerifier(o.directory, o.wal, o.fs, (file, why) =>
      o.warn({
        code: 'WK_STORED_DAMAGE',
        message: `"${file}" is not as it should be: ${why}; the record that goes on at ${formatLsn(o.wal.startLsn)} is not checked to its end`,
        hint: 'Run walkeep verify on the directory.',
      }),
    );
  const anchored = o.verify === 'off' ? undefined : await anchor();
  const seed = await placeSeed(o, anchor);
  return { seed, anchored, ...(await protectedWal(o, anchored && anchor)) };
}

type Anchor = () => Promise<WalVerifier | undefined>;

async function placeSeed(o: Options, anchor: Anchor): Promise<Seed> {
  const { directory, archive, wal, sync, measure, fs } = o;
  const { segmentSize, timeline } = wal;
  const name = segmentFileName(timeline, segmentOf(wal.startLsn, segmentSize), segmentSize);
  const options = { segmentSize, mode: archive.server.fileMode, sync, fs };
  const verifier = async () => (await anchor()) ?? new WalVerifier(wal);
  const complete = archive.atStart.find((f) => !f.partial && f.timeline === timeline);
  if (!archive.asksAgain || !complete) {
    return seedPartial(directory, name, archive.atStart, { ...options, measure, verifier });
  }
  // What was acknowledged is there; a partial beside it is from an earlier try.
  return seedFromComplete(directory, name, complete, await verifier(), options);
}

async function protectedWal(
  { directory, archive, wal, verify, fs }: Options,
  anchor: Anchor | undefined,
): Promise<{ compareUntil: bigint; soundUntil: Lsn }> {
  const { startLsn, timeline, segmentSize } = wal;
  const acknowledged = archive.acknowledged(timeline);
  const place = [directory, startLsn, acknowledged, timeline, segmentSize] as const;
  const stored = await storedWal(...place, fs, anchor);
  // Refused WAL may be replaced from its first bad record on. Whether what comes again in place of
  // an unfinished record is right is seen at its end.
  const replaced = !archive.isRefused(timeline) && stored.torn && verify === 'strict';
  const compareUntil = stored.end > acknowledged || replaced ? stored.end : acknowledged;
  return { compareUntil, soundUntil: stored.sound };
}
