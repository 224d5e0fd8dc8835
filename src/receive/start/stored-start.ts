import { join } from 'node:path';
import { isGone } from '../../archive/access.js';
import { anchoredVerifier } from '../../archive/lead-in.js';
import { listSegments } from '../../archive/wal-directory.js';
import type { FileSystem } from '../../files/file-system.js';
import { formatLsn, type Lsn } from '../../lsn.js';
import type { ReceiverWarning } from '../../server/warning.js';
import { segmentFileName, segmentOf, segmentStart } from '../../wal/file-name.js';
import { WalVerifier } from '../../wal/verifier.js';
import type { WalOptions } from '../../wal/walker.js';
import type { DamagedRecord } from '../target/acknowledged-wal.js';
import { seedPartial } from '../target/partial-seed.js';
import type { ReceivingDirectory } from './receiving-directory.js';
import { storedWal } from './stored-wal.js';

/** What a stream finds where it begins. */
export interface StoredStart {
  /** Knows the record that goes on at the start; undefined: nothing is known of it, or not checked. */
  anchored: WalVerifier | undefined;
  /** Bytes below that come again must be the same as the stored ones. */
  compareUntil: bigint;
  /** Of these, bytes below are known to be good as they are stored. */
  soundUntil: bigint;
  /** A record below `compareUntil` that is damaged as it is stored. */
  damaged: DamagedRecord | undefined;
}

interface Options {
  directory: string;
  archive: ReceivingDirectory;
  /** The start, the first byte of a segment, with all that is known of its WAL. */
  wal: WalOptions & { segmentSize: number; timeline: number };
  /** WAL is checked as it comes. */
  checked: boolean;
  /** What fails the check is not stored. */
  refuses: boolean;
  sync: boolean;
  fs: FileSystem;
  warn: (warning: ReceiverWarning) => void;
}

/**
 * Brings what is stored of the segments that a stream will come through into their `.partial`, the
 * one form in which WAL is received, and finds out how much of it must not change.
 * @throws StorageError
 */
export async function storedStart(o: Options): Promise<StoredStart> {
  const anchor = (startLsn = o.wal.startLsn) =>
    anchoredVerifier(o.directory, { ...o.wal, startLsn }, o.fs, (file, why) =>
      o.warn({
        code: 'WK_STORED_DAMAGE',
        message: `"${file}" is not as it should be: ${why}; the record that goes on at ${formatLsn(o.wal.startLsn)} is not checked to its end`,
        hint: 'Run walkeep verify on the directory.',
      }),
    );
  const anchored = o.checked ? await anchor() : undefined;
  await placeSeeds(o, anchor);
  return { anchored, ...(await protectedWal(o, anchored && anchor)) };
}

type Anchor = (startLsn?: Lsn) => Promise<WalVerifier | undefined>;

/**
 * Of the first segment and of those behind: a stream that begins further back than an earlier one
 * did comes to what that one stored.
 */
async function placeSeeds(o: Options, anchor: Anchor): Promise<void> {
  const { directory, archive, wal, sync, fs } = o;
  const { segmentSize, timeline } = wal;
  const options = { segmentSize, mode: archive.server.fileMode, sync, fs };
  const first = segmentOf(wal.startLsn, segmentSize);
  const files = (await listSegments(directory, segmentSize, fs)).filter(
    (f) => f.timeline === timeline && f.segment >= first,
  );
  const others = files.filter((f) => !f.partial || f.compression !== 'none');
  for (const segment of new Set(others.map((f) => f.segment))) {
    const startLsn = segmentStart(segment, segmentSize);
    const verifier = async () => (await anchor(startLsn)) ?? new WalVerifier({ ...wal, startLsn });
    const name = segmentFileName(timeline, segment, segmentSize);
    let its = files.filter((f) => f.segment === segment);
    for (let seeded = false; !seeded; ) {
      try {
        await seedPartial(directory, name, its, { ...options, verifier });
        seeded = true;
      } catch (e) {
        // Another program moved a complete file away meanwhile, as it may at any time.
        const left = its.filter(
          (f) => f.partial || fs.sizeSync(join(directory, f.name)) !== undefined,
        );
        if (!isGone(e) || left.length === its.length) throw e;
        its = left;
      }
    }
  }
}

async function protectedWal(
  { directory, archive, wal, checked, refuses, fs }: Options,
  anchor: Anchor | undefined,
): Promise<Omit<StoredStart, 'anchored'>> {
  const { startLsn, timeline, segmentSize } = wal;
  const acknowledged = archive.acknowledged(timeline);
  const place = [directory, startLsn, acknowledged, timeline, segmentSize] as const;
  const stored = await storedWal(...place, fs, anchor && (() => anchor()));
  // Refused WAL may be replaced from its first bad record on. Whether what comes again in place of
  // an unfinished record is right is seen at its end.
  const replaced = !archive.isRefused(timeline) && stored.torn && refuses;
  const compareUntil = stored.end > acknowledged || replaced ? stored.end : acknowledged;
  const { end, sound: soundUntil, fault } = stored;
  if (!fault || !checked || compareUntil <= end) {
    return { compareUntil, soundUntil, damaged: undefined };
  }
  const verifier = end > startLsn ? undefined : await anchor?.();
  const damaged = {
    ...{ begin: end, why: fault.message },
    verifier: verifier ?? new WalVerifier({ ...wal, startLsn: end }),
  };
  return { compareUntil, soundUntil, damaged };
}
