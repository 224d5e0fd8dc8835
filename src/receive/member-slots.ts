import type { ConnectionSettings } from '../connection/conninfo/settings.js';
import { abortableDelay } from '../delay.js';
import { WalkeepError } from '../errors.js';
import type { Lsn } from '../lsn.js';
import { MemberSession, membersOf, unknownCover } from '../server/member.js';
import {
  type ArchivedWal,
  decideMember,
  type MemberCover,
  type MemberDecision,
  type MemberSlotKeeper,
  type ObservedMember,
} from '../server/member-slot.js';
import { isInHistory } from '../wal/timeline.js';

/** Milliseconds between looks at a member. */
const INTERVAL = 10_000;
/** Between those at one that cannot be asked: doubling from the first to the longest. */
const FIRST = 1000;
const LONGEST = 60_000;
/** After which a slot that seems to be ahead is compared again with what is durable by then. */
const SECOND_LOOK = 1000;

/** Codes of a member that does not answer: which one it is may change from look to look. */
const isAway = (code: string) => code === 'WK_CONNECTION' || code === 'WK_TIMEOUT';

/** What was found of one member, or has changed of it. */
export interface MemberState extends MemberCover {
  /** `host:port`. */
  member: string;
  /** What was done about its slot just before. */
  did?: 'created' | 'replaced';
}

/** How the slots of the members are kept. */
export interface MemberSlotsOptions {
  /** One host for each member. */
  settings: ConnectionSettings;
  slot: string;
  keeper: MemberSlotKeeper;
  /** Milliseconds between looks. */
  interval: number | undefined;
  /** What is durable here; undefined before it is known whose WAL it is. */
  archived(): ArchivedWal | undefined;
  /** A member was seen for the first time, or is not what it was. */
  tell(state: MemberState): void;
  /** A member is a primary that goes on from what is archived. */
  sawPrimary(timeline: number): void;
  /** A defect: of a listener, or ours. */
  fail(error: unknown): void;
}

/**
 * Keeps, or watches, the receiver's slot on every member that may be promoted, each over a connection
 * of its own: nothing that a member does or does not holds up another one, or the receiving.
 */
export class MemberSlots {
  private readonly o: MemberSlotsOptions;
  private readonly stop = new AbortController();
  /** None of them rejects: the end waits for each. */
  private readonly watching: Promise<unknown>;
  private hurry = new AbortController();

  constructor(options: MemberSlotsOptions) {
    this.o = options;
    const members = [...membersOf(options.settings)];
    this.watching = Promise.all(members.map(([name, settings]) => this.watch(name, settings)));
  }

  /** Something changed, a timeline say: all members are looked at now. */
  lookNow(): void {
    this.hurry.abort();
    this.hurry = new AbortController();
  }

  async end(): Promise<void> {
    this.stop.abort();
    this.hurry.abort();
    await this.watching;
  }

  private async watch(member: string, settings: ConnectionSettings): Promise<void> {
    const session = new MemberSession(settings, this.o.slot);
    try {
      await this.keepLooking(session, member);
    } catch (error) {
      this.o.fail(error);
    } finally {
      await session.close().catch(() => {});
    }
  }

  private async keepLooking(session: MemberSession, member: string): Promise<void> {
    const { signal } = this.stop;
    const { interval = INTERVAL } = this.o;
    let told = '';
    let done: MemberState['did'];
    for (let failures = 0; !signal.aborted; ) {
      const hurry = this.hurry.signal;
      const state = await this.look(session, member);
      if (signal.aborted) break;
      done = state?.did ?? done;
      // Nothing can be said before the first stream begins, which is when it is looked at again.
      if (state && state.reason !== 'nothing archived') {
        const { covers, reason, code = '', hint = '' } = state;
        // Where a slot is changes all the time, and so does in which words a member is away.
        const key = `${covers} ${reason} ${isAway(code) ? 'away' : code || hint}`;
        if (key !== told || done) this.o.tell({ ...state, ...(done ? { did: done } : {}) });
        told = key;
        done = undefined;
      }
      failures = state?.reason === 'unreachable' ? failures + 1 : 0;
      const backoff = Math.min(LONGEST, Math.max(interval, FIRST * 2 ** failures));
      await abortableDelay(failures > 0 ? backoff : interval, hurry);
    }
  }

  /** Looks at a member and does what it needs; undefined if nothing can be said yet. */
  private async look(session: MemberSession, member: string): Promise<MemberState | undefined> {
    const { signal } = this.stop;
    if (!this.o.archived()) return undefined;
    try {
      let { seen, action, cover } = await this.decide(session);
      let did: MemberState['did'];
      if (action) {
        await session.act(action, signal);
        if (action.kind !== 'advance') {
          did = action.kind === 'create' ? 'created' : 'replaced';
          ({ seen, cover } = await this.decide(session));
        }
      }
      if (cover.reason === 'ahead') {
        // What was acknowledged in this moment is told a little later.
        await abortableDelay(SECOND_LOOK, signal);
        ({ cover } = this.judge(seen));
      }
      return { member, ...cover, ...(did ? { did } : {}) };
    } catch (error) {
      if (error instanceof WalkeepError) return { member, ...unknownCover(error) };
      // Aborted, it rejects with the signal's reason.
      if (signal.aborted) return undefined;
      throw error;
    }
  }

  private async decide(session: MemberSession): Promise<MemberDecision & { seen: ObservedMember }> {
    const seen = await session.observe(this.stop.signal);
    const { systemId, durable } = this.o.archived()!;
    const goesOn = durable && isInHistory(seen.history, durable.timeline);
    if (!seen.standby && seen.systemId === systemId && goesOn) this.o.sawPrimary(seen.timeline);
    return { seen, ...this.judge(seen) };
  }

  private judge(seen: ObservedMember): MemberDecision {
    const { slot, keeper } = this.o;
    return decideMember(slot, seen, this.o.archived()!, keeper);
  }
}

/** What is durable, gathered from a receiver's events. */
export class DurablePlace {
  private systemId: bigint | undefined;
  private durable: { lsn: Lsn; timeline: number } | undefined;

  get archived(): ArchivedWal | undefined {
    const { systemId, durable } = this;
    return systemId === undefined ? undefined : { systemId, durable };
  }

  /** True if this is news to who had nothing to compare with, or compared with another timeline. */
  note(systemId: bigint | undefined, durable: { lsn: Lsn; timeline: number } | undefined): boolean {
    const news =
      (systemId !== undefined && this.systemId === undefined) ||
      (durable !== undefined && durable.timeline !== this.durable?.timeline);
    this.systemId ??= systemId;
    if (durable) this.durable = durable;
    return news;
  }
}
