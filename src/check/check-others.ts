import { isListed, parseSyncStandbyNames } from '../protocol/sync-standby-names.js';
import type { ServerFacts, SqlFacts } from '../server/server-facts.js';
import { formatBinaryBytes } from '../units.js';
import { type CheckResult, judge } from './result.js';

/** Segments that another standby may be behind: a flush comes with the end of each at the latest. */
const FEW = 2;

/**
 * The other standbys of synchronous_standby_names, where a commit does not wait for all of them: what
 * one of them lacks only those have that confirmed it, and with the server and their disks it is gone.
 */
export function checkOthers(
  { settings, state }: ServerFacts,
  sql: SqlFacts | undefined,
  applicationName: string,
): CheckResult[] {
  const { ok, warn, unknown } = judge('other standbys');
  const parsed = parseSyncStandbyNames(settings.synchronous_standby_names ?? '');
  if (!parsed || !isListed(parsed, applicationName) || parsed.count >= parsed.names.length)
    return [];
  const own = applicationName.toLowerCase();
  const others = parsed.names.filter((name) => name !== '*' && name.toLowerCase() !== own);
  return others.flatMap((name): CheckResult[] => {
    // Where nothing is visible the state of our own receiver says so.
    if (!sql || sql.walSenders.some((w) => w.applicationName === undefined)) return [];
    const its = sql.walSenders.find((w) => w.applicationName?.toLowerCase() === name.toLowerCase());
    if (!its || its.state === 'startup') {
      return [
        warn(`"${name}" is not connected: ${ALONE}`, `Start it again, or see what keeps it.`),
      ];
    }
    if (its.flushLsn === undefined) return [unknown(`how far "${name}" is cannot be seen`)];
    const behind = state.flushLsn > its.flushLsn ? Number(state.flushLsn - its.flushLsn) : 0;
    const text = `"${name}" is ${formatBinaryBytes(behind)} behind`;
    if (behind <= FEW * state.segmentSize) return [ok(text)];
    return [warn(`${text}: ${ALONE}`, `See what its machine or the network is busy with.`)];
  });
}

const ALONE = 'commits are confirmed without it, and lost with the disks of those that did';
