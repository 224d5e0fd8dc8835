import { execFile } from 'node:child_process';
import fsp from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { TargetError } from '../errors.js';
import { storageError } from '../files/durable.js';
import type { Owner } from './file-system.js';

const run = promisify(execFile);

/** PostgreSQL takes these for "not there", and what is above them for a failure. */
const MOST_ABSENT = 125;

export interface TriedCommand {
  /** As it stands in the settings. */
  command: string;
  owner: Owner | undefined;
  /** Files of WAL of which the server needs the first that is there. */
  names: readonly string[];
  environment?: NodeJS.ProcessEnv | undefined;
  /** The backup brings that WAL along. */
  included: boolean;
  signal?: AbortSignal | undefined;
}

/**
 * Fetches WAL by the very command that the server will run, as its user, with nothing in its
 * environment as a service has it, into a directory that is removed again: what does not work would
 * stop recovery at its first segment, when all else is done.
 * @throws TargetError, StorageError, the signal's reason
 */
export async function requireFetch(tried: TriedCommand): Promise<void> {
  const { owner, names, included, signal } = tried;
  // Where its user gets to: the TMPDIR of root may be root's alone.
  const base = owner ? '/tmp' : tmpdir();
  const scratch = await fsp.mkdtemp(join(base, 'walkeep-restore-')).catch((e) => {
    throw storageError('create directory', base, e);
  });
  try {
    if (owner) await fsp.chown(scratch, owner.uid, owner.gid);
    let last: Failed | undefined;
    for (const name of names) {
      last = await fetched(tried, name, scratch);
      signal?.throwIfAborted();
      if (!last) return;
      if (last.code === undefined || last.code > MOST_ABSENT) break;
    }
    const isAbsent = last?.code !== undefined && last.code <= MOST_ABSENT;
    if (last && !(included && isAbsent)) throw refused(tried, last);
  } finally {
    await fsp.rm(scratch, { recursive: true, force: true });
  }
}

interface Failed {
  name: string;
  /** Undefined: it could not be run, or was killed. */
  code: number | undefined;
  stderr: string;
}

async function fetched(
  { command, owner, environment = {}, signal }: TriedCommand,
  name: string,
  scratch: string,
): Promise<Failed | undefined> {
  // Of another name than a server's own: nothing is read ahead for that.
  const target = join(scratch, 'fetched');
  const line = command.replace(/%[%fp]/g, (found) =>
    found === '%f' ? name : found === '%p' ? target : '%',
  );
  try {
    await run('/bin/sh', ['-c', line], {
      ...{ env: environment, cwd: scratch, signal, ...owner },
      maxBuffer: 1 << 24,
    });
    return undefined;
  } catch (e) {
    const { code, stderr = '' } = e as { code?: number | string; stderr?: string };
    return { name, code: typeof code === 'number' ? code : undefined, stderr };
  }
}

function refused({ command, owner }: TriedCommand, { name, code, stderr }: Failed): TargetError {
  const who = owner ? `uid ${owner.uid}` : 'this user';
  const said = stderr.trim().split('\n')[0] || `exit code ${code ?? 'none'}`;
  return new TargetError(`the server could not fetch "${name}" with its restore_command`, {
    detail: `${command}: ${said}`,
    actual: code === undefined ? 'not run' : `exit code ${code}`,
    hint: `${who} must be able to run walkeep and node, and to read the archive, with an empty environment. Give --restore-command to use another, or --no-try-fetch where this machine is not the server's.`,
  });
}
