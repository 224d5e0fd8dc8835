import type { ReplicationConnection } from '../../connection/connection.js';
import { NotSupportedError, ServerError, UsageError } from '../../errors.js';
import { formatLsn } from '../../lsn.js';
import type { SlotInfo } from '../../server/slots.js';
import { type Command, type CommandContext, HELP_OPTION, VERSION_OPTION } from '../command.js';
import {
  CONNECTION_OPTIONS,
  type ConnectionArguments,
  connectAsking,
  connectionArguments,
  connectionSettings,
} from '../connection-options.js';
import { jsonLine } from '../json.js';
import type { OptionSpec, OptionValues } from '../option-spec.js';
import { formatBytes } from '../progress.js';
import { tableText } from '../table.js';

const CREATE = 'Options of create:';

const OPTIONS: readonly OptionSpec[] = [
  {
    long: 'no-reserve',
    group: CREATE,
    help: 'keep WAL only from the first use on, as pg_receivewal does',
  },
  { long: 'if-not-exists', group: CREATE, help: 'no error if the slot exists' },
  {
    long: 'json',
    group: 'Options of list:',
    help: 'print one JSON object a line',
  },
  VERSION_OPTION,
  HELP_OPTION,
  ...CONNECTION_OPTIONS,
];

/** Which of the options belong to one action only. */
const ACTION_OF: Readonly<Record<string, Action>> = {
  'no-reserve': 'create',
  'if-not-exists': 'create',
  json: 'list',
};
const ACTIONS = ['create', 'drop', 'list'] as const;
type Action = (typeof ACTIONS)[number];

/** SQLSTATE of a slot that exists already. */
const DUPLICATE_OBJECT = '42710';
/** Where list connects to when the connection string names no database. */
const DATABASE = 'postgres';

/** `walkeep slot`. */
export const command: Command = {
  usage: 'slot create|drop|list [OPTION]... [NAME]',
  description:
    'Creates and drops physical replication slots, and lists all slots of a server. A new slot ' +
    'keeps WAL from the moment it is created. list needs the right to an ordinary connection.',
  options: () => OPTIONS,
  async run(values, operands, context) {
    const { action, name } = actionOf(values, operands, context.tryHelp);
    const args = connectionArguments(values);
    if (name === undefined) return list(args, values.json === true, context);
    return action === 'create'
      ? withConnection(args, context, (c) => create(c, name, values, context))
      : withConnection(args, context, (c) => c.dropSlot(name));
  },
};

function actionOf(values: OptionValues, operands: readonly string[], hint: string) {
  const misuse = (message: string): UsageError => new UsageError(message, { hint });
  const [word, name, extra] = operands;
  const action = ACTIONS.find((a) => a === word);
  if (word === undefined) throw misuse('no action specified: create, drop or list');
  if (!action) throw misuse(`unrecognized action "${word}": it is create, drop or list`);
  const surplus = action === 'list' ? name : extra;
  if (surplus !== undefined) {
    throw misuse(`too many command-line arguments (first is "${surplus}")`);
  }
  if (action !== 'list' && !name) throw misuse(`slot ${action} needs the name of a slot`);
  for (const [option, only] of Object.entries(ACTION_OF)) {
    if (values[option] === true && only !== action) {
      throw misuse(`--${option} is an option of slot ${only}`);
    }
  }
  return { action, name: action === 'list' ? undefined : name };
}

/** Runs one command on a physical replication connection. */
async function withConnection(
  args: ConnectionArguments,
  context: CommandContext,
  run: (connection: ReplicationConnection) => Promise<void>,
): Promise<number> {
  const settings = await connectionSettings(args, context);
  const connection = await connectAsking(settings, args.password === 'when-needed', 'physical');
  try {
    await run(connection);
    return 0;
  } finally {
    await connection.close();
  }
}

async function create(
  connection: ReplicationConnection,
  name: string,
  values: OptionValues,
  { output }: CommandContext,
): Promise<void> {
  const reserveWal = values['no-reserve'] !== true;
  try {
    await connection.createPhysicalSlot(name, { reserveWal });
    return;
  } catch (error) {
    const exists = error instanceof ServerError && error.sqlstate === DUPLICATE_OBJECT;
    if (!exists || values['if-not-exists'] !== true) throw error;
  }
  // There is a slot of that name, but is it one that does what was asked for?
  const position = await readSlot(connection, name);
  if (reserveWal && position?.restartLsn === undefined) {
    output.warning(
      `replication slot "${name}" exists, but keeps no WAL`,
      'It does from its first use on, unless it is lost; see "walkeep slot list".',
    );
  }
}

/** @throws ProtocolError if it is no physical slot */
async function readSlot(connection: ReplicationConnection, name: string) {
  if (connection.serverVersion >= 150_000) return connection.readReplicationSlot(name);
  // Older servers have no such command; what is unknown is not warned of.
  return { restartLsn: 0n };
}

async function list(
  args: ConnectionArguments,
  json: boolean,
  context: CommandContext,
): Promise<number> {
  const { listSlots } = await import('../../server/slots.js');
  const { secureSearchPath } = await import('../../server/sql.js');
  const settings = await connectionSettings(args, context, DATABASE);
  const connection = await connectAsking(settings, args.password === 'when-needed', 'off');
  try {
    if (connection.serverVersion < 100_000) {
      throw new NotSupportedError('slot list needs PostgreSQL 10 or newer');
    }
    await secureSearchPath(connection);
    const slots = await listSlots(connection);
    const { output } = context;
    if (json) for (const slot of slots) output.print(jsonLine(jsonSlot(slot)));
    else output.print(table(slots));
    return 0;
  } finally {
    await connection.close();
  }
}

/** Undefined fields as null, so that every line has the same keys. */
function jsonSlot(slot: SlotInfo): Record<string, unknown> {
  const number = (value: bigint | undefined) => (value === undefined ? null : Number(value));
  return {
    name: slot.name,
    type: slot.type,
    active: slot.active,
    temporary: slot.temporary,
    restartLsn: slot.restartLsn === undefined ? null : formatLsn(slot.restartLsn),
    retainedBytes: number(slot.retainedBytes),
    walStatus: slot.walStatus ?? null,
    safeWalSize: number(slot.safeWalSize),
    invalidation: slot.invalidation ?? null,
  };
}

function table(slots: readonly SlotInfo[]): string {
  const size = (value: bigint | undefined) =>
    value === undefined ? '-' : formatBytes(Number(value));
  return tableText(
    ['NAME', 'TYPE', 'ACTIVE', 'RESTART_LSN', 'RETAINED', 'STATUS', 'SAFE', 'INVALIDATION'],
    slots.map((slot) => [
      slot.name,
      slot.type,
      slot.active ? 'yes' : 'no',
      slot.restartLsn === undefined ? '-' : formatLsn(slot.restartLsn),
      size(slot.retainedBytes),
      slot.walStatus ?? '-',
      size(slot.safeWalSize),
      slot.invalidation ?? '-',
    ]),
  );
}
