import { abortableDelay } from '../../delay.js';
import { type Child, type ChildEnd, leftMessage } from '../child.js';
import { SignsOfLife } from '../life.js';
import { Nap, restartDelay, untilAwake } from '../nap.js';
import type { Tell } from '../part.js';
import {
  type ErrorReport,
  fieldsOf,
  heldReport,
  type LogEntry,
  reportOf,
  type StoreStatus,
} from '../status.js';
import type { LaunchShipper } from './child.js';
import type { FromShipper, ShipSnapshot, ShipTask } from './messages.js';

/** What another try cannot mend: a person has to look first. */
const HELD: readonly string[] = [
  'WK_CORRUPT_OBJECT',
  'WK_CORRUPT_WAL',
  'WK_ENCRYPTED',
  'WK_NOT_SUPPORTED',
  'WK_PARSE',
  'WK_STORE_CONFLICT',
  'WK_STORE_UNSUPPORTED',
  'WK_SYSTEM_IDENTIFIER',
  'WK_TIMELINE_CONFLICT',
  'WK_USAGE',
];

/** Milliseconds before a process is begun again, doubling up to the longest. */
const FIRST = 1000;
const LONGEST = 60_000;
/** Milliseconds that one must have shipped for its end to be a new trouble. */
const WELL = 60_000;
/** Milliseconds for which a message's word is taken that all is there: the next one is due. */
const BELIEVED = 5000;
/** Milliseconds without a sign of life after which a process is looked at. */
const SILENT = 20_000;

export interface ShippedStoreOptions {
  /** Of the server. */
  server: string;
  task: ShipTask;
  launch: LaunchShipper;
  tell: Tell;
  /** When all that was completed was there last, of `performance.now()`. Absent: taken from now on. */
  thereAt?: number;
}

/** One store of a server: keeps a process running that ships to it, unless it is held. */
export class ShippedStore {
  readonly task: ShipTask;
  readonly #o: ShippedStoreOptions;
  readonly #living: Promise<void>;
  #ending = false;
  #child: Child | undefined;
  /** The end of the child is what was asked for. */
  #expected = false;
  #state: StoreStatus['state'] = 'starting';
  #since = Date.now();
  #held = false;
  #failures = 0;
  #shipsSince: number | undefined;
  readonly #life = new SignsOfLife(SILENT);
  #ended: ErrorReport | undefined;
  #snapshot: ShipSnapshot | undefined;
  #thereAt: number;
  /** It was so by the last message, which is believed for a while only. */
  #isThere = false;
  #totals = { segments: 0, failures: 0 };
  readonly #nap = new Nap();

  constructor(options: ShippedStoreOptions) {
    this.#o = options;
    this.task = options.task;
    this.#thereAt = options.thereAt ?? performance.now();
    this.#living = this.#live();
  }

  get thereAt(): number {
    return this.#thereAt;
  }

  get status(): StoreStatus {
    const { name, place } = this.task;
    const { queueSegments, queueBytes, shippedLsn, error } = this.#snapshot ?? {};
    const pid = this.#child?.pid;
    const trouble = this.#life.isSilent ? SILENCE : (error ?? this.#ended);
    const state = this.#life.isSilent ? 'away' : this.#state;
    return {
      ...{ name, place, state, since: new Date(this.#since).toISOString() },
      ...(pid === undefined ? {} : { pid }),
      ...(queueSegments === undefined ? {} : { queueSegments }),
      ...(queueBytes === undefined ? {} : { queueBytes }),
      rpoSeconds: this.#recoveryPoint(performance.now()),
      ...(shippedLsn === undefined ? {} : { shippedLsn }),
      totals: this.#sum(),
      ...(trouble ? { error: trouble } : {}),
    };
  }

  #recoveryPoint(now: number): number {
    if (this.#isThere && now - this.#life.at < BELIEVED) return 0;
    // Of what is not there it is never 0.
    return Math.max(1, Math.round(now - this.#thereAt)) / 1000;
  }

  /** With the process that runs. */
  #sum(): StoreStatus['totals'] {
    const { segments, failures } = this.#totals;
    const own = this.#child ? this.#snapshot : undefined;
    return {
      segments: segments + (own?.segments ?? 0),
      failures: failures + (own?.failures ?? 0),
    };
  }

  /** Goes on where a person has looked, or tries again at once; one that ships goes on untouched. */
  resume(): void {
    this.#failures = 0;
    const { state } = this.status;
    if (this.#child && (state === 'held' || state === 'away')) {
      // A file is held back, or it waits for its next try, or hangs: another process does not.
      this.#expected = true;
      this.#child.stop();
    }
    this.#held = false;
    this.#nap.awake();
  }

  /** Ends for good; resolves when its process is gone. */
  async end(): Promise<void> {
    this.#ending = true;
    if (this.#child) {
      this.#expected = true;
      this.#enter('stopping');
      this.#child.stop();
    }
    this.#nap.awake();
    await this.#living;
  }

  /** Looks whether its process lives. @param now of performance.now() */
  async look(now: number): Promise<void> {
    const child = this.#child;
    const state = await this.#life.look(child?.pid, now, () => child === this.#child);
    if (state === 'stopped') {
      this.#say('error', 'ship-stopped', 'the process was stopped by a signal; it is ended');
      child?.kill();
    } else if (state) this.#say('error', 'ship-silent', SILENCE.message);
  }

  /** This process itself did not run for a while: nobody could be heard. */
  forgive(): void {
    this.#life.forgive();
  }

  async #live(): Promise<void> {
    // The caller has its hands on this first.
    await Promise.resolve();
    while (!this.#ending) {
      const { signal } = this.#nap;
      if (this.#held) {
        this.#enter('held');
        await untilAwake(signal);
        continue;
      }
      const end = await this.#once();
      if (end.isLeft) this.#say('error', 'left', leftMessage('the process'));
      if (this.#expected) this.#expected = false;
      else await this.#afterEnd(end);
    }
  }

  /** Runs a process to its end. */
  async #once(): Promise<ChildEnd> {
    this.#enter('starting');
    this.#shipsSince = undefined;
    this.#life.begin();
    let child: Child;
    try {
      child = this.#o.launch(this.task, (message) => this.#hear(message));
    } catch (e) {
      return { how: 'no start', error: reportOf(e) };
    }
    this.#child = child;
    const end = await child.ended;
    this.#totals = this.#sum();
    // It is counted now, and not once more for the next one.
    if (this.#snapshot) this.#snapshot = { ...this.#snapshot, segments: 0, failures: 0 };
    this.#child = undefined;
    this.#isThere = false;
    this.#life.begin();
    return end;
  }

  #hear(message: FromShipper): void {
    const now = performance.now();
    if (this.#life.note(now)) this.#say('info', 'ship-heard', 'the process is heard again');
    if (message.kind === 'ready') return;
    for (const entry of message.log) this.#tell(entry);
    if (message.kind === 'end') {
      this.#snapshot = message.snapshot ?? this.#snapshot;
      return;
    }
    const { snapshot, lost } = message;
    if (lost > 0) this.#say('warning', 'lost', `${lost} messages were lost`);
    this.#snapshot = snapshot;
    const { age, state } = snapshot;
    if (age !== undefined) this.#thereAt = now - age;
    this.#isThere = age === 0;
    if (this.#expected) return;
    this.#enter(state);
    if (state === 'starting') return;
    this.#shipsSince ??= now;
    if (now - this.#shipsSince > WELL || state === 'shipping') this.#ended = undefined;
  }

  /** It ended by itself: tells of it, and waits for its turn unless it is held. */
  async #afterEnd({ how, error }: ChildEnd): Promise<void> {
    const { signal } = this.#nap;
    if (this.#shipsSince !== undefined && performance.now() - this.#shipsSince > WELL) {
      this.#failures = 0;
    }
    const ended = error ?? { code: 'WK_PROCESS', message: `the process ended with ${how}` };
    this.#ended = ended;
    this.#forgetError();
    this.#totals.failures += 1;
    this.#held = HELD.includes(ended.code);
    if (this.#held) {
      const held = heldReport(ended, this.#o.server);
      this.#say('error', 'ship-held', `${ended.message}; nothing more is shipped`, held);
      return;
    }
    const wait = restartDelay(this.#failures, FIRST, LONGEST);
    this.#failures += 1;
    this.#say(
      'error',
      'ship-restart',
      `${ended.message}; another begins in ${wait / 1000} s`,
      ended,
    );
    this.#enter('restarting');
    await abortableDelay(wait, signal);
  }

  /** What the process said of its last trouble is over with it. */
  #forgetError(): void {
    if (!this.#snapshot) return;
    const { error: _, ...rest } = this.#snapshot;
    this.#snapshot = rest;
  }

  #enter(state: StoreStatus['state']): void {
    if (state !== this.#state) this.#since = Date.now();
    this.#state = state;
  }

  #tell(entry: LogEntry): void {
    const message = `store ${this.task.name}: ${entry.message}`;
    this.#o.tell({ ...entry, message, server: this.#o.server });
  }

  #say(
    level: LogEntry['level'],
    event: string,
    message: string,
    report: Partial<ErrorReport> = {},
  ): void {
    this.#tell({ level, event, message, ...fieldsOf(report) });
  }
}

const SILENCE: ErrorReport = {
  code: 'WK_PROCESS',
  message: `nothing was heard of the process that ships for ${SILENT / 1000} s`,
};
