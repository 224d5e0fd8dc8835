import type { ConnectionSettings } from '../connection/conninfo/settings.js';
import { WalkeepError } from '../errors.js';
import type { Lsn } from '../lsn.js';
import { MemberSession, membersOf, unknownCover } from '../server/member.js';
import {
  type ArchivedWal,
  decideMember,
  type MemberSlotKeeper,
  type ObservedMember,
} from '../server/member-slot.js';
import type { ServerFacts, WalSender } from '../server/server-facts.js';
import type { ArchiveFacts } from './archive-facts.js';
import { durableEnd } from './check-position.js';
import { type CheckResult, judge } from './result.js';

/** The servers that may be promoted, and who keeps the receiver's slot on them. */
export interface CheckedMembers {
  /** One host for each, for SQL. */
  settings: ConnectionSettings;
  slots: MemberSlotKeeper;
}

/** A member as it was found, or why it could not be asked. */
export type LookedAt = { member: string } & (
  | { seen: ObservedMember; error?: undefined }
  | { seen?: undefined; error: WalkeepError }
);

/**
 * Looks at all of them. To be done before the archive and its server are: what is archived meanwhile
 * must not make a slot that moves along look as if it were ahead.
 */
export function lookAtMembers({ settings }: CheckedMembers, slot: string): Promise<LookedAt[]> {
  const looks = [...membersOf(settings)].map(async ([member, own]): Promise<LookedAt> => {
    const session = new MemberSession(own, slot);
    try {
      return { member, seen: await session.observe() };
    } catch (error) {
      if (error instanceof WalkeepError) return { member, error };
      throw error;
    } finally {
      await session.close();
    }
  });
  return Promise.all(looks);
}

/** Of each member whether the archive would go on without a gap if it were promoted now. */
export function checkMembers(
  looked: readonly LookedAt[],
  slot: string,
  archived: ArchivedWal | undefined,
  keeper: MemberSlotKeeper,
): CheckResult[] {
  const { ok, warn, fail, unknown } = judge('member covers');
  return looked.map(({ member, seen, error }) => {
    if (error) {
      const { message, hint = '' } = unknownCover(error);
      return warn(`unknown: ${member}: ${message}`, hint);
    }
    if (!archived) {
      return unknown(
        `${member}: nothing is archived, or cannot be read`,
        'Start "walkeep receive".',
      );
    }
    const { covers, reason, message, hint = '' } = decideMember(slot, seen, archived, keeper).cover;
    if (covers === undefined)
      return warn(`unknown: ${member}: ${message}`, 'Start "walkeep receive".');
    if (covers) return ok(`yes: ${member}: ${message}`);
    // It cannot be promoted as it is, or will be as the others in a moment.
    return (reason === 'timeline behind' ? warn : fail)(`no: ${member}: ${message}`, hint);
  });
}

/** What is durable in the archive, as far as server and files tell. */
export function archivedWal(
  server: ServerFacts | undefined,
  archive: ArchiveFacts | undefined,
  walSender: WalSender | undefined,
): ArchivedWal | undefined {
  const systemId = archive?.catalog.systemId;
  if (!archive || systemId === undefined) return undefined;
  return { systemId, durable: durablePlace(server, archive, walSender) };
}

function durablePlace(
  server: ServerFacts | undefined,
  archive: ArchiveFacts,
  walSender: WalSender | undefined,
): { lsn: Lsn; timeline: number } | undefined {
  const { end } = archive;
  // A server whose timeline nobody has received yet has nothing to say of the archive.
  const timeline = server?.state.timeline;
  if (timeline === undefined || end?.timeline !== timeline) return end;
  const lsn = durableEnd(timeline, archive, walSender);
  return lsn === undefined ? undefined : { lsn, timeline };
}
