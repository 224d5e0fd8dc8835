import { setFlagsFromString } from 'node:v8';
import type { ConnectionSettings } from '../../connection/conninfo/settings.js';
import { CorruptWalError, NotSupportedError, ServerError, WalkeepError } from '../../errors.js';
import type { WalReceiverOptions } from '../../receive/options.js';
import type { Command, CommandContext } from '../command.js';
import { connectAsking, connectionSettings, memberSettings } from '../connection-options.js';
import type { ProgramName } from '../option-spec.js';
import { canPrompt, promptPassword } from '../prompt.js';
import { checkDirectory, type ReceiveArguments, receiveArguments } from '../receive-options.js';
import { receiveOptions } from '../receive-spec.js';
import { reportEvents } from '../report.js';
import { stopOnSignals } from '../signals.js';

/** pg_receivewal's fixed delay between connections (RECONNECT_SLEEP_TIME). */
const UPSTREAM_RETRY_DELAY = 5000;
/** Exit code when the server keeps sending damaged WAL. */
const CORRUPT_WAL = 3;
/** SQLSTATE of a slot that exists already. */
const DUPLICATE_OBJECT = '42710';

/** `walkeep receive`, and all of `pg_receivewal`. */
export const command: Command = {
  light: true,
  usage: 'receive [OPTION]...',
  description:
    'Receives the write-ahead log of a PostgreSQL server as it is written and keeps it as ' +
    'segment files in a directory. Takes the options of pg_receivewal and means the same by them.',
  options: receiveOptions,
  async run(values, operands, context) {
    const args = receiveArguments(values, operands, context.tryHelp);
    if (args.action === 'stream') await checkDirectory(args.directory);
    const settings = await connectionSettings(args, context);
    return args.action === 'stream'
      ? stream(args, settings, context)
      : changeSlot(args, settings, context);
  },
};

async function stream(
  args: ReceiveArguments,
  settings: ConnectionSettings,
  context: CommandContext,
): Promise<number> {
  const { program, output } = context;
  // What is received makes hardly any garbage that lives on: room for more of it is wasted memory.
  setFlagsFromString('--semi-space-growth-factor=1');
  const members = args.members && {
    connection: await memberSettings(args, args.members, context, settings.password),
    slots: args.members.slots,
  };
  const { WalReceiver } = await import('../../receive/receiver.js');
  const { signal, release } = stopOnSignals(output);
  const options = receiverOptions(args, settings, program, signal);
  if (members) options.members = members;
  const receiver = new WalReceiver(options);
  const report = reportEvents(receiver, output, args);
  const beside = args.ship && new (await import('../ship-beside.js')).ShipBeside(args.ship, output);
  try {
    await receiver.run(signal);
    return 0;
  } catch (error) {
    if (!report.printed(error)) {
      output.report(error);
      if (error instanceof WalkeepError) output.code(error.code);
    }
    if (!args.loop && report.connected() && isLostConnection(error)) output.error('disconnected');
    return error instanceof CorruptWalError ? CORRUPT_WAL : 1;
  } finally {
    report.end();
    await beside?.end();
    release();
  }
}

function receiverOptions(
  args: ReceiveArguments,
  settings: ConnectionSettings,
  program: ProgramName,
  signal: AbortSignal,
): WalReceiverOptions {
  const dropIn = program === 'pg_receivewal';
  const options: WalReceiverOptions = {
    connection: settings,
    directory: args.directory,
    ensureSlot: args.ensureSlot,
    synchronous: args.synchronous,
    sync: args.sync,
    statusInterval: args.statusInterval,
    reconnect: args.loop,
    retryFirstConnection: !dropIn && args.loop,
    compression: args.compression,
    directIo: args.directIo,
    allowGroupAccess: args.allowGroupAccess,
    acceptGap: args.acceptGap,
    refuseGaps: !dropIn,
    // What upstream does not do is off under its name: a client may count on its habits.
    verify: dropIn ? 'off' : args.verify,
    writeReport: dropIn ? 'sync' : args.writeReport,
    apply: args.apply,
    checkSyncStandby: !dropIn,
  };
  if (args.slot !== undefined) options.slot = args.slot;
  if (args.endLsn !== undefined) options.endLsn = args.endLsn;
  if (args.backfill) options.backfill = args.backfill;
  if (args.receiveTimeout !== undefined) options.receiveTimeout = args.receiveTimeout;
  if (dropIn) options.retryDelay = UPSTREAM_RETRY_DELAY;
  if (args.password === 'when-needed' && canPrompt()) {
    options.promptPassword = () => promptPassword(signal);
  }
  return options;
}

/** The connection ended, other than by what is refused here or cannot be stored. */
function isLostConnection(error: unknown): boolean {
  return error instanceof WalkeepError && (error.retryable || error instanceof ServerError);
}

/** `--create-slot` and `--drop-slot`. The slot reserves no WAL until its first use, as upstream's. */
async function changeSlot(
  args: ReceiveArguments,
  settings: ConnectionSettings,
  { output }: CommandContext,
): Promise<number> {
  const slot = args.slot!;
  const connection = await connectAsking(settings, args.password === 'when-needed', 'physical');
  try {
    const { database } = await connection.identifySystem();
    if (database !== null) {
      throw new NotSupportedError(
        `replication connection using slot "${slot}" is unexpectedly database specific`,
      );
    }
    if (args.action === 'drop-slot') {
      if (args.verbose) output.info(`dropping replication slot "${slot}"`);
      await connection.dropSlot(slot);
    } else {
      if (args.verbose) output.info(`creating replication slot "${slot}"`);
      await connection.createPhysicalSlot(slot, { reserveWal: false });
    }
  } catch (error) {
    const exists = error instanceof ServerError && error.sqlstate === DUPLICATE_OBJECT;
    if (!(exists && args.slotMayExist && args.action === 'create-slot')) throw error;
  } finally {
    await connection.close();
  }
  return 0;
}
