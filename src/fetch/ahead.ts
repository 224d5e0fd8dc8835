import fs from 'node:fs';
import { dirname, join } from 'node:path';
import type { Archive } from '../archive/archive.js';
import { type ArchiveKeys, openArchive } from '../archive/places/open-archive.js';
import { stampOf } from '../archive/places/stamp.js';
import { fsyncDir } from '../files/durable.js';
import { modulePath } from '../package.js';
import { readServerControl } from '../server/control-file.js';
import { parseSegmentFileName, segmentFileName } from '../wal/file-name.js';
import { parseLongHeader } from '../wal/long-header.js';
import { AT_ONCE, moveToTarget } from './target.js';

/** This file, as the program that reads ahead. */
const PROGRAM = modulePath('fetch/ahead.js');

/** Beside the target unless said otherwise. */
export const SPOOL_DIRECTORY = '.walkeep-spool';
/** Most segments that are read ahead. */
export const MOST_AHEAD = 64;

/** What the process that reads ahead is told. */
export interface AheadOrder {
  /** The archives, in the order in which they are asked. */
  places: readonly string[];
  keys?: ArchiveKeys | undefined;
  /** The segment that was served last: those behind it come next. */
  name: string;
  /** How many. */
  count: number;
  dataDir: string | undefined;
  /** A server was recovering there: when it is not any more, all is over. */
  recovering: boolean;
  /** Where PostgreSQL keeps what it restored. */
  near: string;
}

/** File in the spool with the order that holds now. */
export const ORDER_FILE = 'order.json';
/** File in the spool that names the process at work and is touched by it while it lives. */
export const ALIVE_FILE = 'alive';
/** Files of a server's data directory of which one is there as long as it recovers. */
const RECOVERING = ['recovery.signal', 'standby.signal'];

/** True if a server runs and recovers in a data directory. */
export function isRecovering(dataDir: string | undefined): boolean {
  if (dataDir === undefined) return false;
  const has = (name: string) => fs.existsSync(join(dataDir, name));
  return has('postmaster.pid') && RECOVERING.some(has);
}

/**
 * True if a spool is a directory in which nobody else can have put anything: what lies there goes
 * to PostgreSQL without being checked again. Undefined if there is none.
 */
export function isTrusted(spool: string): boolean | undefined {
  const stat = fs.lstatSync(spool, { throwIfNoEntry: false });
  if (!stat) return undefined;
  return stat.isDirectory() && isOwn(stat) && (stat.mode & 0o022) === 0;
}

function isOwn({ uid }: fs.Stats): boolean {
  return process.geteuid === undefined || uid === process.geteuid();
}

/** Milliseconds after which a process that has not touched the file is taken for dead. */
export const ALIVE_FOR = 3000;

/**
 * The name that a prefetched segment has in the spool: that of the segment, then what tells its
 * source file and the cluster apart from all others. One that was replaced since, in another
 * archive, or checked for another server is not found under it. Undefined if there is no complete
 * file of that segment. @throws ArchiveAccessError
 */
export async function spoolName(
  place: string,
  base: string,
  systemId: bigint | undefined,
): Promise<string | undefined> {
  const stamp = await stampOf(place, base);
  return stamp && [base, stamp, (systemId ?? 0n).toString(36)].join('-');
}

/** The names of a segment that may come from any of some archives; of what cannot be asked none. */
async function spoolNames(
  places: readonly string[],
  base: string,
  systemId: bigint | undefined,
): Promise<(string | undefined)[]> {
  return Promise.all(
    places.map((place) => spoolName(place, base, systemId).catch(() => undefined)),
  );
}

/**
 * Moves a prefetched segment to the target; it was verified and synced when it was put there.
 * False if there is none, or the spool is on another file system.
 * @throws TargetError, FsyncError
 */
export async function takePrefetched(
  spool: string,
  places: readonly string[],
  base: string,
  systemId: bigint | undefined,
  target: string,
): Promise<boolean> {
  if (isTrusted(spool) !== true) return false;
  for (const name of await spoolNames(places, base, systemId)) {
    if (name === undefined) continue;
    const path = join(spool, name);
    const stat = fs.lstatSync(path, { throwIfNoEntry: false });
    if (!stat?.isFile() || !isOwn(stat) || stat.dev !== deviceOf(dirname(target))) continue;
    moveToTarget(path, target);
    await fsyncDir(dirname(target));
    return true;
  }
  return false;
}

function deviceOf(path: string): number | undefined {
  return fs.statSync(path, { throwIfNoEntry: false })?.dev ?? Number.NaN;
}

/**
 * Has the segments behind the one just served read ahead, by a process that goes on when this one
 * has ended. Best effort: without it the next fetch takes longer, that is all.
 */
export async function orderAhead(
  spool: string,
  order: Omit<AheadOrder, 'recovering'>,
): Promise<void> {
  try {
    const full: AheadOrder = { ...order, recovering: isRecovering(order.dataDir) };
    fs.mkdirSync(spool, { recursive: true, mode: 0o700 });
    if (isTrusted(spool) !== true) return;
    const temporary = join(spool, `${ORDER_FILE}.${process.pid}`);
    fs.writeFileSync(temporary, JSON.stringify(full), { mode: 0o600 });
    fs.renameSync(temporary, join(spool, ORDER_FILE));
    const alive = fs.statSync(join(spool, ALIVE_FILE), { throwIfNoEntry: false });
    if (alive && Date.now() - alive.mtimeMs < ALIVE_FOR) return;
    if (PROGRAM === undefined) return;
    const { spawn } = await import('node:child_process');
    // Its own session: PostgreSQL signals whole process groups.
    const child = spawn(process.execPath, [PROGRAM, spool], {
      detached: true,
      stdio: 'ignore',
      cwd: '/',
    });
    child.on('error', () => {});
    child.unref();
  } catch {
    // A full disk, no more processes: recovery goes on without.
  }
}

/** Milliseconds without a new order after which it ends: recovery is over, or replay is slow. */
const IDLE_END = 60_000;
/** Milliseconds between two looks at the order, at first and after a long silence. */
const POLL = { min: 10, max: 250 };
/** Milliseconds between two signs of life. */
const TOUCH = 500;
/** Milliseconds after which a segment that could not be had is tried again. */
const RETRY = 1000;

/**
 * Keeps the segments behind the one served last ready in a spool, each verified and synced before
 * it gets its name, and removes all others: when recovery goes on elsewhere they are of no use. Ends,
 * and leaves an empty place, when no orders come any more, the server is gone or has ended
 * recovery, or another process has taken over. What fails here fails in the fetch that needs it.
 */
export async function readAhead(spool: string): Promise<void> {
  const token = `${process.pid} ${Date.now()}`;
  if (isTrusted(spool) === false) return;
  const alive = join(spool, ALIVE_FILE);
  fs.writeFileSync(alive, token, { mode: 0o600 });
  const archives = new OpenArchives();
  // Also while a segment is long on its way.
  const touch = setInterval(() => {
    try {
      if (readText(alive) === token) fs.utimesSync(alive, new Date(), new Date());
    } catch {
      // Removed since it was read: the next look at the order ends it.
    }
  }, TOUCH);
  try {
    await keepAhead(spool, token, archives);
  } finally {
    clearInterval(touch);
    await archives.close();
  }
}

async function keepAhead(spool: string, token: string, archives: OpenArchives): Promise<void> {
  let seen = '';
  let changed = performance.now();
  const failed = new Map<string, number>();
  for (;;) {
    const text = readText(join(spool, ORDER_FILE));
    const now = performance.now();
    // No order: a reader that ended removed it. What was written since, by this one, kept the
    // directory from going with it.
    if (text === undefined) return clear(spool);
    if (readText(join(spool, ALIVE_FILE)) !== token) return;
    const order = JSON.parse(text) as AheadOrder;
    const over = order.recovering && !isRecovering(order.dataDir);
    if (over || now - changed > IDLE_END) return clear(spool);
    if (text !== seen) {
      seen = text;
      changed = now;
      failed.clear();
    }
    const mayTry = (name: string): boolean => {
      const last = failed.get(name);
      if (last !== undefined && now - last < RETRY) return false;
      failed.set(name, now);
      return true;
    };
    const worked = await readOne(spool, order, archives, mayTry).catch(() => false);
    if (!worked) await pause(Math.min(POLL.max, POLL.min + (now - changed) / 20));
  }
}

/** What this makes in a spool. */
const MADE = /^([0-9A-F]{24}-.*|order\.json(\.[0-9]+)?|alive|\.walkeep-fetch\..*\.tmp)$/;

/** Removes the spool; of a directory that has something else in it only what is ours. */
function clear(spool: string): void {
  try {
    for (const name of fs.readdirSync(spool)) {
      if (MADE.test(name)) fs.rmSync(join(spool, name), { force: true });
    }
    fs.rmdirSync(spool);
  } catch {
    // Not empty, or another reader was faster.
  }
}

function readText(path: string): string | undefined {
  try {
    return fs.readFileSync(path, 'utf8');
  } catch {
    // Removed with the whole spool.
    return undefined;
  }
}

/** The archives that a reader has open, as long as the order names the same ones. */
class OpenArchives {
  #key = '';
  #opened: (Promise<Archive> | undefined)[] = [];

  /** @throws what opening it throws, now; the next call tries again */
  async at(order: AheadOrder, index: number, systemId: bigint | undefined): Promise<Archive> {
    const key = JSON.stringify([order.places, order.keys, String(systemId)]);
    if (key !== this.#key) {
      await this.close();
      this.#key = key;
    }
    this.#opened[index] ??= openArchive(order.places[index] as string, {
      ...order.keys,
      systemId,
    });
    try {
      return await this.#opened[index];
    } catch (e) {
      this.#opened[index] = undefined;
      throw e;
    }
  }

  async close(): Promise<void> {
    for (const archive of this.#opened.splice(0)) await (await archive?.catch(() => {}))?.close();
  }
}

/**
 * Puts the next missing segment of the window into the spool and removes what is not in it.
 * @param mayTry false for a segment that failed just now
 * @returns false if there was nothing to do
 */
async function readOne(
  spool: string,
  order: AheadOrder,
  archives: OpenArchives,
  mayTry: (name: string) => boolean,
): Promise<boolean> {
  const { dataDir, places } = order;
  const systemId = dataDir === undefined ? undefined : readServerControl(dataDir)?.systemId;
  const open = (index: number) => archives.at(order, index, systemId);
  const window = await windowBehind(order, open);
  const names: { name: string; files: (string | undefined)[] }[] = [];
  for (const name of window) names.push({ name, files: await spoolNames(places, name, systemId) });
  const kept = new Set(names.flatMap(({ files }) => files));
  for (const entry of fs.readdirSync(spool)) {
    if (/^[0-9A-F]{24}-/.test(entry) && !kept.has(entry)) fs.rmSync(join(spool, entry));
  }
  for (const { name, files } of names) {
    const there = files.filter((file) => file !== undefined);
    if (there.length === 0) return false;
    if (there.some((file) => fs.existsSync(join(spool, file)))) continue;
    if (!mayTry(name)) return false;
    for (const [i, file] of files.entries()) {
      if (file === undefined) continue;
      const request = { name, target: join(spool, file), near: [order.near, spool], systemId };
      // Damaged, unreadable, no space: the fetch of that segment will tell.
      if (!(await serve(await open(i), request).catch(() => false))) continue;
      // Replaced while it was read: not what the name says.
      const now = await spoolName(places[i] as string, name, systemId);
      if (now !== file) fs.rmSync(request.target);
      return true;
    }
    return false;
  }
  return false;
}

/** True if the segment is in its place now. */
async function serve(
  archive: Archive,
  { name, target, near, systemId }: SpoolRequest,
): Promise<boolean> {
  const { parseFetchName, serveComplete } = await import('./fetch.js');
  const [source] = await archive.stored(name, false, { toRead: true });
  if (!source) return false;
  const cluster = async () => systemId ?? (await archive.cluster())?.systemId;
  const request = { archive, wanted: parseFetchName(name), target, near };
  return (await serveComplete(request, source, cluster)) === undefined;
}

interface SpoolRequest {
  name: string;
  target: string;
  near: string[];
  systemId: bigint | undefined;
}

/** The names behind the segment served last, on its timeline. */
async function windowBehind(
  { name, count, places }: AheadOrder,
  open: (index: number) => Promise<Archive>,
): Promise<string[]> {
  for (const index of places.keys()) {
    const segmentSize = await open(index)
      .then((archive) => sizeOf(archive, name))
      .catch(() => {});
    const parsed = segmentSize && parseSegmentFileName(name, segmentSize);
    if (!parsed) continue;
    const length = Math.min(count, MOST_AHEAD);
    return Array.from({ length }, (_, i) =>
      segmentFileName(parsed.timeline, parsed.segment + BigInt(i) + 1n, segmentSize),
    );
  }
  return [];
}

/** Bytes of the segments, as one of them says. */
async function sizeOf(archive: Archive, name: string): Promise<number | undefined> {
  const said = archive.isDirectory ? undefined : (await archive.cluster())?.segmentSize;
  if (said !== undefined) return said;
  const [source] = await archive.stored(name, false);
  const { readHead } = await import('../archive/lead-in.js');
  const head = source && (await readHead(source, AT_ONCE));
  return head && parseLongHeader(head)?.segmentSize;
}

const pause = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms));

// Started by `orderAhead`, with the spool as its argument. Nobody sees what it would say.
if (PROGRAM && process.argv[1] === PROGRAM) readAhead(process.argv[2] as string).catch(() => {});
