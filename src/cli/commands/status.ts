import { UsageError } from '../../errors.js';
import { parseLsn } from '../../lsn.js';
import { type ServerStatus, whyAway } from '../../serve/status.js';
import { formatBytes, formatSeconds } from '../../units.js';
import { type Command, HELP_OPTION, VERSION_OPTION } from '../command.js';
import { jsonLine } from '../json.js';
import { CONTROL_OPTIONS, controlSocket } from '../serve/control-option.js';
import { jobsInBrief, jobsTable } from '../serve/jobs-table.js';
import { storesInBrief, storesTable } from '../serve/stores-table.js';
import { tableText } from '../table.js';

/** A server does not stream. */
const NOT_WELL = 1;

/** `walkeep status` */
export const command: Command = {
  usage: 'status [OPTION]... [NAME]',
  description:
    'Says of a running "walkeep serve" how each server is, or one. Ends with 0 if all of them ' +
    'stream, with 1 if not, with 2 if there is no answer.',
  options: () => [
    ...CONTROL_OPTIONS,
    { long: 'json', group: 'Options:', help: 'print one JSON object a line for each server' },
    VERSION_OPTION,
    HELP_OPTION,
  ],
  async run(values, operands, { output, env, tryHelp }) {
    const [server, ...more] = operands;
    if (more.length > 0) throw new UsageError('more than one server named', { hint: tryHelp });
    const socket = await controlSocket(values, env, tryHelp);
    const { askControl } = await import('../../serve/control/client.js');
    const request = { command: 'status' as const, ...(server === undefined ? {} : { server }) };
    const { servers } = await askControl(socket, request);
    if (values.json === true) output.print(servers.map(jsonLine).join('\n'));
    else {
      output.print(tableText(HEADER, servers.map(row)));
      const lines = server === undefined ? [] : servers.flatMap(details);
      if (lines.length > 0) output.print(lines.join('\n'));
    }
    return servers.every(isWell) ? 0 : NOT_WELL;
  },
};

const HEADER = [
  'SERVER',
  'STATE',
  'FOR',
  'FLUSHED',
  'BEHIND',
  'RPO',
  'RESTARTS',
  'STORES',
  'JOBS',
  'WHY',
];

function row(status: ServerStatus): string[] {
  const { name, state, since, restarts, silentSeconds, receiver, rpoSeconds } = status;
  const [trouble] = status.troubles ?? [];
  const { position } = receiver ?? {};
  const behind = position && parseLsn(position.serverEnd) - parseLsn(position.flushed);
  const silent = silentSeconds === undefined ? undefined : `nothing heard for ${silentSeconds} s`;
  return [
    ...[name, state, formatSeconds((Date.now() - Date.parse(since)) / 1000)],
    ...[position?.flushed ?? '', behind === undefined ? '' : formatBytes(Number(behind))],
    ...[
      formatSeconds(rpoSeconds),
      `${restarts}`,
      storesInBrief(status),
      jobsInBrief(status),
      silent ?? (isWell(status) ? trouble?.text : whyAway(status)?.message) ?? '',
    ],
  ];
}

function details(status: ServerStatus): string[] {
  const tables = [storesTable(status), jobsTable(status)];
  return tables.flatMap((table) => (table === undefined ? [] : ['', table]));
}

function isWell({ state, silentSeconds }: ServerStatus): boolean {
  return state === 'streaming' && silentSeconds === undefined;
}
