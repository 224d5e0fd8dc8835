import type { EventEmitter } from 'node:events';
import { formatLsn } from '../lsn.js';
import type { MemberState, ReceiverEvents } from '../receive/options.js';
import type { Output } from './output.js';
import { ProgressMeter } from './progress.js';

/** How often the live line is redrawn, and how often a line is logged where there is none. */
const REDRAW = 500;
const LOG_EVERY = 10_000;

export interface ReportOptions {
  verbose: boolean;
  progress: boolean;
}

/** What the events said, for the end of the run. */
export interface Report {
  /** True once any connection was made. */
  connected(): boolean;
  /** True for an error that has been printed. */
  printed(error: unknown): boolean;
  /** Takes the live line away. */
  end(): void;
}

/** Prints a receiver's events with pg_receivewal's messages (pg_receivewal.c, receivelog.c). */
export function reportEvents(
  receiver: EventEmitter<ReceiverEvents>,
  output: Output,
  { verbose, progress }: ReportOptions,
): Report {
  const printed = new WeakSet<object>();
  const told = new RepeatedError();
  let connected = false;
  let server: string | undefined;

  receiver.on('connect', ({ host, port, timeline }) => {
    connected = true;
    const now = `"${host}", port ${port}`;
    if (server !== undefined && server !== now) {
      output.info(`connected to another server: ${now} (timeline ${timeline})`);
    }
    server = now;
  });
  receiver.on('slot', ({ name }) => output.info(`created replication slot "${name}"`));
  receiver.on('partial', ({ file }) => {
    output.info(`not renaming "${file}", segment is not complete`);
  });
  receiver.on('warning', ({ code, message, hint }) => {
    output.warning(message, hint);
    output.code(code);
  });
  receiver.on('member', (state) => reportMember(state, output));
  receiver.on('disconnect', ({ error, retryIn }) => {
    const now = performance.now();
    const isNews = told.isNews(error.message, now);
    printed.add(error);
    if (retryIn !== undefined && !isNews) return;
    output.report(error);
    // Else it stands with what is done about it.
    if (retryIn === undefined) output.code(error.code);
    if (retryIn === undefined) return;
    const wait = retryIn < 50 ? 'trying again' : `waiting ${formatSeconds(retryIn)} to try again`;
    output.info(`disconnected; ${wait}${output.codeOf(error)}`);
  });
  if (verbose) reportVerbose(receiver, output);
  const end = progress ? reportProgress(receiver, output) : () => {};

  return {
    connected: () => connected,
    printed: (error) => typeof error === 'object' && error !== null && printed.has(error),
    end,
  };
}

/** Times that the same error is told, one after the other, before it is told once a minute. */
const TOLD_EACH = 10;
const TOLD_EVERY = 60_000;

/** An error that comes again and again, a server that is down, must not bury what came before it. */
class RepeatedError {
  private message: string | undefined;
  private count = 0;
  private toldAt = 0;

  isNews(message: string, now: number): boolean {
    this.count = message === this.message ? this.count + 1 : 1;
    this.message = message;
    if (this.count > TOLD_EACH && now - this.toldAt < TOLD_EVERY) return false;
    this.toldAt = now;
    return true;
  }
}

/** `member db2:5432 covers: yes`, with what that rests on. */
function reportMember({ member, covers, message, hint, did }: MemberState, output: Output): void {
  const slot = did === undefined ? '' : ` (slot ${did})`;
  const text = `member ${member} covers: ${COVERS[String(covers)]}${slot}: ${message}`;
  if (covers === true) output.info(text);
  else output.warning(text, hint);
}

const COVERS: Readonly<Record<string, string>> = { true: 'yes', false: 'no', undefined: 'unknown' };

function reportVerbose(receiver: EventEmitter<ReceiverEvents>, output: Output): void {
  const at = ({ lsn, timeline }: { lsn: bigint; timeline: number }) =>
    `at ${formatLsn(lsn)} (timeline ${timeline})`;
  receiver.on('start', (position) => output.info(`starting log streaming ${at(position)}`));
  receiver.on('segment', (position) => output.info(`finished segment ${at(position)}`));
  receiver.on('backfill', ({ name, place }) => output.info(`took ${name} from ${place}`));
  receiver.on('timeline', ({ timeline, lsn }) => {
    output.info(`switched to timeline ${timeline} at ${formatLsn(lsn)}`);
  });
  receiver.on('stop', ({ reason, ...position }) => {
    output.info(
      reason === 'endpos'
        ? `stopped log streaming ${at(position)}`
        : 'received interrupt signal, exiting',
    );
  });
}

function reportProgress(receiver: EventEmitter<ReceiverEvents>, output: Output): () => void {
  const meter = new ProgressMeter();
  receiver.on('segment', () => meter.segment());
  receiver.on('progress', (positions) => meter.positions(positions));
  const show = (): void => {
    const line = meter.line(performance.now());
    if (line === undefined) return;
    if (output.live) output.status(line);
    else output.info(line);
  };
  const timer = setInterval(show, output.live ? REDRAW : LOG_EVERY);
  timer.unref();
  return () => {
    clearInterval(timer);
    output.clearStatus();
  };
}

/** `5 seconds`, `1 second`, `0.3 seconds`. */
export function formatSeconds(milliseconds: number): string {
  const seconds = Math.round(milliseconds / 100) / 10;
  return seconds === 1 ? '1 second' : `${seconds} seconds`;
}
