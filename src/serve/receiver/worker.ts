import { setFlagsFromString } from 'node:v8';
import type { WalReceiverOptions } from '../../receive/options.js';
import { WalReceiver } from '../../receive/receiver.js';
import { serverSettings } from '../config/connections.js';
import { Reporter } from '../reporter.js';
import { type ReceiverSnapshot, reportOf } from '../status.js';
import { Counter } from './counter.js';
import { reportReceiver } from './journal.js';
import type { FromReceiver, ToReceiver } from './messages.js';
import { RecoveryPoint } from './recovery-point.js';

/** Milliseconds of silence after which the server is asked how it is, and is no longer taken to be so. */
const PROBE_AFTER = 4000;
const FRESH = 8000;
/** Milliseconds that WAL of a server for which no commit waits may be written and not synced. */
const SYNC_INTERVAL = 5000;
/** Milliseconds for a supervisor that may hang to take the last message. */
const LAST_WORD = 2000;

const BEGIN: ReceiverSnapshot = { state: 'connecting', segments: 0, connections: 0 };

type Start = Extract<ToReceiver, { kind: 'start' }>;

/**
 * The process of one server's receiver. It ends, with all that it has on disk, when it is told to or
 * when its supervisor is gone; the signals of a terminal or a service manager are the supervisor's.
 */
function main(): void {
  const ignore = (): void => {};
  process.on('SIGINT', ignore).on('SIGTERM', ignore).on('SIGHUP', ignore);
  const stop = new AbortController();
  process.once('disconnect', () => stop.abort());
  process.on('message', (message: ToReceiver) => {
    if (message.kind === 'stop') stop.abort();
    else receive(message, stop.signal).finally(() => process.exit());
  });
  send({ kind: 'ready' }, () => {});
}

function send(message: FromReceiver, sent: () => void): void {
  // Without its callback an error would be thrown as an event; none is left to be told.
  if (process.connected) process.send?.(message, undefined, undefined, () => sent());
  else sent();
}

async function receive({ config, acceptGap }: Start, signal: AbortSignal): Promise<void> {
  // What is received makes hardly any garbage that lives on: room for more of it is wasted memory.
  setFlagsFromString('--semi-space-growth-factor=1');
  const point = new RecoveryPoint(FRESH);
  let receiver: WalReceiver | undefined;
  const counter = new Counter();
  const reporter = new Reporter<ReceiverSnapshot>(BEGIN, send, () => {
    const heardAt = reporter.snapshot.state === 'streaming' ? receiver?.heardAt : undefined;
    const recoveryAge = point.age(performance.now(), heardAt);
    return {
      ...(receiver ? { counts: { ...counter.counts, ...receiver.tally } } : {}),
      ...(recoveryAge === undefined ? {} : { recoveryAge: Math.round(recoveryAge) }),
    };
  });
  let error: unknown;
  try {
    const { settings, members } = await serverSettings(config);
    for (const message of settings.warnings) {
      reporter.log({ level: 'warning', event: 'warning', message });
    }
    const { directory, synchronous, ensureSlot, compression, allowGroupAccess, slot } = config;
    const options: WalReceiverOptions = {
      ...{ connection: settings, directory, synchronous, ensureSlot, compression, acceptGap },
      ...{ probeAfter: PROBE_AFTER, syncInterval: SYNC_INTERVAL },
      ...(allowGroupAccess ? { allowGroupAccess } : {}),
      ...(slot === undefined ? {} : { slot }),
    };
    if (members && config.members) {
      options.members = { connection: members, slots: config.members.slots };
    }
    receiver = new WalReceiver(options);
    reportReceiver(receiver, reporter, point);
    counter.follow(receiver);
    await receiver.run(signal);
  } catch (e) {
    error = e;
    process.exitCode = 1;
  }
  await new Promise<void>((resolve) => {
    setTimeout(resolve, LAST_WORD);
    reporter.end(error === undefined ? undefined : reportOf(error), resolve);
  });
}

main();
