// A program that uses the library as a consumer would and says twice a second what it holds:
// node --expose-gc soak-child.mjs CONNINFO DIRECTORY
import { getEventListeners } from 'node:events';
import { setFlagsFromString } from 'node:v8';
import { WalReceiver } from 'walkeep';

// As `walkeep receive` does: V8 enlarges its young generation to 32 MB in the course of time otherwise.
setFlagsFromString('--semi-space-growth-factor=1');

const [connection, directory] = process.argv.slice(2);
const stop = new AbortController();
const receiver = new WalReceiver({ connection, directory, slot: 's', synchronous: true });
let connects = 0;
receiver.on('connect', () => {
  connects += 1;
});

function look(name) {
  // What is held is measured, not what the collector had no reason to look at yet.
  globalThis.gc();
  const resources = {};
  for (const type of process.getActiveResourcesInfo()) {
    resources[type] = (resources[type] ?? 0) + 1;
  }
  const listeners = getEventListeners(stop.signal, 'abort').length;
  const { rss, heapUsed, external } = process.memoryUsage();
  const cpu = process.cpuUsage();
  console.log(
    JSON.stringify({
      ...{ name, connects, rss, heapUsed, external, resources, listeners },
      cpu: (cpu.user + cpu.system) / 1e6,
      process: process.eventNames().map((event) => `${event} ${process.listenerCount(event)}`),
    }),
  );
}

const timer = setInterval(() => look('running'), 500);
process.once('SIGTERM', () => {
  clearInterval(timer);
  stop.abort();
});
await receiver.run(stop.signal);
// What is closing gets the time to: then nothing may be left that keeps the process alive.
setImmediate(() => look('ended'));
