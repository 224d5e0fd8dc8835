import { spawn } from 'node:child_process';
import { StoreAccessError, StoreUncertainError } from '../../../errors.js';
import { splitWords } from '../../../words.js';
import { credentialsOf, jsonOf } from './answer.js';
import type { Credentials, Environment } from './source.js';

const TIMEOUT_MS = 60_000;
const MOST_BYTES = 64 * 1024;

/**
 * The credentials that a profile's `credential_process` prints. It is run without a shell. What it
 * says on its standard error is not told: it may hold secrets.
 */
export async function fromProcess(
  command: string,
  profile: string,
  env: Environment,
  timeoutMs: number = TIMEOUT_MS,
): Promise<Credentials> {
  const from = `the credential_process of the profile "${profile}"`;
  const words = splitWords(command);
  if (!words?.[0]) {
    throw new StoreAccessError(`${from} is no command`, { hint: 'Look at its quotes.' });
  }
  const fields = jsonOf(await outputOf(words, env, timeoutMs, from));
  if ((fields as { Version?: unknown } | undefined)?.Version !== 1) {
    throw new StoreUncertainError(`${from} did not print credentials of version 1`);
  }
  return credentialsOf(fields, from);
}

function outputOf(
  words: readonly string[],
  env: Environment,
  timeoutMs: number,
  from: string,
): Promise<string> {
  const [program = '', ...args] = words;
  return new Promise((resolve, reject) => {
    // A process group of its own, to be killed with all that it has started.
    const child = spawn(program, args, {
      env: env as NodeJS.ProcessEnv,
      stdio: ['ignore', 'pipe', 'ignore'],
      detached: true,
    });
    const parts: Buffer[] = [];
    let size = 0;
    const fail = (why: string) => {
      if (child.pid !== undefined) {
        try {
          process.kill(-child.pid, 'SIGKILL');
        } catch {
          // It has ended meanwhile.
        }
      }
      child.stdout?.destroy();
      reject(new StoreUncertainError(`${from} ${why}`));
    };
    const timer = setTimeout(() => fail(`did not end within ${timeoutMs} ms`), timeoutMs);
    child.on('error', (cause) => {
      clearTimeout(timer);
      reject(new StoreAccessError(`${from} cannot be run: ${cause.message}`, { cause }));
    });
    // That comes next. Without a descriptor left there are no pipes either.
    if (child.pid === undefined) return;
    child.stdout.on('data', (part: Buffer) => {
      size += part.length;
      if (size > MOST_BYTES) fail('prints more than credentials');
      else parts.push(part);
    });
    child.on('close', (code, signal) => {
      clearTimeout(timer);
      if (code === 0) resolve(Buffer.concat(parts).toString('utf8'));
      else {
        reject(
          new StoreUncertainError(`${from} ended with ${signal ?? `status ${code}`}`, {
            hint: 'Run it by hand to see what it says.',
          }),
        );
      }
    });
  });
}
