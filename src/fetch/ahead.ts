import fs from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { ledgerOf } from '../archive/ledger-of.js';
import { parseFetchName } from '../archive/stored-name.js';
import { parseSegmentFileName, segmentFileName } from '../wal/file-name.js';
import { parseLongHeader } from '../wal/long-header.js';
import { readServerControl } from './cluster.js';
import { checkComplete } from './segment.js';
import { readHead } from './source.js';
import {
  type AheadOrder,
  ALIVE_FILE,
  isRecovering,
  isTrusted,
  MOST_AHEAD,
  ORDER_FILE,
  spoolName,
} from './spool.js';
import { findSources, Staging } from './stage.js';

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
  let seen = '';
  let changed = performance.now();
  let touched = changed;
  const failed = new Map<string, number>();
  for (;;) {
    const text = readText(join(spool, ORDER_FILE));
    const now = performance.now();
    // No order: a reader that ended removed it. What was written since, by this one, kept the
    // directory from going with it.
    if (text === undefined) return clear(spool);
    if (readText(alive) !== token) return;
    const order = JSON.parse(text) as AheadOrder;
    const over = order.recovering && !isRecovering(order.dataDir);
    if (over || now - changed > IDLE_END) return clear(spool);
    if (text !== seen) {
      seen = text;
      changed = now;
      failed.clear();
    }
    if (now - touched > TOUCH) {
      touched = now;
      try {
        fs.utimesSync(alive, new Date(), new Date());
      } catch {
        // Removed since it was read: the next look at the order ends it.
      }
    }
    const worked = await readOne(spool, order, (name) => {
      const last = failed.get(name);
      if (last !== undefined && now - last < RETRY) return false;
      failed.set(name, now);
      return true;
    });
    if (!worked) await sleep(Math.min(POLL.max, POLL.min + (now - changed) / 20));
  }
}

/** What this makes in a spool. */
const OWN = /^([0-9A-F]{24}-.*|order\.json(\.[0-9]+)?|alive|\.walkeep-fetch\..*\.tmp)$/;

/** Removes the spool; of a directory that has something else in it only what is ours. */
function clear(spool: string): void {
  try {
    for (const name of fs.readdirSync(spool)) {
      if (OWN.test(name)) fs.rmSync(join(spool, name), { force: true });
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

/**
 * Puts the next missing segment of the window into the spool and removes what is not in it.
 * @param mayTry false for a segment that failed just now
 * @returns false if there was nothing to do
 */
async function readOne(
  spool: string,
  order: AheadOrder,
  mayTry: (name: string) => boolean,
): Promise<boolean> {
  const { directory } = order;
  const systemId =
    order.dataDir === undefined ? undefined : readServerControl(order.dataDir)?.systemId;
  try {
    const window = await windowBehind(order);
    const cluster = systemId ?? (await ledgerOf(directory))?.systemId;
    const names = window.map((name) => ({ name, file: spoolName(directory, name, systemId) }));
    const kept = new Set(names.map(({ file }) => file));
    for (const entry of fs.readdirSync(spool)) {
      if (/^[0-9A-F]{24}-/.test(entry) && !kept.has(entry)) fs.rmSync(join(spool, entry));
    }
    for (const { name, file } of names) {
      if (file === undefined) return false;
      const target = join(spool, file);
      if (fs.existsSync(target)) continue;
      if (!mayTry(name)) return false;
      const wanted = parseFetchName(name);
      const near = [order.near, spool];
      const source = findSources(directory, name, false)[0];
      if (!source) return false;
      const staging = new Staging(source, target, false);
      try {
        const request = { directory, wanted, target, systemId: cluster, near };
        await checkComplete(request, source.path, staging);
        await staging.file.commit();
      } finally {
        await staging.done.catch(() => {});
        await staging.file.discard();
      }
      // Replaced while it was read: not what the name says.
      if (spoolName(directory, name, systemId) !== file) fs.rmSync(target);
      return true;
    }
  } catch {
    // Damaged, unreadable, no space: the fetch of that segment will tell.
  }
  return false;
}

/** The names behind the segment served last, on its timeline. */
async function windowBehind({ directory, name, count }: AheadOrder): Promise<string[]> {
  const source = findSources(directory, name, false)[0];
  const header = source && parseLongHeader(await readHead(source));
  const parsed = header && parseSegmentFileName(name, header.segmentSize);
  if (!parsed) return [];
  const length = Math.min(count, MOST_AHEAD);
  return Array.from({ length }, (_, i) =>
    segmentFileName(parsed.timeline, parsed.segment + BigInt(i) + 1n, header.segmentSize),
  );
}
