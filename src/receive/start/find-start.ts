import type { Ledger } from '../../archive/ledger.js';
import type { ReplicationConnection } from '../../connection/connection.js';
import { BackfillError, SinkError, StorageError } from '../../errors.js';
import type { FileSystem } from '../../files/file-system.js';
import type { Lsn } from '../../lsn.js';
import { readSlot, type ServerState, type SlotState } from '../../server/server-state.js';
import type { FinishedSegment } from '../target/segment-finisher.js';
import {
  asksSlotForNames,
  type ChosenStart,
  clusterInputs,
  decide,
  dependsOnSlot,
  partialsAt,
  type RefusedWal,
  refusedOnWay,
  type StartTerms,
  startInputs,
} from './decide.js';
import { mendHistories } from './history-files.js';
import { finishLeft, removeCopies } from './left-segments.js';
import { type Observation, observeDirectory } from './observe.js';
import {
  checkCluster,
  chooseStart,
  continuousEnd,
  leavesGap,
  type StartInputs,
} from './start-point.js';
import { isStoredGood } from './stored-wal.js';

/** What a receiver is told that concerns its start. */
export interface StartOptions {
  directory: string;
  slot?: string;
  ensureSlot?: boolean;
  sync?: boolean;
  acceptGap?: boolean;
  refuseGaps?: boolean;
}

/** How a directory is opened for one connection. */
export interface OpenOptions {
  /** What servers said that they lack. */
  removed: StartTerms['removed'];
  /** The server said that the slot is invalid. */
  slotInvalid: boolean;
  /** WAL that failed the check: start in its segment, unless it is stored good. */
  refused: RefusedWal | undefined;
  warn: (code: string, message: string) => void;
  /** Told of a slot that there was none of. */
  slotCreated?: ((name: string) => void) | undefined;
  /** Awaited for each segment that an earlier receiver left without its final name, when it has it. */
  finished?: ((segment: FinishedSegment) => Promise<void>) | undefined;
  /** Where the directory is; absent: on the disk. */
  fs?: FileSystem;
  /** Absent: there is no other archive of the cluster. */
  bridge?: Bridge | undefined;
}

/** Other archives of the cluster, which may have what the server has removed. */
export interface Bridge {
  /** The server said that it lacks what follows here. */
  readonly wanted: boolean;
  /**
   * Brings what follows `from`, without a hole; says how many segments that were.
   * @throws BackfillError if they cannot be asked now
   */
  cross(from: Lsn, ledger: Ledger): Promise<number>;
}

/** Where all of it is, for one connection. */
interface Place {
  o: StartOptions;
  connection: ReplicationConnection;
  server: ServerState;
  ledger: Ledger;
  fs: FileSystem;
}

/** Looks at a directory at most, while files come and go in it. */
const MOST_LOOKS = 100;

/**
 * Finds out where streaming begins: looks at the directory, decides, puts in order what a killed
 * receiver left, and looks again if that changed what the choice depends on; also where another
 * program moved a complete file away meanwhile, as Barman does at any time.
 * @throws everything that `chooseStart` throws, TimelineConflictError, StorageError
 */
export async function findStart(place: Place, options: OpenOptions): Promise<ChosenStart> {
  const { o, connection, server, ledger, fs } = place;
  const told = new Set<string>();
  const warn = (code: string, message: string): void => {
    if (!told.has(message)) options.warn(code, message);
    told.add(message);
  };
  const terms: StartTerms = {
    slot: o.slot,
    ensureSlot: o.ensureSlot ?? false,
    tellsOfSlots: connection.serverVersion >= 150000,
    acceptGap: o.acceptGap ?? false,
    refuseGaps: o.refuseGaps ?? true,
    ...{ removed: options.removed, refused: options.refused },
  };
  let slot: SlotState | undefined;
  let crossed = false;
  for (let look = 1; ; look++) {
    try {
      const found = await observeDirectory(o.directory, server, ledger, fs);
      for (const w of found.warnings) warn('WK_SCAN', w);
      // Of another cluster nothing is wanted, and a slot there would keep its WAL for ever.
      checkCluster(clusterInputs(found));
      slot ??= await lookAtSlot(place, found, terms, { ...options, warn });
      const seen: Observation = { ...found, slot };
      const inputs = startInputs(seen, terms);
      if (!crossed && options.bridge) {
        crossed = true;
        if (await isCrossed(options.bridge, inputs, ledger)) continue;
      }
      const refused = refusedOnWay(seen, terms);
      const good = refused && (await isStored(refused, seen, chooseStart(inputs).lsn, fs));
      const { chosen, repairs } = decide(seen, terms, inputs, good ? undefined : refused);
      const how = { directory: o.directory, connection, server, sync: o.sync !== false, fs, warn };
      await mendHistories(repairs.histories, how);
      // Neither of these two is what a choice depends on: names do that.
      await removeCopies(o.directory, seen.scan, fs);
      const { unnamed, acknowledged } = repairs;
      const [oldest] = unnamed;
      const rest = await finishLeft(
        ...([o.directory, server, unnamed, seen.scan, ledger, acknowledged, fs] as const),
        options.finished,
      );
      if (rest === oldest) return chosen;
    } catch (e) {
      // Of what is the caller's own no look at the directory tells.
      if (e instanceof SinkError) throw e;
      const { code } = ((e as Error).cause ?? {}) as NodeJS.ErrnoException;
      if (code !== 'ENOENT' || look >= MOST_LOOKS) throw e;
    }
    if (look >= MOST_LOOKS) {
      throw new StorageError('the directory changes whenever it is looked at', {
        path: o.directory,
        hint: 'Find out what other program writes there.',
      });
    }
  }
}

/** True if other archives brought WAL that the server lacks: the directory is not what it was. */
async function isCrossed(bridge: Bridge, inputs: StartInputs, ledger: Ledger): Promise<boolean> {
  if (!bridge.wanted && !leavesGap(inputs)) return false;
  const from = continuousEnd(inputs);
  if (from === undefined) return false;
  try {
    return (await bridge.cross(from, ledger)) > 0;
  } catch (e) {
    // Going over it is what is asked for: what is missing may be brought later.
    if (e instanceof BackfillError && inputs.acceptGap) return false;
    throw e;
  }
}

/** The slot, if anything depends on it; made first if that is wished for. */
async function lookAtSlot(
  { o, connection }: Place,
  found: Omit<Observation, 'slot'>,
  terms: StartTerms,
  { slotInvalid: invalid, warn, slotCreated }: OpenOptions,
): Promise<SlotState | undefined> {
  const { slot: name, ensureSlot: ensure = false } = o;
  if (name === undefined) return undefined;
  if (!dependsOnSlot(found, terms) && !asksSlotForNames(found)) return undefined;
  const slot = await readSlot(connection, name, { ensure, invalid });
  if (slot.made === 'created') slotCreated?.(name);
  if (slot.made === 'replaced') {
    warn('WK_SLOT', `replication slot "${name}" kept no WAL; it was dropped and created again`);
  }
  return slot;
}

/** True if what was refused is stored good by now where streaming would begin. */
function isStored(
  { verifiedEnd }: RefusedWal,
  seen: Observation,
  startLsn: Lsn,
  fs: FileSystem,
): Promise<boolean> {
  const at = { ...seen.server, startLsn };
  return isStoredGood(verifiedEnd, seen.directory, at, partialsAt(seen, startLsn), fs);
}
