import { abortableDelay } from '../../delay.js';
import { leftMessage } from '../child.js';
import type { ServerConfig } from '../config/config.js';
import { addCounts } from '../counts.js';
import { SignsOfLife } from '../life.js';
import { Nap, restartDelay, untilAwake } from '../nap.js';
import type { FromReceiver } from '../receiver/messages.js';
import {
  type ErrorReport,
  fieldsOf,
  heldReport,
  type LogEntry,
  type ReceivedStatus,
  type ReceiverCounts,
  type ReceiverSnapshot,
  reportOf,
  type ServerState,
} from '../status.js';
import type { Child, ChildEnd, Launch } from './child.js';

/** What another try cannot mend, and could make worse: a person has to look first. */
const HELD: readonly string[] = [
  'WK_CORRUPT_WAL',
  'WK_GAP',
  'WK_REWRITE',
  'WK_SYSTEM_IDENTIFIER',
  'WK_TIMELINE_CONFLICT',
  'WK_WAL_REMOVED',
];

/** Milliseconds before a receiver is begun again, doubling up to the longest. */
const FIRST = 100;
const LONGEST = 30_000;
/** Doublings at most for a receiver that has streamed: below half a second. */
const SOON = 2;
/** Milliseconds that a receiver must have streamed for its end to be a new trouble. */
const WELL = 5000;
/** Milliseconds for which a message's word is taken that all is safe: the next one is due. */
const BELIEVED = 3000;
/** Milliseconds without a sign of life after which a process is looked at. */
const SILENT = 10_000;

export interface SupervisedOptions {
  config: ServerConfig;
  launch: Launch;
  tell(entry: LogEntry): void;
  /** Begins paused. */
  paused?: boolean;
  /** When all WAL was durable here last, of `performance.now()`. Absent: taken from now on. */
  safeAt?: number;
  /** What was counted of the server before. */
  counted?: Counted;
}

/** What is counted over all processes of a server's receiver. */
export interface Counted {
  totals: ReceivedStatus['totals'];
  counts: ReceiverCounts | undefined;
}

/** One server: keeps a process running that receives from it, unless it is held or paused. */
export class Supervised {
  readonly config: ServerConfig;
  readonly #launch: Launch;
  readonly #tell: (entry: LogEntry) => void;
  readonly #living: Promise<void>;
  #isPaused: boolean;
  #isEnding = false;
  #child: Child | undefined;
  /** The end of the child is what was asked for. */
  #expected = false;
  #state: ServerState = 'starting';
  #since = Date.now();
  #held = false;
  #ended: ErrorReport | undefined;
  #retryAt: number | undefined;
  #restarts = 0;
  #failures = 0;
  #acceptGap = false;
  #snapshot: ReceiverSnapshot | undefined;
  #streamsSince: number | undefined;
  readonly #life = new SignsOfLife(SILENT);
  #safeAt: number;
  /** It was so by the last message, which is believed for a while only. */
  #isSafe = false;
  /** Of the processes that ended. */
  #counted: Counted;
  readonly #nap = new Nap();

  constructor(options: SupervisedOptions) {
    const { config, launch, tell, paused = false, safeAt = performance.now() } = options;
    this.#counted = options.counted ?? {
      totals: { segments: 0, connections: 0 },
      counts: undefined,
    };
    this.#safeAt = safeAt;
    this.config = config;
    this.#launch = launch;
    this.#tell = tell;
    this.#isPaused = paused;
    this.#living = this.#live();
  }

  get safeAt(): number {
    return this.#safeAt;
  }

  get isPaused(): boolean {
    return this.#isPaused;
  }

  get status(): ReceivedStatus {
    const { name, directory } = this.config;
    const pid = this.#child?.pid;
    const silent = this.#life.isSilent && this.#child !== undefined;
    const { totals, counts } = this.counted;
    return {
      ...{ name, state: this.#state, since: new Date(this.#since).toISOString(), directory },
      ...(pid === undefined ? {} : { pid }),
      restarts: this.#restarts,
      ...(this.#ended ? { ended: this.#ended } : {}),
      ...(this.#retryAt === undefined ? {} : { retryAt: new Date(this.#retryAt).toISOString() }),
      ...(silent ? { silentSeconds: Math.round((performance.now() - this.#life.at) / 1000) } : {}),
      ...(this.#snapshot ? { receiver: this.#snapshot } : {}),
      ...{ rpoSeconds: this.#recoveryPoint(performance.now()), totals },
      ...(counts ? { counts } : {}),
    };
  }

  #recoveryPoint(now: number): number {
    if (this.#isSafe && now - this.#life.at < BELIEVED) return 0;
    // Of what is not safe it is never 0.
    return Math.max(1, Math.round(now - this.#safeAt)) / 1000;
  }

  /** With the process that runs. */
  get counted(): Counted {
    const { totals, counts } = this.#counted;
    const own = this.#child ? this.#snapshot : undefined;
    return {
      totals: {
        segments: totals.segments + (own?.segments ?? 0),
        connections: totals.connections + (own?.connections ?? 0),
      },
      counts: addCounts(counts, own?.counts),
    };
  }

  /** Ends its process, and begins none; resolves when it is gone. */
  async pause(): Promise<void> {
    this.#isPaused = true;
    await this.#endChild();
  }

  /**
   * Goes on after a pause or a hold, or at once instead of after a while.
   * @param acceptGap the next receiver may begin although WAL before it is missing
   */
  resume({ acceptGap = false } = {}): void {
    this.#isPaused = false;
    this.#held = false;
    this.#failures = 0;
    // Not of one that runs: it would be for a gap that nobody knows yet.
    this.#acceptGap = acceptGap && this.#child === undefined;
    this.#nap.awake();
  }

  /** Ends for good; resolves when its process is gone. */
  async end(): Promise<void> {
    this.#isEnding = true;
    await this.#endChild();
    await this.#living;
  }

  /** Looks whether its process lives. @param now of performance.now() */
  async look(now: number): Promise<void> {
    const child = this.#child;
    const state = await this.#life.look(child?.pid, now, () => child === this.#child);
    if (state === 'stopped') {
      this.#say('error', 'stopped', 'the receiver was stopped by a signal; it is ended');
      child?.kill();
    } else if (state) {
      const seconds = SILENT / 1000;
      const what = state === 'waiting' ? 'waits in the kernel, perhaps for the disk' : 'hangs';
      this.#say(
        'error',
        'silent',
        `nothing was heard of the receiver for ${seconds} s: it ${what}`,
      );
    }
  }

  /** This process itself did not run for a while: nobody could be heard. */
  forgive(): void {
    this.#life.forgive();
  }

  async #live(): Promise<void> {
    // The caller has its hands on this first.
    await Promise.resolve();
    while (!this.#isEnding) {
      const { signal } = this.#nap;
      if (this.#isPaused || this.#held) {
        this.#enter(this.#isPaused ? 'paused' : 'held');
        await untilAwake(signal);
        continue;
      }
      const end = await this.#once();
      if (end.isLeft) this.#say('error', 'left', leftMessage('the receiver'));
      if (this.#expected) this.#expected = false;
      else await this.#afterEnd(end);
    }
  }

  /** Runs a receiver to its end. */
  async #once(): Promise<ChildEnd> {
    const { config } = this;
    this.#enter('starting');
    this.#snapshot = undefined;
    this.#streamsSince = undefined;
    this.#life.begin();
    const start = { kind: 'start' as const, config, acceptGap: this.#acceptGap };
    this.#acceptGap = false;
    let child: Child;
    try {
      child = this.#launch(start, (message) => this.#hear(message));
    } catch (e) {
      return { how: 'no start', error: reportOf(e) };
    }
    this.#child = child;
    const end = await child.ended;
    this.#counted = this.counted;
    this.#child = undefined;
    this.#isSafe = false;
    return end;
  }

  #hear(message: FromReceiver): void {
    const now = performance.now();
    if (this.#life.note(now)) this.#say('info', 'heard', 'the receiver is heard again');
    if (message.kind === 'ready') return;
    for (const entry of message.log) this.#tell({ ...entry, server: this.config.name });
    if (message.kind === 'end') {
      this.#snapshot = message.snapshot ?? this.#snapshot;
      return;
    }
    const { snapshot, lost } = message;
    if (lost > 0) this.#say('warning', 'lost', `${lost} messages of the receiver were lost`);
    this.#snapshot = snapshot;
    const { recoveryAge } = snapshot;
    if (recoveryAge !== undefined) this.#safeAt = now - recoveryAge;
    this.#isSafe = recoveryAge === 0;
    if (this.#expected) return;
    this.#enter(snapshot.state);
    if (snapshot.state !== 'streaming') this.#streamsSince = undefined;
    else {
      this.#streamsSince ??= now;
      if (now - this.#streamsSince > WELL) this.#ended = undefined;
    }
  }

  /** It ended by itself: tells of it, and waits for its turn unless it is held. */
  async #afterEnd({ how, error }: ChildEnd): Promise<void> {
    const { signal } = this.#nap;
    const since = this.#streamsSince;
    // Commits may wait for one that can stream: it is begun soon, however often it ends.
    if (since !== undefined) this.#failures = Math.min(this.#failures, SOON);
    if (since !== undefined && performance.now() - since > WELL) this.#failures = 0;
    const ended = error ?? { code: 'WK_PROCESS', message: `the receiver ended with ${how}` };
    this.#ended = ended;
    this.#held = HELD.includes(ended.code);
    if (this.#held) {
      const held = heldReport(ended, this.config.name);
      this.#say('error', 'held', `${ended.message}; nothing more is received`, held);
      return;
    }
    const wait = restartDelay(this.#failures, FIRST, LONGEST);
    this.#failures += 1;
    this.#restarts += 1;
    this.#say('error', 'restart', `${ended.message}; another begins in ${wait / 1000} s`, ended);
    this.#enter('restarting');
    this.#retryAt = Date.now() + wait;
    await abortableDelay(wait, signal);
    this.#retryAt = undefined;
  }

  async #endChild(): Promise<void> {
    const child = this.#child;
    if (child) {
      this.#expected = true;
      this.#enter('stopping');
      child.stop();
    }
    this.#nap.awake();
    await child?.ended;
  }

  #enter(state: ServerState): void {
    if (state !== this.#state) this.#since = Date.now();
    this.#state = state;
  }

  #say(
    level: LogEntry['level'],
    event: string,
    message: string,
    report: Partial<ErrorReport> = {},
  ): void {
    this.#tell({ level, event, message, server: this.config.name, ...fieldsOf(report) });
  }
}
