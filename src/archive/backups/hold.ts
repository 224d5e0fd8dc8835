import { randomBytes } from 'node:crypto';
import { setTimeout as delay } from 'node:timers/promises';
import { CorruptObjectError, LeaseLostError, WalkeepError } from '../../errors.js';
import { isProvenDead, ownIdentity, type ProcessIdentity } from '../../files/process-identity.js';
import { contentOf } from '../../store/content.js';
import { readWhole } from '../../store/read-whole.js';
import type { ObjectStore } from '../../store/store.js';
import type { BackupArea } from './area.js';

/** Milliseconds. */
export interface HoldTiming {
  /** How often a sign of life is given. */
  renew: number;
  /** Without one for so long, by the clock of the place, somebody may be dead. */
  dead: number;
  /** He is if he then gives none for so long, by a clock that nobody sets. */
  observe: number;
  /** How often somebody is looked for who is waited for. */
  poll: number;
  /** @param idle does not keep the process running */
  wait(ms: number, signal?: AbortSignal, idle?: boolean): Promise<void>;
  /** Of this process: others of its machine can tell that it is dead. Absent: nobody can. */
  identity?(): Promise<ProcessIdentity>;
}

export const TIMING: HoldTiming = {
  renew: 60_000,
  dead: 15 * 60_000,
  observe: 150_000,
  poll: 2_000,
  wait: (ms, signal, idle = false) => delay(ms, undefined, { signal, ref: !idle }),
  identity: ownIdentity,
};

type Json = Record<string, unknown>;

const DIGITS = 8;

/**
 * A sign of life in a place where objects are never overwritten: `<prefix><writer>/<n>`, renewed by
 * the next n. Who ends another's removes the objects and then looks again; who renews creates the next
 * and then looks for the one before. So never both go on, whatever the clocks say.
 */
export class Hold {
  readonly #area: BackupArea;
  readonly #prefix: string;
  readonly #writer = randomBytes(8).toString('hex');
  readonly #timing: HoldTiming;
  readonly #lost = new AbortController();
  readonly #ended = new AbortController();
  /** Of the newest object that may be there; -1: none. */
  #n = -1;
  /** Bytes whose creation was not answered: they are created first. */
  #pending: Buffer | undefined;
  /** That of this number was there when the next one was, is still to be shown. */
  #unproven: number | undefined;
  #content: Json = {};
  #process: ProcessIdentity | undefined;
  #queue: Promise<unknown> = Promise.resolve();

  /** @param prefix behind that of the area, with a slash at its end */
  constructor(area: BackupArea, prefix: string, timing: HoldTiming) {
    this.#area = area;
    this.#prefix = `${area.prefix}${prefix}${this.#writer}/`;
    this.#timing = timing;
  }

  get signal(): AbortSignal {
    return this.#lost.signal;
  }

  async begin(content: Json, signal: AbortSignal | undefined): Promise<void> {
    this.#process = await this.#timing.identity?.();
    this.#content = content;
    await this.#next(signal);
    void this.#keep();
  }

  /** By the clock of the place, when the newest sign of life was given. @throws LeaseLostError */
  async time(): Promise<Date> {
    return this.#alone(async () => {
      await this.#complete();
      const head = await this.#area.store.head(this.#key(this.#n));
      if (!head) throw this.#lose();
      return head.modified;
    });
  }

  /** Gives one now. @throws LeaseLostError */
  renew(content?: Json): Promise<void> {
    return this.#alone(async () => {
      await this.#complete();
      if (content) this.#content = content;
      await this.#next();
    });
  }

  async release(): Promise<void> {
    if (this.#ended.signal.aborted) return;
    this.#ended.abort();
    await this.#queue.catch(() => {});
    if (this.#n < 0) return;
    const keys = [];
    for (let n = Math.max(0, this.#n - 2); n <= this.#n; n++) keys.push(this.#key(n));
    // What stays is dead after a while.
    await end(this.#area, keys).catch(() => {});
  }

  #key(n: number): string {
    return `${this.#prefix}${String(n).padStart(DIGITS, '0')}`;
  }

  #alone<T>(act: () => Promise<T>): Promise<T> {
    const run = this.#queue.then(async () => {
      this.#lost.signal.throwIfAborted();
      return act();
    });
    this.#queue = run.catch(() => {});
    return run;
  }

  async #next(signal?: AbortSignal): Promise<void> {
    this.#n += 1;
    const content = { format: 1, process: this.#process, ...this.#content };
    this.#pending = Buffer.from(`${JSON.stringify(content)}\n`);
    await this.#complete(signal);
  }

  /** What was begun, and perhaps not answered. */
  async #complete(signal?: AbortSignal): Promise<void> {
    const { store } = this.#area;
    const key = this.#key(this.#n);
    if (this.#pending) {
      const token = `${this.#writer}-${this.#n}`;
      const made = await store.create(key, contentOf(this.#pending), { token, signal });
      if (!made.created) throw this.#lose();
      this.#pending = undefined;
      if (this.#n > 0) this.#unproven = this.#n - 1;
    }
    if (this.#unproven === undefined) return;
    // Only now: who has removed it before this one was there sees this one.
    if (!(await store.head(this.#key(this.#unproven)))) {
      await store.remove([key]).catch(() => {});
      throw this.#lose();
    }
    const before = this.#unproven - 1;
    this.#unproven = undefined;
    // The one between stays: a listing that began before this one was there has it.
    if (before >= 0) await store.remove([this.#key(before)]).catch(() => {});
  }

  #lose(): LeaseLostError {
    const error = new LeaseLostError(`"${this.#prefix}" was ended by another`, {
      key: this.#prefix,
      hint: 'It gave no sign of life for a quarter of an hour: see what stopped it, and try again.',
    });
    this.#lost.abort(error);
    return error;
  }

  async #keep(): Promise<void> {
    const { renew, wait } = this.#timing;
    for (let ms = renew; ; ) {
      try {
        await wait(ms, AbortSignal.any([this.#ended.signal, this.#lost.signal]), true);
      } catch {
        return;
      }
      ms = renew;
      try {
        await this.renew();
      } catch (e) {
        if (this.#lost.signal.aborted) return;
        if (!(e instanceof WalkeepError)) return this.#lost.abort(e);
        // No answer, or no right for now: it lives for as long as nobody ends it.
        ms = renew / 4;
      }
    }
  }
}

/**
 * Removes one, in its order. What a lock retains is followed by one that says that it has ended, if
 * its holder has not renewed it meanwhile.
 */
async function end({ store }: BackupArea, keys: readonly string[]): Promise<void> {
  let retained: string | undefined;
  const last = keys.at(-1) as string;
  // `<kind>/<id>/`: of its other holders nothing is empty.
  const prune = last.split('/').slice(0, -2).concat('').join('/');
  for (const key of keys) {
    const removed = await store.remove([key], key === last ? { prune } : {});
    retained = removed.retained[0] ?? retained;
  }
  if (retained === undefined) return;
  const next = Number(last.slice(-DIGITS)) + 1;
  const key = `${last.slice(0, -DIGITS)}${String(next).padStart(DIGITS, '0')}`;
  await store.create(
    key,
    contentOf(Buffer.from(`${JSON.stringify({ format: 1, ended: true })}\n`)),
  );
}

/** One that somebody else holds, or did. */
export interface OtherHold {
  id: string;
  /** Of the newest object. */
  modified: Date;
  /** Undefined: it cannot be read, as one of a newer walkeep. */
  content: Json | undefined;
}

interface Found extends OtherHold {
  /** Without the number. */
  prefix: string;
  keys: string[];
}

/** That one who gave no sign of life for long is watched before he is ended. */
export interface Watched extends OtherHold {
  /** Milliseconds from now on. */
  ms: number;
}

export interface LiveOptions {
  /** Of the place; without it all count as living who are not proven dead. */
  now?: Date | undefined;
  /** `only`: nobody is ended; `unwatched`: only who need not be watched for it. */
  look?: 'only' | 'unwatched';
  timing?: HoldTiming;
  signal?: AbortSignal | undefined;
  /** Of one without a sign of life: whether nothing is left that it could be held for. */
  isIdle?: ((hold: OtherHold) => Promise<boolean>) | undefined;
  /**
   * True for the content of one whose process may have asked the store for something before it died
   * that is still on its way: then its being dead does not end it before the clock doubts it as well.
   */
  mayLinger?: ((content: Json | undefined) => boolean) | undefined;
  /** Told before anybody is watched. */
  onWatch?: ((watched: readonly Watched[]) => void) | undefined;
}

/**
 * Those that live. One of a process of this machine that is proven dead is ended at once. Another
 * without a sign of life for so long by the clock of the place, and then none while it is watched, is
 * ended too. The clock of the place may be that of this machine, and be set while somebody is at work:
 * so it alone ends nobody who may need anything.
 */
export async function liveHolds(
  area: BackupArea,
  kind: string,
  options: LiveOptions,
): Promise<OtherHold[]> {
  const { now, look, timing = TIMING, signal, isIdle, mayLinger, onWatch } = options;
  const found = await readHolds(area, kind, signal);
  const isDoubtful = ({ modified }: Found) =>
    now !== undefined && Math.abs(now.getTime() - modified.getTime()) > timing.dead;
  const living: Found[] = [];
  const over: Found[] = [];
  const doubtful: Found[] = [];
  for (const one of found) {
    const isSettled = isDoubtful(one) || !mayLinger?.(one.content);
    if (isSettled && (await isDead(one, timing))) over.push(one);
    else if (!isDoubtful(one)) living.push(one);
    else if (await isIdle?.(one)) over.push(one);
    else doubtful.push(one);
  }
  if (look === 'only') return living;
  for (const one of over) living.push(...(await endOther(area, kind, one, signal)));
  if (doubtful.length === 0) return living;
  if (look === 'unwatched') return [...living, ...doubtful];
  onWatch?.(
    doubtful.map(({ id, modified, content }) => ({ id, modified, content, ms: timing.observe })),
  );
  await timing.wait(timing.observe, signal);
  const newest = ({ keys }: Found) => keys.at(-1);
  const after = await readHolds(area, kind, signal);
  const silent = after.filter((one) => doubtful.some((d) => newest(d) === newest(one)));
  const rest = after.filter((one) => !silent.includes(one));
  for (const one of silent) rest.push(...(await endOther(area, kind, one, signal)));
  return rest;
}

/** @returns what was renewed meanwhile: it goes on */
async function endOther(
  area: BackupArea,
  kind: string,
  one: Found,
  signal: AbortSignal | undefined,
): Promise<Found[]> {
  await end(area, one.keys);
  return readHolds(area, kind, signal, one.prefix);
}

async function isDead({ content }: Found, { identity }: HoldTiming): Promise<boolean> {
  const process = content?.process as ProcessIdentity | undefined;
  if (!identity || typeof process?.pid !== 'number') return false;
  return isProvenDead(process, await identity());
}

async function readHolds(
  { store, prefix }: Pick<BackupArea, 'store' | 'prefix'>,
  kind: string,
  signal: AbortSignal | undefined,
  under = `${prefix}${kind}`,
): Promise<Found[]> {
  const found = new Map<string, Omit<Found, 'content'>>();
  for await (const { key, modified } of store.list(under, { signal })) {
    const [id, writer, n, more] = key.slice(prefix.length + kind.length).split('/');
    if (!id || !writer || !n || more !== undefined) continue;
    const own = `${prefix}${kind}${id}/${writer}/`;
    const before = found.get(own)?.keys ?? [];
    found.set(own, { id, prefix: own, modified, keys: [...before, key] });
  }
  const all: Found[] = [];
  for (const one of found.values()) {
    const newest = await contentOfHold(store, one.keys.at(-1) as string, signal);
    if (newest?.content?.ended === true) continue;
    if (newest) all.push({ ...one, content: newest.content });
    // Renewed or released since.
    else all.push(...(await readHolds({ store, prefix }, kind, signal, one.prefix)));
  }
  return all;
}

/** Undefined: it is gone. Without a content: it is damaged, or of a newer walkeep. */
async function contentOfHold(
  store: ObjectStore,
  key: string,
  signal: AbortSignal | undefined,
): Promise<{ content: Json | undefined } | undefined> {
  try {
    const text = await readWhole(store, key, String, { signal });
    if (text === undefined) return undefined;
    const content = JSON.parse(text) as Json | null;
    return { content: content?.format === 1 ? content : undefined };
  } catch (e) {
    if (e instanceof CorruptObjectError || e instanceof SyntaxError) return { content: undefined };
    throw e;
  }
}
