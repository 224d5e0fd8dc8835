import fsp from 'node:fs/promises';

/** Lines of the end of a log that are shown. */
const SHOWN = 12;
/** Exit codes of `walkeep fetch` that say nothing about the archive. */
const NOT_TOLD = ['126', '127', '200', '204', '205'];
/** What a machine lacks, and not what is restored on it. */
const MACHINE =
  /shared memory|semaphore|anonymous|out of memory|cannot allocate|no space left|too many open files|locale|operating system user|could not (?:bind|listen|create lock file)|permission denied/i;

export interface LogStory {
  /** The error that ended the server; undefined if none did. */
  failure: string | undefined;
  /** What walkeep said that the server ran to get WAL. */
  fetch: string | undefined;
  /** Segments that came out of the archive. */
  restored: number;
  /** The target was reached. */
  stopping: boolean;
  /** What failed is this machine, or what runs there. */
  machine: boolean;
  tail: string[];
}

/** What a server's log, in the C locale, says of its recovery. */
export function readStory(text: string): LogStory {
  const lines = text.split('\n').filter((line) => line.trim() !== '');
  const failure = lines.findLast((line) => /(?:^|\s)(?:FATAL|PANIC):/.test(line));
  const plain = failure?.replace(/^.*?\b(?:FATAL|PANIC):\s*/, '');
  const code = /exited with exit code (\d+)/.exec(failure ?? '')?.[1];
  const fetch = lines.findLast((line) => /^walkeep: error: /.test(line));
  return {
    failure: plain,
    fetch: fetch?.replace(/^walkeep: error: /, ''),
    restored: lines.filter((line) => /restored log file "[0-9A-F]{24}"/.test(line)).length,
    stopping: lines.some((line) => /recovery stopping (?:before|after)/.test(line)),
    machine:
      code === undefined ? plain !== undefined && MACHINE.test(plain) : NOT_TOLD.includes(code),
    tail: lines.slice(-SHOWN),
  };
}

export async function storyOf(path: string): Promise<LogStory> {
  return readStory(await fsp.readFile(path, 'utf8').catch(() => ''));
}
