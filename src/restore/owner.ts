import { execFile } from 'node:child_process';
import fsp from 'node:fs/promises';
import { dirname } from 'node:path';
import { promisify } from 'node:util';
import { TargetError, UsageError } from '../errors.js';
import type { Owner } from './file-system.js';

const run = promisify(execFile);

/**
 * Whom the files are to belong to; undefined: to this process's user, as they do anyway. PostgreSQL
 * runs as root for nobody.
 * @param given `user`, `user:group`, or numbers
 * @throws UsageError, TargetError
 */
export async function ownerOf(
  given: string | undefined,
  dataDir: string,
): Promise<Owner | undefined> {
  const self = process.getuid?.();
  if (given !== undefined) {
    const owner = await namedOwner(given);
    if (self === 0 || owner.uid === self) return self === 0 ? owner : undefined;
    throw new UsageError(`only root can give files to "${given}"`);
  }
  const nearest = await nearestDirectory(dataDir);
  if (self !== 0) {
    if (nearest.path === dataDir && nearest.uid !== self) {
      throw new TargetError(`directory "${dataDir}" belongs to another user`, {
        path: dataDir,
        expected: `uid ${self}`,
        actual: `uid ${nearest.uid}`,
        hint: 'Restore as the user that the server runs as.',
      });
    }
    return undefined;
  }
  if (nearest.uid !== 0) return { uid: nearest.uid, gid: nearest.gid };
  throw new UsageError('as root walkeep cannot tell whom the server is to belong to', {
    hint: 'Say so with --owner USER, or run it as the user that the server runs as.',
  });
}

/** The directory itself, or the first one above it that is there. */
async function nearestDirectory(path: string): Promise<{ path: string; uid: number; gid: number }> {
  for (let at = path; ; at = dirname(at)) {
    const found = await fsp.stat(at).catch(() => undefined);
    if (found) return { path: at, uid: found.uid, gid: found.gid };
  }
}

/** @throws UsageError for one that is not there, and for root */
export async function namedOwner(given: string): Promise<Owner> {
  const [user = '', group] = given.split(':');
  const uid = await numberOf(user, ['-u', user]);
  const gid = group === undefined ? await primaryGroup(user) : await groupOf(group);
  if (uid === 0) throw new UsageError('a server does not run as root');
  return { uid, gid };
}

async function numberOf(text: string, args: string[]): Promise<number> {
  if (/^\d+$/.test(text)) return Number(text);
  try {
    return Number((await run('id', args)).stdout);
  } catch {
    throw new UsageError(`there is no user "${text}"`);
  }
}

async function primaryGroup(user: string): Promise<number> {
  return numberOf(/^\d+$/.test(user) ? user : '', ['-g', user]);
}

async function groupOf(group: string): Promise<number> {
  if (/^\d+$/.test(group)) return Number(group);
  const { stdout } = await run('getent', ['group', group]).catch(() => ({ stdout: '' }));
  const found = /^[^:]*:[^:]*:(\d+):/.exec(stdout)?.[1];
  if (found === undefined) throw new UsageError(`there is no group "${group}"`);
  return Number(found);
}
