import { ignoreSignals, isBeside, onParentGone } from '../../beside.js';
import { StoreConflictError, type WalkeepError } from '../../errors.js';
import { SHIP_EVENTS, type ShipResult } from '../../ship/options.js';
import type { WalShipper } from '../../ship/shipper.js';
import { formatBytes } from '../../units.js';
import type { Command, CommandContext } from '../command.js';
import { jsonLine } from '../json.js';
import type { Output } from '../output.js';
import { formatSeconds } from '../report.js';
import { recipientsFrom, SHIP_OPTIONS, shipOptions } from '../ship-options.js';
import { stopOnSignals } from '../signals.js';

/** A place was given up, or did not answer. */
const NOT_SHIPPED = 2;
/** What a person has to look at: a conflict, another cluster, damaged WAL. */
const ALARM = 3;
/** Milliseconds after which a place that is still away is told of again. */
const TELL_AGAIN = 600_000;

/** `walkeep ship` */
export const command: Command = {
  takesPlace: true,
  usage: 'ship [OPTION]... SOURCE PLACE...',
  description:
    'Ships what a directory has of WAL to one place or more: an object store (s3://bucket/prefix), ' +
    'another host (ssh://host/dir), another directory. Goes on as segments are completed, beside a ' +
    'receiver or not; what was shipped is noted in the directory. Nothing damaged is sent, and ' +
    'nothing is ever replaced.',
  light: true,
  options: () => SHIP_OPTIONS,
  async run(values, operands, context) {
    const { output, tryHelp } = context;
    const { recipientFiles, ...options } = shipOptions(values, operands, tryHelp);
    const recipients = [...options.recipients!, ...(await recipientsFrom(recipientFiles))];
    const { WalShipper } = await import('../../ship/shipper.js');
    const shipper = new WalShipper({ ...options, recipients });
    if (values.json === true) printEvents(shipper, output);
    else report(shipper, output, values.verbose === true);
    const { signal, release } = stopOf(shipper, context);
    try {
      const result = await shipper.run(signal);
      return exitCode(result);
    } finally {
      release();
    }
  },
};

/** Beside another process it ends when that does, after the rest was shipped. */
function stopOf(shipper: WalShipper, { output }: CommandContext) {
  if (!isBeside()) return stopOnSignals(output);
  ignoreSignals();
  const release = onParentGone(() => shipper.finish());
  return { signal: new AbortController().signal, release };
}

function exitCode({ reason, places }: ShipResult): number {
  const errors = places.flatMap(({ error }) => (error ? [error] : []));
  if (errors.some(isAlarm)) return ALARM;
  if (errors.length > 0) return NOT_SHIPPED;
  if (reason === 'signal') return 0;
  return places.some(({ held }) => held.length > 0) ? ALARM : 0;
}

function isAlarm(error: WalkeepError): boolean {
  return error instanceof StoreConflictError || error.code === 'WK_SYSTEM_IDENTIFIER';
}

function report(shipper: WalShipper, output: Output, verbose: boolean): void {
  const told = new Map<string, { message: string; at: number }>();
  shipper.on('empty', ({ source, waits }) => {
    const then = waits ? ': waiting for what "walkeep receive" or "walkeep push" stores there' : '';
    output.info(`"${source}" has no WAL${then}`);
  });
  shipper.on('warning', ({ message, hint }) => output.warning(message, hint));
  shipper.on('stopped', ({ place, error }) => {
    output.report(error);
    output.error(`nothing more is shipped to "${place}"`);
  });
  shipper.on('held', ({ error }) => output.report(error));
  shipper.on('retry', ({ place, error, retryIn }) => {
    const before = told.get(place);
    const again = before && performance.now() - before.at > TELL_AGAIN;
    if (before?.message === error.message && !again) return;
    told.set(place, { message: error.message, at: performance.now() });
    output.report(error);
    output.info(`"${place}": trying again in ${formatSeconds(retryIn)}, and until it succeeds`);
  });
  shipper.on('shipped', ({ place }) => {
    if (told.delete(place)) output.info(`"${place}" answers again`);
  });
  if (!verbose) return;
  shipper.on('shipped', ({ place, name, outcome, size }) => {
    const what = outcome === 'present' ? 'is there already' : `shipped, ${formatBytes(size)}`;
    output.info(`${name} ${what}: "${place}"`);
  });
  shipper.on('removed', ({ name }) => output.info(`removed ${name}, which all places have`));
  shipper.on('open', ({ place, systemId }) => {
    output.info(`shipping system ${systemId} to "${place}"`);
  });
}

function printEvents(shipper: WalShipper, output: Output): void {
  for (const type of SHIP_EVENTS) {
    shipper.on(type, (event: { error?: WalkeepError; [field: string]: unknown }) => {
      const { error, ...rest } = event;
      const { code, message, hint } = error ?? {};
      const failure = error ? { code, message, ...(hint === undefined ? {} : { hint }) } : {};
      output.print(jsonLine({ type, at: new Date().toISOString(), ...rest, ...failure }));
    });
  }
}
