import { opendir } from 'node:fs/promises';
import { getSystemErrorMap } from 'node:util';
import { StorageError, UsageError } from '../errors.js';
import type { Lsn } from '../lsn.js';
import type { VerifyMode } from '../receive/inspector.js';
import type { BackfillOption, CompressionOption } from '../receive/options.js';
import { parseCompression } from './compression.js';
import {
  type ConnectionArguments,
  connectionArguments,
  type MemberArguments,
  memberArguments,
} from './connection-options.js';
import type { OptionValues } from './option-spec.js';
import { absolutePlace, keysOf } from './place-options.js';
import {
  parseApply,
  parseEndPosition,
  parseReceiveTimeout,
  parseStatusInterval,
  parseVerify,
  parseWriteReport,
} from './receive-spec.js';
import { listOption, shipArguments } from './ship-options.js';

/** What the command line of `receive` asks for, checked. Times are milliseconds. */
export interface ReceiveArguments extends ConnectionArguments {
  action: 'stream' | 'create-slot' | 'drop-slot';
  /** Empty for the slot actions, which need none. */
  directory: string;
  slot: string | undefined;
  slotMayExist: boolean;
  ensureSlot: boolean;
  endLsn: Lsn | undefined;
  statusInterval: number;
  receiveTimeout: number | undefined;
  compression: CompressionOption;
  synchronous: boolean;
  sync: boolean;
  loop: boolean;
  directIo: boolean;
  allowGroupAccess: boolean;
  acceptGap: boolean;
  verify: VerifyMode;
  writeReport: 'write' | 'sync';
  apply: 'none' | 'flush';
  progress: boolean;
  verbose: boolean;
  /** Command line of the `ship` that runs beside. */
  ship: string[] | undefined;
  members: MemberArguments | undefined;
  backfill: BackfillOption | undefined;
}

/**
 * Checks the options together, in upstream's order and with its messages (pg_receivewal.c,
 * main). @throws UsageError
 */
export function receiveArguments(
  values: OptionValues,
  operands: readonly string[],
  tryHelp: string,
): ReceiveArguments {
  const given = (name: string): boolean => values[name] === true;
  const text = (name: string): string | undefined => {
    const value = values[name];
    return typeof value === 'string' ? value : undefined;
  };
  const misuse = (message: string): UsageError => new UsageError(message, { hint: tryHelp });

  const create = given('create-slot');
  const drop = given('drop-slot');
  const slot = text('slot');
  const directory = text('directory');
  if (operands.length > 0) {
    throw misuse(`too many command-line arguments (first is "${operands[0]}")`);
  }
  if (create && drop) throw misuse('cannot use --create-slot together with --drop-slot');
  const slotUser = drop ? 'drop-slot' : create ? 'create-slot' : undefined;
  const needsSlot = slotUser ?? (given('ensure-slot') ? 'ensure-slot' : undefined);
  if (needsSlot !== undefined && slot === undefined) {
    throw misuse(`--${needsSlot} needs a slot to be specified using --slot`);
  }
  if (given('synchronous') && given('no-sync')) {
    throw misuse('cannot use --synchronous together with --no-sync');
  }
  if (directory === undefined && slotUser === undefined) {
    throw misuse('no target directory specified');
  }
  const members = slotUser === undefined ? memberArguments(values, tryHelp) : undefined;
  const endpos = text('endpos');
  const timeout = text('receive-timeout');
  return {
    action: slotUser ?? 'stream',
    directory: directory ?? '',
    slot,
    slotMayExist: given('if-not-exists'),
    ensureSlot: given('ensure-slot') || members?.slots === 'walkeep',
    endLsn: endpos === undefined ? undefined : parseEndPosition(endpos),
    statusInterval: parseStatusInterval(text('status-interval') ?? '10') * 1000,
    receiveTimeout: timeout === undefined ? undefined : parseReceiveTimeout(timeout) * 1000,
    compression: parseCompression(text('compress') ?? 'none'),
    synchronous: given('synchronous'),
    sync: !given('no-sync'),
    loop: !given('no-loop'),
    directIo: !given('no-direct-io'),
    allowGroupAccess: given('allow-group-access'),
    acceptGap: given('accept-gap'),
    verify: parseVerify(text('verify') ?? 'strict'),
    writeReport: parseWriteReport(text('write-report') ?? 'write'),
    apply: parseApply(text('apply') ?? 'none'),
    progress: given('progress'),
    verbose: given('verbose'),
    members,
    backfill: backfillArguments(values, misuse),
    ship: shipArguments(values, directory ?? ''),
    ...connectionArguments(values),
  };
}

/** The other archives of the cluster, and what opens them. @throws UsageError */
function backfillArguments(
  values: OptionValues,
  misuse: (message: string) => UsageError,
): BackfillOption | undefined {
  const places = listOption(values, 'backfill').map(absolutePlace);
  const keys = keysOf(values);
  if (places.length > 0) return keys ? { places, keys } : { places };
  if (keys) throw misuse('--identity and --identity-command need a place with --backfill');
  return undefined;
}

/** @throws StorageError unless the directory can be opened, in the C library's words. */
export async function checkDirectory(path: string): Promise<void> {
  try {
    const dir = await opendir(path);
    await dir.close();
  } catch (cause) {
    const why = systemMessage(cause);
    throw new StorageError(`could not open directory "${path}": ${why}`, { path, cause });
  }
}

/** What `%m` prints for an errno: libuv's texts are strerror's without the capital letter. */
function systemMessage(error: unknown): string {
  const { errno, message } = error as NodeJS.ErrnoException;
  const text = errno === undefined ? undefined : getSystemErrorMap().get(errno)?.[1];
  return text === undefined ? message : text.charAt(0).toUpperCase() + text.slice(1);
}
