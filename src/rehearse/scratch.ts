import { createHash, randomBytes } from 'node:crypto';
import fsp from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { readJson, remove, writeJson } from 'fs-extra/esm';
import { TargetError } from '../errors.js';
import { storageError } from '../files/durable.js';
import { liveness, ownIdentity, type ProcessIdentity } from '../files/process-identity.js';
import type { Owner } from '../restore/file-system.js';
import { killServerIn } from './leftover-server.js';

/** The directory of one rehearsal, with all that it makes. */
export interface Scratch {
  path: string;
  dataDir: string;
  /** Below it each tablespace has a directory called by its OID. */
  tablespaces: string;
  /** Of the unix socket, with a short name: the path of a socket has at most 107 bytes. */
  socket: string;
  log: string;
  hba: string;
  ident: string;
}

const MARKER = '.walkeep-rehearse';
/** `walkeep-rehearse-PID-START-WORLD-RANDOM`: whose it is, said by the call that creates it. */
const NAME = /^walkeep-rehearse-(\d+)-(\d*)-([0-9a-f]{8})-[0-9a-f]{6}$/;
/** sockaddr_un's, without the zero at its end. */
const LONGEST_SOCKET = 107;
export const PORT = 5432;

interface Marker {
  format: 1;
  owner: ProcessIdentity;
}

/** Makes the directory; the server of `owner` passes through it. @throws TargetError, StorageError */
export async function makeScratch(
  base: string | undefined,
  owner: Owner | undefined,
): Promise<Scratch> {
  const self = await ownIdentity();
  const root = resolve(base ?? tmpdir());
  const random = randomBytes(3).toString('hex');
  const name = `walkeep-rehearse-${self.pid}-${self.startTime}-${worldOf(self)}-${random}`;
  const path = join(root, name);
  const scratch: Scratch = {
    ...{ path, dataDir: join(path, 'data'), tablespaces: join(path, 'tablespaces') },
    ...{ socket: join(path, 's'), log: join(path, 'log') },
    ...{ hba: join(path, 'hba.conf'), ident: join(path, 'ident.conf') },
  };
  const socket = join(scratch.socket, `.s.PGSQL.${PORT}`);
  if (Buffer.byteLength(socket) > LONGEST_SOCKET) {
    throw new TargetError(`the path of the server's socket would be too long: "${socket}"`, {
      path: root,
      hint: 'Give a --scratch directory with a shorter path.',
    });
  }
  try {
    await fsp.mkdir(path, { mode: owner ? 0o711 : 0o700 });
    // What umask took away.
    await fsp.chmod(path, owner ? 0o711 : 0o700);
    const marker: Marker = { format: 1, owner: self };
    await writeJson(join(path, MARKER), marker, { mode: 0o600 });
    await fsp.mkdir(scratch.socket, { mode: 0o700 });
    if (owner) await fsp.chown(scratch.socket, owner.uid, owner.gid);
    const readable = { mode: 0o644 };
    await fsp.writeFile(scratch.hba, 'local all all trust\n', readable);
    await fsp.writeFile(scratch.ident, '', readable);
  } catch (e) {
    await remove(path).catch(() => {});
    throw storageError('make directory', path, e);
  }
  return scratch;
}

/**
 * Removes all of it. What reads WAL ahead for the server may still put a file there.
 * @throws StorageError
 */
export async function removeScratch(path: string): Promise<void> {
  try {
    await fsp.rm(path, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 });
  } catch (e) {
    throw storageError('remove directory', path, e);
  }
}

/**
 * Stops the servers and removes the directories of rehearsals that were killed. Only what this user
 * made, and whose process is proven to be gone; what is in doubt stays.
 * @returns the directories that were there
 */
export async function sweep(
  base: string | undefined,
  onWarning: (message: string) => void,
): Promise<string[]> {
  const root = resolve(base ?? tmpdir());
  const self = await ownIdentity();
  const swept: string[] = [];
  for (const name of (await fsp.readdir(root).catch(() => [])).sort()) {
    const parts = NAME.exec(name);
    if (!parts) continue;
    const path = join(root, name);
    if (!(await isOwn(path)) || !(await isAbandoned(path, parts, self))) continue;
    try {
      await killServerIn(join(path, 'data'));
      await removeScratch(path);
      swept.push(path);
    } catch (e) {
      onWarning(`"${path}" of a rehearsal that was killed stays: ${(e as Error).message}`);
    }
  }
  return swept;
}

/** A directory that somebody else has put there, or a link, is none of ours. */
async function isOwn(path: string): Promise<boolean> {
  const found = await fsp.lstat(path).catch(() => undefined);
  return found?.isDirectory() === true && found.uid === process.getuid?.();
}

async function isAbandoned(
  path: string,
  [, pid, startTime = '', world]: RegExpExecArray,
  self: ProcessIdentity,
): Promise<boolean> {
  const owner = await readOwner(path);
  if (owner) return (await liveness(owner, self)) === 'dead';
  // It was killed before it could write its marker, or it is just about to.
  if (world !== worldOf(self)) return false;
  return (await liveness({ ...self, pid: Number(pid), startTime }, self)) === 'dead';
}

async function readOwner(path: string): Promise<ProcessIdentity | undefined> {
  try {
    const marker: Marker = await readJson(join(path, MARKER));
    return marker.format === 1 && typeof marker.owner?.pid === 'number' ? marker.owner : undefined;
  } catch {
    return undefined;
  }
}

/** Where the number of a process means the same. */
function worldOf({ host, bootId, pidNamespace }: ProcessIdentity): string {
  const text = [host, bootId, pidNamespace].join('\n');
  return createHash('sha256').update(text).digest('hex').slice(0, 8);
}
