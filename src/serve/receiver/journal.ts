import type { EventEmitter } from 'node:events';
import type { WalkeepError } from '../../errors.js';
import { formatLsn, type Lsn, parseLsn } from '../../lsn.js';
import type { ReceiverEvents } from '../../receive/options.js';
import type { Reporter } from '../reporter.js';
import { type LogEntry, type ReceiverSnapshot, reportOf } from '../status.js';
import type { RecoveryPoint } from './recovery-point.js';

/** Milliseconds after which the same trouble is told again. */
const TELL_AGAIN = 60_000;

/** Keeps a reporter and a recovery point up to what a receiver says. */
export function reportReceiver(
  receiver: EventEmitter<ReceiverEvents>,
  reporter: Reporter<ReceiverSnapshot>,
  point: RecoveryPoint,
): void {
  // Until it sends something the stream knows no end but its own.
  let knownEnd = 0n;
  const trouble = { message: '', at: 0 };
  const greeting = { message: '', at: 0 };
  const say = (level: LogEntry['level'], event: string, message: string, more = {}): void =>
    reporter.log({ level, event, message, ...more });

  receiver.on('connect', ({ host, port, serverVersion: version, systemId, timeline, flushLsn }) => {
    knownEnd = flushLsn;
    const { connections, position } = reporter.snapshot;
    const server = { host, port, version, systemId: `${systemId}`, timeline };
    reporter.change({ server, connections: connections + 1 });
    // While nothing can be stored there is no stream that would tell of it.
    if (position && flushLsn > parseLsn(position.serverEnd)) {
      reporter.change({ position: { ...position, serverEnd: formatLsn(flushLsn) } });
    }
    const message = `connected to "${host}", port ${port} (timeline ${timeline})`;
    if (isNews({ message }, greeting)) say('info', 'connect', message);
  });
  receiver.on('start', ({ lsn, timeline }) => {
    point.restart();
    say('info', 'start', `streaming from ${formatLsn(lsn)} (timeline ${timeline})`);
  });
  receiver.on('progress', ({ received, written, flushed, serverEnd: told, timeline }) => {
    const serverEnd = told > knownEnd ? told : knownEnd;
    point.note(flushed, serverEnd, performance.now());
    const texts = { received, written, flushed, serverEnd };
    const position = Object.fromEntries(
      Object.entries(texts).map(([name, lsn]) => [name, formatLsn(lsn as Lsn)]),
    ) as Record<keyof typeof texts, string>;
    if (reporter.snapshot.error) reporter.clearError();
    trouble.message = '';
    greeting.message = '';
    reporter.change({ state: 'streaming', position: { ...position, timeline } });
  });
  receiver.on('segment', () => {
    reporter.change({ segments: reporter.snapshot.segments + 1 });
  });
  receiver.on('timeline', ({ timeline, lsn }) => {
    say('info', 'timeline', `switched to timeline ${timeline} at ${formatLsn(lsn)}`);
  });
  receiver.on('diverged', ({ timeline, from, to, followed }) => {
    const range = `${formatLsn(from)} to ${formatLsn(to)}`;
    say(
      'warning',
      'diverged',
      `WAL of timeline ${timeline} from ${range} is not in timeline ${followed}; it stays in its files`,
    );
  });
  receiver.on('warning', ({ code, message, hint }) => {
    say('warning', 'warning', message, { code, ...(hint === undefined ? {} : { hint }) });
  });
  receiver.on('member', ({ member, covers, message, hint }) => {
    const members = { ...reporter.snapshot.members, [member]: { covers: covers ?? null, message } };
    reporter.change({ members });
    const level = covers === true ? 'info' : 'warning';
    const text = `member ${member} ${COVERS[String(covers)]}: ${message}`;
    say(level, 'member', text, hint === undefined ? {} : { hint });
  });
  receiver.on('disconnect', ({ error, retryIn }) => {
    reporter.change({ state: 'disconnected', error: reportOf(error) });
    // What ends the receiver is told with its end.
    if (retryIn !== undefined && isNews(error, trouble)) {
      say('warning', 'disconnect', 'disconnected', reportOf(error));
    }
  });
}

/** A server that is down, or a disk that is full, would fill the log. */
function isNews(
  { message }: Pick<WalkeepError, 'message'>,
  told: { message: string; at: number },
): boolean {
  const now = performance.now();
  if (message === told.message && now - told.at < TELL_AGAIN) return false;
  Object.assign(told, { message, at: now });
  return true;
}

const COVERS: Readonly<Record<string, string>> = {
  true: 'covers',
  false: 'does not cover',
  undefined: 'is not known to cover',
};
