import tty from 'node:tty';
import { ignoreSignals, isBeside, onParentGone } from '../beside.js';
import type { Output } from './output.js';

/**
 * A stop is sent twice when npx or a shell passes Ctrl-C on that the terminal has already sent
 * to the whole process group; only a later one is a person's second thought.
 */
const SECOND_THOUGHT = 1000;

/**
 * Node.js takes back at its start that a signal is ignored, so what nohup did is not to be seen any
 * more. What it leaves is a process without a terminal: there is nothing that could hang up.
 */
const hasTerminal = (): boolean => [0, 1, 2].some((fd) => tty.isatty(fd));

const ignore = (): void => {};

/**
 * SIGINT and SIGTERM ask for a graceful stop through the returned signal. A second SIGINT ends
 * the process at once: what was acknowledged is safe at any instant. Without a terminal SIGHUP is
 * ignored. Beside another process its end is what asks for it.
 */
export function stopOnSignals(output: Output): { signal: AbortSignal; release(): void } {
  const controller = new AbortController();
  if (isBeside()) {
    ignoreSignals();
    const release = onParentGone(() => controller.abort());
    return { signal: controller.signal, release };
  }
  let askedAt: number | undefined;
  const stop = (name: NodeJS.Signals): void => {
    if (askedAt === undefined) {
      askedAt = performance.now();
      controller.abort();
    } else if (name === 'SIGINT' && performance.now() - askedAt > SECOND_THOUGHT) {
      output.error('interrupted again while stopping, exiting at once');
      process.exit(1);
    }
  };
  process.on('SIGINT', stop).on('SIGTERM', stop);
  if (!hasTerminal()) process.on('SIGHUP', ignore);
  return {
    signal: controller.signal,
    release: () => process.off('SIGINT', stop).off('SIGTERM', stop).off('SIGHUP', ignore),
  };
}
