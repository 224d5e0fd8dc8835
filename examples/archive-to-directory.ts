/**
 * Receives WAL into a directory until Ctrl-C, as `walkeep receive` does:
 * `node archive-to-directory.js CONNINFO DIRECTORY [SLOT]`
 */
import { formatLsn, WalkeepError, WalReceiver } from 'walkeep';

const [connection, directory, slot] = process.argv.slice(2);
if (connection === undefined || directory === undefined) {
  console.error('usage: archive-to-directory CONNINFO DIRECTORY [SLOT]');
  process.exit(2);
}

const receiver = new WalReceiver({
  connection,
  directory,
  // Confirmed to the server is only what an fsync covers, at once.
  synchronous: true,
  ...(slot === undefined ? {} : { slot, ensureSlot: true }),
});
receiver.on('start', ({ lsn, timeline }) => {
  console.log(`streaming from ${formatLsn(lsn)} on timeline ${timeline}`);
});
receiver.on('segment', ({ path }) => console.log(`stored ${path}`));
receiver.on('timeline', ({ timeline, lsn }) => {
  console.log(`timeline ${timeline} from ${formatLsn(lsn)}`);
});
receiver.on('warning', ({ message }) => console.error(`warning: ${message}`));
receiver.on('disconnect', ({ error, retryIn }) => {
  console.error(error.message);
  if (retryIn !== undefined) console.error(`trying again in ${retryIn} ms`);
});

const stop = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.on(signal, () => stop.abort());

try {
  const end = await receiver.run(stop.signal);
  console.log(`stopped at ${formatLsn(end)}`);
} catch (error) {
  // 'disconnect' has said what; the code is what a program would look at.
  const code = error instanceof WalkeepError ? error.code : String(error);
  console.error(`giving up: ${code}`);
  process.exitCode = 1;
}
