import { readFileSync, type Stats, statSync } from 'node:fs';
import { readFile, stat } from 'node:fs/promises';
import { StorageError } from '../../errors.js';
import { storageError } from '../../files/durable.js';

/** A longer one is no secret that somebody types or makes. */
const LONGEST = 64 * 1024;

/**
 * The first line of a file that holds a secret; one that others may read is refused. It is read anew
 * at each use, so that it can be replaced while the program runs.
 * @throws StorageError, with nothing of what is in it
 */
export function readSecret(path: string): string {
  return firstLine(path, readPrivateFile(path));
}

/** All of such a file, as of a private key. @throws StorageError, with nothing of what is in it */
export function readPrivateFile(path: string): string {
  try {
    requireSecret(path, statSync(path));
    return readFileSync(path, 'utf8');
  } catch (e) {
    throw e instanceof StorageError ? e : storageError('read file', path, e);
  }
}

/** As `readSecret`, for who must not wait for a disk. */
export async function readSecretFile(path: string): Promise<string> {
  try {
    requireSecret(path, await stat(path));
    return firstLine(path, await readFile(path, 'utf8'));
  } catch (e) {
    throw e instanceof StorageError ? e : storageError('read file', path, e);
  }
}

function requireSecret(path: string, { mode, size, uid }: Stats): void {
  const bad = modeFault(mode, uid);
  if (bad !== undefined) throw new StorageError(`"${path}" ${bad}`, { path, hint: HINT });
  if (size > LONGEST) throw new StorageError(`"${path}" is too long for a secret`, { path });
}

function firstLine(path: string, text: string): string {
  const [line = ''] = text.split(/\r?\n/);
  if (line !== '') return line;
  throw new StorageError(`"${path}" holds no secret: its first line is empty`, { path });
}

const HINT = 'Give it the mode 0600; one of root may have 0640.';

/** As PostgreSQL has it for private keys: a file of root's may be read by a group of ours. */
function modeFault(mode: number, uid: number): string | undefined {
  const self = process.geteuid?.();
  if (self === undefined) return undefined;
  if (uid !== self && uid !== 0) return 'belongs to another user';
  const others = uid === 0 ? 0o037 : 0o077;
  return (mode & others) === 0 ? undefined : 'may be read or written by others';
}
