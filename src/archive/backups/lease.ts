import { ArchiveBusyError } from '../../errors.js';
import type { BackupArea } from './area.js';
import {
  Hold,
  type HoldTiming,
  type LiveOptions,
  liveHolds,
  type OtherHold,
  TIMING,
  type Watched,
} from './hold.js';
import { backupKey, INTENT, LEASE, RECORD } from './keys.js';
import { conflicts, type Needs, needsOf, type Removal, removalOf } from './needs.js';

/**
 * Who is at work on base backups, so that nothing is removed under his hands. A backup or a restore
 * creates its lease and *then* reads the intents; an expire creates its intent, *then* reads leases
 * and all else, and *then* removes: whoever comes second sees the other.
 */
export interface LeaseOptions {
  /** Of the backup, or any that is unique. */
  id: string;
  kind: 'backup' | 'restore';
  needs: Needs;
  signal?: AbortSignal | undefined;
  /** Milliseconds to wait for an expire that would remove what is needed. */
  patience?: number | undefined;
  /** Told once, if there is one. */
  onWait?: ((expire: string) => void) | undefined;
  timing?: HoldTiming | undefined;
}

/**
 * Nothing of what it needs is removed until it is released, or lost: after 15 minutes without sign of
 * life another may end it. What was chosen before it was held has to be looked up once more.
 */
export interface Lease {
  readonly id: string;
  /** Aborted with LeaseLostError when another has ended it. */
  readonly signal: AbortSignal;
  /** Needs less from now on, or what no expire could have had in mind. */
  narrow(needs: Needs): Promise<void>;
  /** By the clock of the place, when it was renewed last. @throws LeaseLostError */
  time(): Promise<Date>;
  /** Asks for its life: just before what must not happen without it. @throws LeaseLostError */
  confirm(): Promise<void>;
  release(): Promise<void>;
  [Symbol.asyncDispose](): Promise<void>;
}

const PATIENCE = 30 * 60_000;

/**
 * @throws ArchiveBusyError if an expire that would remove what is needed does not end, StoreAccessError
 *   where nothing may be written: then nothing is promised, and an object can vanish while it is read
 */
export async function holdLease(area: BackupArea, options: LeaseOptions): Promise<Lease> {
  const { id, kind, needs, signal, patience = PATIENCE, timing = TIMING } = options;
  const content = (wanted: Needs) => ({ kind, ...needsOf(wanted) });
  const hold = new Hold(area, `${LEASE}${id}/`, timing);
  try {
    await hold.begin(content(needs), signal);
    let waited = 0;
    let told = false;
    const tell = (expire: string): void => {
      if (!told) options.onWait?.(expire);
      told = true;
    };
    for (;;) {
      const onWatch = ([first]: readonly Watched[]) => first && tell(first.id);
      const expire = await blocking(area, hold, needs, { timing, signal, onWatch });
      if (expire === undefined) break;
      tell(expire);
      if (waited >= patience) throw busy(area, expire);
      await timing.wait(timing.poll, signal);
      waited += timing.poll;
    }
  } catch (e) {
    await hold.release();
    throw e;
  }
  return {
    id,
    signal: hold.signal,
    narrow: (wanted) => hold.renew(content(wanted)),
    time: () => hold.time(),
    confirm: () => hold.renew(),
    release: () => hold.release(),
    [Symbol.asyncDispose]: () => hold.release(),
  };
}

function busy({ place }: BackupArea, expire: string): ArchiveBusyError {
  return new ArchiveBusyError(`"${place}" is being expired, and what is needed may be removed`, {
    actual: expire,
    hint: 'Try again when that expire has ended, or a quarter of an hour after it was killed.',
  });
}

/** The name of an expire that removes what is needed, or has not yet settled what it removes. */
async function blocking(
  area: BackupArea,
  hold: Hold,
  needs: Needs,
  options: Pick<LiveOptions, 'timing' | 'signal' | 'onWatch'>,
): Promise<string | undefined> {
  const now = await hold.time();
  // One that has not settled what it removes has removed nothing.
  const mayLinger = (content: Parameters<typeof removalOf>[0]) => removalOf(content) !== undefined;
  const others = await liveHolds(area, INTENT, { now, mayLinger, ...options });
  return others.find(({ content }) => conflicts(removalOf(content), needs))?.id;
}

/** A backup or a restore that is running. */
export interface RunningLease {
  id: string;
  kind: 'backup' | 'restore';
  /** Undefined: it cannot be read, so that it may need everything. */
  needs: Needs | undefined;
  /** When it last gave a sign of life, by the clock of the place. */
  seen: Date;
}

/**
 * All leases as they stand, dead ones too if no `now` tells which those are.
 * @param now of the place
 */
export async function readLeases(
  area: BackupArea,
  options: { now?: Date | undefined; signal?: AbortSignal | undefined } = {},
): Promise<RunningLease[]> {
  const { now, signal } = options;
  const holds = await liveHolds(area, LEASE, { now, look: 'only', signal });
  return holds.map(runningOf);
}

/**
 * Ends leases that nobody holds any more, as far as that can be told without watching anybody for
 * minutes: what is left is ended by the next expire.
 * @param now of the place
 */
export async function endDeadLeases(
  area: BackupArea,
  {
    now,
    signal,
    timing = TIMING,
  }: { now: Date; signal?: AbortSignal | undefined; timing?: HoldTiming },
): Promise<void> {
  const isIdle = isOver(area, signal);
  await liveHolds(area, LEASE, { now, look: 'unwatched', timing, signal, isIdle });
}

/** That of a backup which exists is needed by nobody: the record is the last that it is held for. */
function isOver(area: BackupArea, signal: AbortSignal | undefined) {
  return async ({ id, content }: OtherHold): Promise<boolean> => {
    if (content?.kind !== 'backup') return false;
    return (await area.store.head(backupKey(area.prefix, id, RECORD), { signal })) !== undefined;
  };
}

/** One that is watched, because it gave no sign of life for a quarter of an hour. */
export interface WatchedLease {
  id: string;
  kind: 'backup' | 'restore';
  /** When it gave the last one, by the clock of the place. */
  seen: Date;
  /** When it is ended, if it gives none until then. */
  until: Date;
}

function runningOf({ id, content, modified }: OtherHold): RunningLease {
  const kind = content?.kind === 'restore' ? ('restore' as const) : ('backup' as const);
  return { id, kind, needs: needsOf.parse(content), seen: modified };
}

function watchedOf(watched: Watched): WatchedLease {
  const { id, kind, seen } = runningOf(watched);
  return { id, kind, seen, until: new Date(Date.now() + watched.ms) };
}

/** That an expire is running. Until it is settled it may remove anything. */
export interface Intent {
  /** By the clock of the place, when it began. */
  readonly now: Date;
  /** Aborted with LeaseLostError when another has ended it. */
  readonly signal: AbortSignal;
  /** Leases that live; the dead ones are ended. To be read, with all else, before `settle`. */
  leases(): Promise<RunningLease[]>;
  /** Says what is removed at most from here on: never more than was said before. */
  settle(removal: Removal): Promise<void>;
  /** Before each removal. @throws LeaseLostError if another has ended it: nothing may be removed */
  confirm(): Promise<void>;
  release(): Promise<void>;
}

export async function holdIntent(
  area: BackupArea,
  options: {
    id: string;
    signal?: AbortSignal | undefined;
    timing?: HoldTiming | undefined;
    /** Told before leases are watched. */
    onWatch?: ((leases: WatchedLease[]) => void) | undefined;
  },
): Promise<Intent> {
  const { id, signal, timing = TIMING } = options;
  const hold = new Hold(area, `${INTENT}${id}/`, timing);
  try {
    await hold.begin({ kind: 'expire' }, signal);
    const now = await hold.time();
    return {
      now,
      signal: hold.signal,
      leases: async () => {
        const now = await hold.time();
        const onWatch = (watched: readonly Watched[]): void =>
          options.onWatch?.(watched.map(watchedOf));
        const isIdle = isOver(area, signal);
        const looked = { now, timing, signal, onWatch, isIdle };
        return (await liveHolds(area, LEASE, looked)).map(runningOf);
      },
      settle: (removal) => hold.renew({ kind: 'expire', ...removalOf.plain(removal) }),
      confirm: () => hold.renew(),
      release: () => hold.release(),
    };
  } catch (e) {
    await hold.release();
    throw e;
  }
}
