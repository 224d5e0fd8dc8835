import type { ReplicationConnection } from '../connection/connection.js';
import type { ConnectionSettings } from '../connection/conninfo/settings.js';
import type { ReplicationMode } from '../connection/startup.js';
import { AuthenticationError, UsageError } from '../errors.js';
import type { MemberSlotKeeper } from '../server/member-slot.js';
import type { CommandContext } from './command.js';
import type { OptionSpec, OptionValues } from './option-spec.js';
import { canPrompt, promptPassword } from './prompt.js';

/** Heading of the connection options in every help. */
export const CONNECTION_GROUP = 'Connection options:';

/** Where and as whom to connect: the same in every command that talks to a server. */
export const CONNECTION_OPTIONS: readonly OptionSpec[] = [
  {
    long: 'dbname',
    short: 'd',
    argument: 'CONNSTR',
    group: CONNECTION_GROUP,
    help: 'connection string or URI',
  },
  {
    long: 'host',
    short: 'h',
    argument: 'HOSTNAME',
    group: CONNECTION_GROUP,
    help: 'server host or socket directory',
  },
  {
    long: 'port',
    short: 'p',
    argument: 'PORT',
    group: CONNECTION_GROUP,
    help: 'server port number',
  },
  {
    long: 'username',
    short: 'U',
    argument: 'NAME',
    group: CONNECTION_GROUP,
    help: 'connect as this user',
  },
  {
    long: 'no-password',
    short: 'w',
    group: CONNECTION_GROUP,
    help: 'never ask for a password',
  },
  {
    long: 'password',
    short: 'W',
    group: CONNECTION_GROUP,
    help: 'ask for a password before connecting',
  },
];

/** Where SQL is asked when the connection string names no database. */
export const SQL_DATABASE = 'postgres';

/** What the connection options of a command line say. */
export interface ConnectionArguments {
  connection: { conninfo?: string; host?: string; port?: string; user?: string };
  password: 'ask' | 'never' | 'when-needed';
}

/** The members whose slots are kept or looked at. */
export interface MemberArguments {
  /** Absent: the hosts of the connection. */
  hosts: string | undefined;
  slots: MemberSlotKeeper;
}

export const MEMBER_OPTIONS: readonly OptionSpec[] = [
  {
    long: 'members',
    argument: 'CONNSTR',
    group: CONNECTION_GROUP,
    help: 'hosts that may be promoted; keywords that are not given are those of --dbname',
  },
  {
    long: 'member-slots',
    argument: 'WHO',
    group: CONNECTION_GROUP,
    help: 'who keeps the slot on the members (default: the hosts of --dbname): walkeep, or external (Patroni, CloudNativePG)',
    check: (text) => void parseMemberSlots(text),
  },
];

function parseMemberSlots(text: string): MemberSlotKeeper {
  if (text === 'walkeep' || text === 'external') return text;
  throw new UsageError(`invalid value "${text}" for option --member-slots`, {
    hint: 'Valid values are walkeep, external.',
  });
}

/** @throws UsageError */
export function memberArguments(
  values: OptionValues,
  tryHelp: string,
): MemberArguments | undefined {
  const { members, 'member-slots': slots, slot } = values;
  const misuse = (message: string): UsageError => new UsageError(message, { hint: tryHelp });
  if (typeof slots !== 'string') {
    if (members === undefined) return undefined;
    throw misuse('--members needs --member-slots to be specified');
  }
  if (typeof slot !== 'string')
    throw misuse('--member-slots needs a slot to be specified using --slot');
  return {
    hosts: typeof members === 'string' ? members : undefined,
    slots: parseMemberSlots(slots),
  };
}

/** The settings of all members, for SQL. `password`: one that is known by now. */
export function memberSettings(
  args: ConnectionArguments,
  { hosts }: MemberArguments,
  context: Pick<CommandContext, 'program' | 'env'>,
  password: string | undefined,
): Promise<ConnectionSettings> {
  return resolveConnection(args, context, { database: SQL_DATABASE, others: hosts, password });
}

/** Reads the connection options of a command line. */
export function connectionArguments(values: OptionValues): ConnectionArguments {
  const named = <K extends string>(key: K, option: string) => {
    const value = values[option];
    return (typeof value === 'string' ? { [key]: value } : {}) as { [P in K]?: string };
  };
  return {
    connection: {
      ...named('conninfo', 'dbname'),
      ...named('host', 'host'),
      ...named('port', 'port'),
      ...named('user', 'username'),
    },
    password: passwordUse(values),
  };
}

/** `-W` wins over `-w`: asking is what both given together can only mean to a person. */
function passwordUse(values: OptionValues): ConnectionArguments['password'] {
  if (values.password === true) return 'ask';
  return values['no-password'] === true ? 'never' : 'when-needed';
}

/**
 * The settings that arguments, environment and files make together; asks for a password where
 * that is wanted, and prints warnings. `database` is for what the connection string leaves open.
 */
export async function connectionSettings(
  args: ConnectionArguments,
  context: Pick<CommandContext, 'program' | 'output' | 'env'>,
  database?: string,
): Promise<ConnectionSettings> {
  let settings = await resolveConnection(args, context, { database });
  // Asked only when the other settings are in order, and before any signal handler stands.
  if (args.password === 'ask') {
    settings = await resolveConnection(args, context, {
      database,
      password: await promptPassword(),
    });
  }
  for (const warning of settings.warnings) context.output.warning(warning);
  return settings;
}

/** The same without a word: no question, no warning. */
export async function resolveConnection(
  args: ConnectionArguments,
  { program, env }: Pick<CommandContext, 'program' | 'env'>,
  given: {
    database?: string | undefined;
    password?: string | undefined;
    others?: string | undefined;
  },
): Promise<ConnectionSettings> {
  const { resolveSettings } = await import('../connection/conninfo/resolve.js');
  return resolveSettings(
    {
      ...args.connection,
      ...(given.password === undefined ? {} : { password: given.password }),
      ...(given.others === undefined ? {} : { others: given.others }),
      ...(given.database === undefined ? {} : { fallbackDatabase: given.database }),
      // What the server reports as application_name decides who is a synchronous standby.
      fallbackApplicationName: program,
    },
    env,
  );
}

/** Connects; asks for a password where the server wants one and somebody can be asked. */
export async function connectAsking(
  settings: ConnectionSettings,
  mayAsk: boolean,
  replication: ReplicationMode,
): Promise<ReplicationConnection> {
  const { connect } = await import('../connection/connect.js');
  try {
    return await connect(settings, { replication });
  } catch (error) {
    const asked = error instanceof AuthenticationError && error.needsPassword;
    if (!asked || !mayAsk || !canPrompt()) throw error;
    return connect({ ...settings, password: await promptPassword() }, { replication });
  }
}
