import { closeSync, openSync, writeSync } from 'node:fs';
import type { Readable } from 'node:stream';
import { ReadStream } from 'node:tty';
import { AuthenticationError } from '../errors.js';

/**
 * Collects one line from a terminal in raw mode, where nothing is echoed and the line editing
 * of the terminal is off: Enter ends it, erase and kill work, Ctrl-C interrupts.
 */
export class LineReader {
  #line = '';

  /** @returns the line, `interrupted`, or undefined while it is not complete. */
  feed(chunk: string): { line: string } | 'interrupted' | undefined {
    for (const char of chunk) {
      if (char === '\n' || char === '\r' || char === '\x04') return { line: this.#line };
      if (char === '\x03') return 'interrupted';
      if (char === '\x7f' || char === '\b') this.#line = [...this.#line].slice(0, -1).join('');
      else if (char === '\x15') this.#line = '';
      else this.#line += char;
    }
    return undefined;
  }

  /** What came before the input ended. */
  end(): string {
    return this.#line;
  }
}

interface Terminal {
  input: Readable & { setRawMode?: (on: boolean) => unknown; isTTY?: boolean };
  write(text: string): void;
  close(): void;
}

/** The process's terminal even when stdin is redirected. Undefined when it has none. */
function controllingTerminal(): Terminal | undefined {
  try {
    const fd = openSync('/dev/tty', 'r+');
    const input = new ReadStream(fd);
    return { input, write: (text) => writeSync(fd, text), close: () => input.destroy() };
  } catch {
    return undefined;
  }
}

function standardStreams(): Terminal {
  return {
    input: process.stdin,
    write: (text) => process.stderr.write(text),
    close: () => process.stdin.pause(),
  };
}

/** Whether somebody could be asked: false for a service without terminal, so that it never waits. */
export function canPrompt(): boolean {
  try {
    closeSync(openSync('/dev/tty', 'r+'));
    return true;
  } catch {
    return process.stdin.isTTY === true;
  }
}

/**
 * Asks for a password on the controlling terminal, without echo; on stdin and stderr where there
 * is none, as PostgreSQL's simple_prompt does. @throws AuthenticationError when interrupted
 */
export async function promptPassword(signal?: AbortSignal): Promise<string> {
  const terminal = controllingTerminal() ?? standardStreams();
  const { input } = terminal;
  const raw = input.isTTY === true;
  // The prompt comes after echo is off: what is typed in answer to it is never shown.
  if (raw) input.setRawMode?.(true);
  try {
    terminal.write('Password: ');
    return await readLine(input, signal);
  } finally {
    if (raw) {
      input.setRawMode?.(false);
      terminal.write('\n');
    }
    terminal.close();
  }
}

function readLine(input: Readable, signal: AbortSignal | undefined): Promise<string> {
  const reader = new LineReader();
  const { promise, resolve, reject } = deferred<string>();
  const interrupted = () => reject(new AuthenticationError('interrupted at the password prompt'));
  const onData = (chunk: string) => {
    const result = reader.feed(chunk);
    if (result === 'interrupted') interrupted();
    else if (result) resolve(result.line);
  };
  const onEnd = () => resolve(reader.end());
  input.setEncoding('utf8');
  input.on('data', onData).on('end', onEnd).on('error', reject);
  signal?.addEventListener('abort', interrupted, { once: true });
  if (signal?.aborted) interrupted();
  if (input.readableEnded) onEnd();
  input.resume();
  return promise.finally(() => {
    input.off('data', onData).off('end', onEnd).off('error', reject);
    signal?.removeEventListener('abort', interrupted);
  });
}

/** Promise.withResolvers, which Node 20 lacks. */
function deferred<T>() {
  let resolve!: (value: T) => void;
  let reject!: (reason: unknown) => void;
  const promise = new Promise<T>((res, rej) => {
    resolve = res;
    reject = rej;
  });
  return { promise, resolve, reject };
}
