import { spawn } from 'node:child_process';
import { EncryptedError, UsageError } from '../../errors.js';
import { oneLine } from '../../text.js';
import { splitWords } from '../../words.js';

/** A person may have to touch a key. */
const TIMEOUT = 60_000;
/** Bytes of output: thousands of identities. */
const MOST_OUTPUT = 1024 * 1024;

/**
 * What the identity command prints. @throws EncryptedError, UsageError, the signal's reason
 */
export async function outputOf(
  command: string | readonly string[],
  { timeout = TIMEOUT, signal }: { timeout?: number; signal?: AbortSignal },
): Promise<string> {
  const words = typeof command === 'string' ? splitWords(command) : command;
  if (!words) {
    throw new UsageError('the identity command has a quote or backslash without its end');
  }
  const [program, ...args] = words;
  if (program === undefined) throw new UsageError('the identity command is empty');
  signal?.throwIfAborted();
  const failed = (why: string, cause?: unknown) =>
    new EncryptedError(`the identity command "${program}" ${why}`, { cause });
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'] });
    let stopped: Error | undefined;
    const stop = (error: Error): void => {
      stopped ??= error;
      child.kill('SIGKILL');
      // A child of its own may keep the pipes open.
      child.stdout?.destroy();
      child.stderr?.destroy();
    };
    const timer = setTimeout(
      () => stop(failed(`gave no answer within ${timeout / 1000} s`)),
      timeout,
    );
    const abort = (): void => stop(signal?.reason as Error);
    signal?.addEventListener('abort', abort);
    const finish = (end: () => void): void => {
      clearTimeout(timer);
      signal?.removeEventListener('abort', abort);
      end();
    };
    child.on('error', (e) => finish(() => reject(failed(`could not be run: ${e.message}`, e))));
    // That comes next. Without a descriptor left there are no pipes either.
    if (child.pid === undefined) return;
    let out = '';
    let err = '';
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      out += text;
      if (out.length > MOST_OUTPUT) stop(failed('printed more than identities'));
    });
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      err = (err + text).slice(-4096);
    });
    child.on('close', (code, killed) =>
      finish(() => {
        if (stopped) reject(stopped);
        else if (code === 0) resolve(out);
        else {
          const last = err.trim().split('\n').at(-1) ?? '';
          const how = code === null ? `was ended by ${killed}` : `failed with exit code ${code}`;
          reject(failed(last === '' ? how : `${how}: ${oneLine(last)}`));
        }
      }),
    );
  });
}
