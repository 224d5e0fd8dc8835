import fsp from 'node:fs/promises';
import { join } from 'node:path';
import { TargetError } from '../errors.js';
import { storageError, writeFileDurably } from '../files/durable.js';
import { controlState } from '../server/control-file.js';
import { hasBlock, settingOf, settingsIn, without } from './config-file.js';
import { nodeRestoreFileSystem as fs } from './file-system.js';
import { RECOVERY_SETTINGS } from './settings.js';

export interface FinishResult {
  /** Settings that were taken out, as they stood. */
  removed: string[];
  /** What the server is to be told: some of them count from its next start on. */
  next: 'restart' | 'reload';
}

/** Settings that a server takes over only when it starts. */
const NEEDS_RESTART = /^(archive_mode|max_)/;

/**
 * Takes what a restore wrote into postgresql.auto.conf out of it, once the server has been promoted.
 * @throws TargetError while it is in recovery, or if no restore wrote anything there; StorageError
 */
export async function finishRestore(dataDir: string): Promise<FinishResult> {
  const path = join(dataDir, 'postgresql.auto.conf');
  let text: string;
  try {
    text = (await fs.readFile(path)).toString('latin1');
  } catch (e) {
    throw storageError('read file', path, e);
  }
  for (const name of ['recovery.signal', 'standby.signal', '.walkeep-restore']) {
    if (await fs.stat(join(dataDir, name))) throw inRecovery(dataDir, `"${name}" is there`);
  }
  const state = controlState(await fs.readFile(join(dataDir, 'global', 'pg_control')));
  if (state === 'recovery') throw inRecovery(dataDir, 'its pg_control says so');
  const rest = hasBlock(text) ? without(text) : withoutMarks(text);
  if (rest === undefined) {
    throw new TargetError(`"${path}" has nothing of a restore`, {
      path,
      hint: 'It may have been finished before.',
    });
  }
  const kept = rest.split('\n');
  const removed = text.split('\n').filter((line) => settingOf(line) && !take(kept, line));
  const { uid, gid, mode } = await fsp.stat(path);
  await writeFileDurably(path, Buffer.from(rest, 'latin1'), { mode: mode & 0o777 });
  if (process.getuid?.() === 0) await fsp.chown(path, uid, gid);
  const next = removed.some((line) => NEEDS_RESTART.test(line)) ? 'restart' : 'reload';
  return { removed, next };
}

function inRecovery(path: string, why: string): TargetError {
  return new TargetError(`the server of "${path}" is in recovery, or was not started yet: ${why}`, {
    path,
    hint: 'Start it; where it has paused at its target, end that with SELECT pg_wal_replay_resume().',
  });
}

/** Removes one such line; false if there is none. */
function take(lines: string[], line: string): boolean {
  const at = lines.indexOf(line);
  if (at >= 0) lines.splice(at, 1);
  return at >= 0;
}

/** ALTER SYSTEM writes the file anew without its comments: what a restore wrote is known by its command. */
function withoutMarks(text: string): string | undefined {
  if (!/ fetch .*%f %p/.test(settingsIn(text).get('restore_command') ?? '')) return undefined;
  return without(text, (name) => RECOVERY_SETTINGS.has(name))
    .split('\n')
    .filter((line) => !/^(archive_mode = 'off'|synchronous_standby_names = '')$/.test(line))
    .join('\n');
}
