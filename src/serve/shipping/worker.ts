import { WalShipper } from '../../ship/shipper.js';
import { openServerStore } from '../config/stores.js';
import { yieldToOthers } from '../low-priority.js';
import { Reporter } from '../reporter.js';
import { reportOf } from '../status.js';
import { ShipJournal } from './journal.js';
import type { FromShipper, ShipSnapshot, ShipTask, ToShipper } from './messages.js';

/** Milliseconds between looks at how far it is. */
const LOOK = 500;
/** Milliseconds for a supervisor that may hang to take the last message, and to end at all. */
const LAST_WORD = 2000;
const LAST = 5000;

const BEGIN: ShipSnapshot = { state: 'starting', segments: 0, failures: 0 };

/**
 * The process that ships what a server's directory has to one store. It ends when it is told to or when
 * its supervisor is gone, at once: what is not there yet stays in the directory. The signals of a
 * terminal or a service manager are the supervisor's.
 */
function main(): void {
  const ignore = (): void => {};
  process.on('SIGINT', ignore).on('SIGTERM', ignore).on('SIGHUP', ignore);
  yieldToOthers();
  const stop = new AbortController();
  const end = (): void => {
    stop.abort();
    // Whatever a store, or a disk, does: nothing is to be left behind.
    setTimeout(() => process.exit(1), LAST).unref();
  };
  process.once('disconnect', end);
  process.on('message', (message: ToShipper) => {
    if (message.kind === 'stop') end();
    else ship(message.task, stop.signal).finally(() => process.exit());
  });
  send({ kind: 'ready' }, () => {});
}

function send(message: FromShipper, sent: () => void): void {
  // Without its callback an error would be thrown as an event; none is left to be told.
  if (process.connected) process.send?.(message, undefined, undefined, () => sent());
  else sent();
}

async function ship(task: ShipTask, signal: AbortSignal): Promise<void> {
  const reporter = new Reporter<ShipSnapshot>(BEGIN, send, () => {
    const age = journal.age(performance.now());
    return age === undefined ? {} : { age };
  });
  const journal = new ShipJournal(reporter);
  let error: unknown;
  let looking: NodeJS.Timeout | undefined;
  try {
    const { directory, place, recipients, compression } = task;
    const shipper = new WalShipper({
      ...{ source: directory, places: [place], recipients },
      ...(compression ? { compression } : {}),
      openStore: () => openServerStore(task, { failing: (e) => journal.failed(e) }),
    });
    journal.listen(shipper);
    let busy = false;
    const look = async (): Promise<void> => {
      if (busy) return;
      busy = true;
      const status = await shipper.status().finally(() => {
        busy = false;
      });
      journal.look(status, performance.now());
    };
    looking = setInterval(() => void look(), LOOK);
    const { places } = await shipper.run(signal);
    error = places[0]?.error;
  } catch (e) {
    error = e;
  }
  clearInterval(looking);
  if (error !== undefined) process.exitCode = 1;
  await new Promise<void>((resolve) => {
    setTimeout(resolve, LAST_WORD);
    reporter.end(error === undefined ? undefined : reportOf(error), resolve);
  });
}

main();
