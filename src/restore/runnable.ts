import { execFile } from 'node:child_process';
import { promisify } from 'node:util';
import { TargetError } from '../errors.js';
import type { Owner } from './file-system.js';
import { programWords } from './settings.js';

const run = promisify(execFile);

/**
 * Tries what the server will run, as its user and with nothing in its environment: a command that
 * cannot be run would stop recovery at its first segment.
 * @throws TargetError
 */
export async function requireRunnable(owner: Owner | undefined): Promise<void> {
  const command = `${programWords()} fetch --version`;
  try {
    await run('/bin/sh', ['-c', command], { env: {}, cwd: '/', ...owner });
  } catch (cause) {
    const { stderr = '' } = cause as { stderr?: string };
    throw new TargetError('the server could not run walkeep as its restore_command', {
      cause,
      detail: `${command}: ${stderr.trim().split('\n')[0] ?? ''}`,
      hint: `Put walkeep and node where ${owner ? `uid ${owner.uid}` : 'this user'} can run them, or give --restore-command.`,
    });
  }
}
