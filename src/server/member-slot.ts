import { formatLsn, type Lsn } from '../lsn.js';
import { segmentOf } from '../wal/file-name.js';
import { isInHistory, type TimelineHistory, timelineEnd } from '../wal/timeline.js';
import type { SlotInfo } from './slots.js';

/** Who keeps the slots of the members: we, or Patroni, CloudNativePG and the like. */
export type MemberSlotKeeper = 'walkeep' | 'external';

/** A server that may be promoted, as one look at it found it. */
export interface ObservedMember {
  systemId: bigint;
  segmentSize: number;
  timeline: number;
  history: TimelineHistory;
  standby: boolean;
  /**
   * Up to where it has replayed, or as a primary flushed: no slot can be advanced further.
   *
   * Invariant: it lies on `history`, so it is asked before the timeline, which a promotion meanwhile
   * only makes newer. Asked after it, the place may lie behind a fork that `history` does not know:
   * a slot would be moved over the WAL that begins there.
   */
  reached: Lsn;
  /** The one of the receiver's name; undefined if it has none. */
  slot: SlotInfo | undefined;
}

/** What the archive has, to which the members are compared. */
export interface ArchivedWal {
  systemId: bigint;
  /** Up to where WAL is durable; undefined before anything is. */
  durable: { lsn: Lsn; timeline: number } | undefined;
}

/** What is to be done about a member's slot. */
export type SlotAction =
  | { kind: 'create' }
  /** Dropped, it keeps nothing, and created again. */
  | { kind: 'replace' }
  /** Not before its place; it may stay there, which counts as use (idle_replication_slot_timeout). */
  | { kind: 'advance'; to: Lsn };

/** Why a member covers, or does not. Stable words. */
export type MemberReason =
  | 'covered'
  | 'unreachable'
  | 'another cluster'
  | 'nothing archived'
  | 'timeline behind'
  | 'another branch'
  | 'no slot'
  | 'logical slot'
  | 'temporary slot'
  | 'nothing reserved'
  | 'lost'
  | 'unreserved'
  | 'ahead';

/** Whether a promotion of a member now would cost WAL. */
export interface MemberCover {
  /** Undefined: it is not known. */
  covers: boolean | undefined;
  reason: MemberReason;
  message: string;
  hint?: string;
  /** Of a member that could not be asked: the SQLSTATE that it answered with, else the error's code. */
  code?: string;
  /** Where its slot begins. */
  restartLsn?: Lsn;
}

export interface MemberDecision {
  action: SlotAction | undefined;
  /** As it was found, before the action. */
  cover: MemberCover;
}

/**
 * Judges a member and says what its slot needs. Pure.
 *
 * A slot covers if it keeps all that comes behind what is durable in the archive, on the member's own
 * way: where the durable WAL lies beyond the end of an ancestor, it is needed from that end on. WAL is
 * removed by whole segments, so a place later in the same segment keeps as much.
 */
export function decideMember(
  slotName: string,
  member: ObservedMember,
  archived: ArchivedWal,
  keeper: MemberSlotKeeper,
): MemberDecision {
  const { slot } = member;
  const restart = slot?.restartLsn;
  const answer = (
    covers: boolean | undefined,
    reason: MemberReason,
    message: string,
    hint?: string,
  ): MemberCover => ({
    ...{ covers, reason, message },
    ...(hint === undefined ? {} : { hint }),
    ...(restart === undefined ? {} : { restartLsn: restart }),
  });
  if (member.systemId !== archived.systemId) {
    const message = `it is of cluster ${member.systemId}, the archive of ${archived.systemId}`;
    const hint = 'Take it out of the members, or give the archive of its cluster.';
    return { action: undefined, cover: answer(false, 'another cluster', message, hint) };
  }
  const action = keeper === 'walkeep' ? actionFor(member, archived) : undefined;
  const of = `replication slot "${slotName}"`;
  const cover = (): MemberCover => {
    if (!slot) return answer(false, 'no slot', `it has no ${of}`, createHint(keeper));
    if (slot.type !== 'physical') {
      return answer(false, 'logical slot', `its ${of} is a logical one`, 'Use another name.');
    }
    if (slot.temporary) {
      const hint = 'It ends with the session that made it; use another name.';
      return answer(false, 'temporary slot', `its ${of} is a temporary one`, hint);
    }
    if (isLost(slot)) {
      const why = slot.invalidation ?? 'lost';
      return answer(false, 'lost', `its ${of} is lost (${why})`, anewHint(keeper));
    }
    if (restart === undefined) {
      const message = `its ${of} keeps no WAL: it was never used`;
      return answer(false, 'nothing reserved', message, anewHint(keeper));
    }
    if (slot.walStatus === 'unreserved') {
      const message = `WAL that its ${of} needs is removed at its next checkpoint`;
      return answer(false, 'unreserved', message, 'Raise max_slot_wal_keep_size there.');
    }
    const { durable } = archived;
    if (!durable) {
      const message = `its ${of} begins at ${formatLsn(restart)}, and nothing is archived yet`;
      return answer(undefined, 'nothing archived', message);
    }
    const needed = neededFrom(member, durable);
    if (needed === undefined) return answer(...offTheWay(member, durable.timeline));
    const begin = `its ${of} begins at ${formatLsn(restart)}`;
    if (segmentOf(restart, member.segmentSize) <= segmentOf(needed, member.segmentSize)) {
      return answer(true, 'covered', begin);
    }
    return answer(
      false,
      'ahead',
      `${begin}, ahead of what is archived (${formatLsn(needed)}): it protects nothing until then`,
      'It does once the archive has come that far; until then a promotion of this member may leave a gap.',
    );
  };
  return { action, cover: cover() };
}

/** Invalidated: it keeps nothing, and never will again. */
function isLost({ walStatus, invalidation }: SlotInfo): boolean {
  return walStatus === 'lost' || invalidation !== undefined;
}

/**
 * From where on WAL is needed if the member is promoted; undefined if it would not go on from what is
 * archived.
 */
function neededFrom(
  { history }: ObservedMember,
  { lsn, timeline }: { lsn: Lsn; timeline: number },
): Lsn | undefined {
  if (!isInHistory(history, timeline)) return undefined;
  const fork = timelineEnd(history, timeline);
  return fork !== undefined && fork < lsn ? fork : lsn;
}

function offTheWay(
  { timeline, standby }: ObservedMember,
  archived: number,
): [false, MemberReason, string, string] {
  if (timeline > archived) {
    const message = `it is on timeline ${timeline}, which does not go on from timeline ${archived}, which is archived`;
    return [false, 'another branch', message, 'Rewind it, or make it anew from a base backup.'];
  }
  const message = `it is on timeline ${timeline}, and timeline ${archived} is archived`;
  const hint = standby
    ? 'See that it follows the new primary.'
    : 'It is an old primary: rewind it, or make it anew from a base backup.';
  return [false, 'timeline behind', message, hint];
}

function actionFor(member: ObservedMember, { durable }: ArchivedWal): SlotAction | undefined {
  const { slot, standby, reached } = member;
  if (!slot) return { kind: 'create' };
  if (slot.type !== 'physical' || slot.temporary || slot.active) return undefined;
  const { restartLsn } = slot;
  // On a primary a receiver may be about to use it; whether to make it anew is said for that one.
  if (isLost(slot) || restartLsn === undefined) return standby ? { kind: 'replace' } : undefined;
  const needed = durable && neededFrom(member, durable);
  if (needed === undefined) return undefined;
  const to = needed < reached ? needed : reached;
  // The server refuses to go back.
  return to < restartLsn ? undefined : { kind: 'advance', to };
}

function createHint(keeper: MemberSlotKeeper): string {
  return keeper === 'walkeep'
    ? 'A receiver with --member-slots=walkeep creates it.'
    : 'Have what manages the cluster keep a physical slot of this name on every member, or use --member-slots=walkeep.';
}

function anewHint(keeper: MemberSlotKeeper): string {
  return keeper === 'walkeep'
    ? 'A receiver with --member-slots=walkeep makes it anew on a standby; on a primary --ensure-slot does.'
    : 'Drop it there, so that what manages the cluster makes it anew.';
}
