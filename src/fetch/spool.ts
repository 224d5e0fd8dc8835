import fs from 'node:fs';
import { dirname, join } from 'node:path';
import { onArchive } from '../archive/access.js';
import { storedNames } from '../archive/stored-name.js';
import { fsyncDir } from '../files/durable.js';
import { MODULES } from '../package.js';
import { moveToTarget } from './target.js';

/** Beside the target unless said otherwise. */
export const SPOOL_DIRECTORY = '.walkeep-spool';
/** Most segments that are read ahead. */
export const MOST_AHEAD = 64;

/** What the process that reads ahead is told. */
export interface AheadOrder {
  /** The archive. */
  directory: string;
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
export function spoolName(
  directory: string,
  base: string,
  systemId: bigint | undefined,
): string | undefined {
  for (const name of storedNames(base, false)) {
    const path = join(directory, name);
    const stat = onArchive('stat file', path, () =>
      fs.statSync(path, { bigint: true, throwIfNoEntry: false }),
    );
    if (!stat?.isFile()) continue;
    const { dev, ino, size, mtimeNs, ctimeNs } = stat;
    const parts = [dev, ino, size, mtimeNs, ctimeNs, systemId ?? 0n];
    return [base, ...parts.map((n) => n.toString(36))].join('-');
  }
  return undefined;
}

/**
 * Moves a prefetched segment to the target; it was verified and synced when it was put there.
 * False if there is none, or the spool is on another file system.
 * @throws ArchiveAccessError, TargetError, FsyncError
 */
export async function takePrefetched(
  spool: string,
  directory: string,
  base: string,
  systemId: bigint | undefined,
  target: string,
): Promise<boolean> {
  if (isTrusted(spool) !== true) return false;
  const name = spoolName(directory, base, systemId);
  if (name === undefined) return false;
  const path = join(spool, name);
  const stat = fs.lstatSync(path, { throwIfNoEntry: false });
  if (!stat?.isFile() || !isOwn(stat) || stat.dev !== deviceOf(dirname(target))) return false;
  moveToTarget(path, target);
  await fsyncDir(dirname(target));
  return true;
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
    const { spawn } = await import('node:child_process');
    const { fileURLToPath } = await import('node:url');
    const program = fileURLToPath(new URL('fetch/ahead-process.js', MODULES));
    // Its own session: PostgreSQL signals whole process groups.
    const child = spawn(process.execPath, [program, spool], {
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
