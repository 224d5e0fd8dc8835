import { execFile } from 'node:child_process';
import { constants, setPriority } from 'node:os';
import { ignoreSignals } from '../../beside.js';
import { reportOf } from '../status.js';
import { readMemory, writeMemory } from './memory.js';
import type { FromJob, Recalled, ToJob } from './messages.js';
import { keyOf } from './plan.js';
import { JobRun } from './run.js';

/** Milliseconds for whoever watches to take the last message. */
const LAST_WORD = 2000;

/**
 * The process of one run of a job, or of one look at what was done before. It ends, and all that it
 * began before it, when it is told to or when who watches is gone.
 */
function main(): void {
  ignoreSignals();
  const stop = new AbortController();
  let why: 'end' | 'cancel' = 'end';
  process.once('disconnect', () => stop.abort());
  process.on('message', (message: ToJob) => {
    if (message.kind === 'stop') {
      why = message.why;
      stop.abort();
    } else if (message.kind === 'recall') {
      void recall(message.servers).finally(() => process.exit());
      stop.signal.addEventListener('abort', () => process.exit());
    } else {
      void run(message, stop.signal, () => why).finally(() => process.exit());
    }
  });
  send({ kind: 'ready' });
}

async function run(
  { spec, by, startedAt, memory }: Extract<ToJob, { kind: 'run' }>,
  signal: AbortSignal,
  why: () => 'end' | 'cancel',
): Promise<void> {
  await stepBack();
  const end = await new JobRun({ spec, by, startedAt, memory, signal, why, send }).run();
  await last({ kind: 'end', end });
}

/** What it begins is as nice as it is itself: receivers, and the server if it is here, come first. */
async function stepBack(): Promise<void> {
  setPriority(constants.priority.PRIORITY_LOW);
  await new Promise<void>((resolve) => {
    // Of util-linux, where that is.
    execFile('ionice', ['-c', '3', '-p', `${process.pid}`], { timeout: 5000 }, () => resolve());
  });
}

/** Each answers for itself: the disk of one may hang. */
async function recall(servers: readonly Recalled[]): Promise<void> {
  await Promise.all(
    servers.map(async ({ server, directory, fresh }) => {
      try {
        const memory = await readMemory(directory).catch(async (e) => {
          await noteFresh(directory, [], fresh);
          throw e;
        });
        await noteFresh(directory, memory ?? [], fresh);
        await last({ kind: 'recalled', server, memory });
      } catch (e) {
        await last({ kind: 'recalled', server, memory: undefined, error: reportOf(e) });
      }
    }),
  );
}

/** What comes up while nothing runs here is missed only if it was known of before. */
async function noteFresh(
  directory: string,
  memory: readonly Recalled['fresh'][number][],
  fresh: Recalled['fresh'],
): Promise<void> {
  const known = memory.map(keyOf);
  const added = fresh.filter((one) => !known.includes(keyOf(one)));
  if (added.length > 0) await writeMemory(directory, [...memory, ...added]);
}

function send(message: FromJob): void {
  if (process.connected) process.send?.(message, undefined, undefined, () => {});
}

async function last(message: FromJob): Promise<void> {
  if (!process.connected) return;
  await new Promise<void>((resolve) => {
    setTimeout(resolve, LAST_WORD).unref();
    process.send?.(message, undefined, undefined, () => resolve());
  });
}

main();
