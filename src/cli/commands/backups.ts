import type { BackupList, ListedBackup } from '../../backups/list-backups.js';
import { minuteOf, pictureOf } from '../../backups/picture.js';
import { UsageError } from '../../errors.js';
import { formatLsn } from '../../lsn.js';
import { formatBytes, formatSeconds } from '../../units.js';
import { formatIsoTimestamp, formatTimestamp } from '../../wal/records/timestamp.js';
import { ARCHIVE_OPTIONS } from '../archive-options.js';
import { MERGE_OPTIONS, merge } from '../backups/merge.js';
import type { Command } from '../command.js';
import { jsonLine } from '../json.js';
import type { Output } from '../output.js';
import { KEY_OPTIONS, keysOf } from '../place-options.js';
import { stopOnSignals } from '../signals.js';
import { tableText } from '../table.js';

/** `walkeep backups` */
export const command: Command = {
  takesPlace: true,
  usage: 'backups [OPTION]... PLACE [BACKUP]',
  description:
    'Shows the base backups of a place: their state, size and duration, what each can be restored ' +
    'to and why no further, and a picture of that on an axis of time; or one of them in detail. ' +
    'With --merge it makes a full backup of a chain of incremental ones.',
  options: () => [
    { long: 'files', group: 'Options:', help: 'list the files of one backup' },
    ...MERGE_OPTIONS,
    ...KEY_OPTIONS,
    ...ARCHIVE_OPTIONS,
  ],
  async run(values, operands, { output, tryHelp }) {
    const [place, id, extra] = operands;
    const misuse = (message: string): UsageError => new UsageError(message, { hint: tryHelp });
    if (place === undefined) throw misuse('no place specified');
    if (extra !== undefined) {
      throw misuse(`too many command-line arguments (first is "${extra}")`);
    }
    if (values.files === true && id === undefined) throw misuse('--files wants a backup');
    if (typeof values.merge === 'string') {
      if (id !== undefined) throw misuse('--merge has its backup, and takes no other');
      return merge(place, values.merge, values, output);
    }
    if (values.keep === true || values['recipients-file'] !== undefined) {
      throw misuse('--keep and --recipients-file are for --merge');
    }
    const { listBackups, listFiles } = await import('../../backups/list-backups.js');
    const { signal, release } = stopOnSignals(output);
    const options = { ...keysOf(values), id, signal };
    try {
      if (values.files === true && id !== undefined) {
        const files = await listFiles(place, id, options);
        const lines = files.map((file) =>
          values.json === true
            ? jsonLine({ type: 'file', path: file.path, kind: file.type, size: file.size })
            : `${String(file.size).padStart(12)}  ${file.path}${file.type === 'directory' ? '/' : ''}`,
        );
        output.print(lines.join('\n'));
        return 0;
      }
      const list = await listBackups(place, options);
      if (values.json === true) output.print(list.backups.map(jsonOf).join('\n'));
      else if (id !== undefined) output.print(details(list.backups[0] as ListedBackup));
      else printList(output, list);
      return 0;
    } catch (error) {
      if (!signal.aborted) throw error;
      output.error('interrupted');
      return 1;
    } finally {
      release();
    }
  },
};

const STATE: Readonly<Record<ListedBackup['state'], string>> = {
  complete: 'complete',
  'needs-wal': 'needs WAL',
  damaged: 'damaged',
  running: 'running',
  failed: 'failed',
};

function printList(output: Output, { place, backups }: BackupList): void {
  if (backups.length === 0) {
    output.print(`"${place}" has no base backups`);
    return;
  }
  const rows = backups.map((b) => [
    b.id,
    `${STATE[b.state]}${b.kept ? ', kept' : ''}`,
    b.record ? minuteOf(Date.parse(b.record.end.time)) : '',
    b.duration === undefined ? '' : formatSeconds(b.duration / 1000),
    b.record ? formatBytes(b.record.size) : '',
    `${formatBytes(b.stored)}${shareOf(b)}`,
    b.record?.parent ?? '',
  ]);
  const head = ['backup', 'state', 'ended (UTC)', 'took', 'size', 'stored', 'based on'];
  const lines = [tableText(head, rows), ''];
  const picture = pictureOf(backups);
  if (picture.length > 0) lines.push(...picture, '');
  for (const b of backups) {
    if (b.state === 'complete') lines.push(...windowLines(b));
    else if (b.problem !== undefined) lines.push(`${b.id}: ${b.problem}`);
  }
  output.print(lines.join('\n'));
}

/** Of what the full one takes that an incremental one is based on. */
function shareOf({ saved, restored, record }: ListedBackup): string {
  if (saved === undefined || restored === undefined || !record) return '';
  const own = record.objects.reduce((sum, { size }) => sum + size, 0);
  return ` (${Math.ceil((100 * own) / Math.max(1, own + saved))} %)`;
}

/** What an incremental backup hangs on. */
function chainPairs({ chain, saved, restored }: ListedBackup): [string, string][] {
  if (saved === undefined || restored === undefined) return [];
  return [
    ['chain', chain.join(', ')],
    ['saves', `${formatBytes(Math.max(0, saved))} of what ${chain.at(-1)} takes`],
    ['to restore', `${formatBytes(restored)} of ${chain.length + 1} backups`],
  ];
}

function windowLines({ id, record, windows }: ListedBackup): string[] {
  const from = record ? `${minuteOf(Date.parse(record.end.time))} UTC` : '';
  if (windows.length === 0) return [`${id}: to its end, ${from}`];
  return windows.map(({ timeline, to, why }) => {
    if (!to) return `${id}: not on timeline ${timeline}: ${why}`;
    const until =
      to.time === undefined ? 'no commit behind it' : `the commit of ${formatTimestamp(to.time)}`;
    return `${id}: from ${from} to ${until} (${formatLsn(to.lsn)} on timeline ${timeline}): ${why}`;
  });
}

function details(b: ListedBackup): string {
  const { record } = b;
  const point = (at: { lsn: bigint; timeline: number; time: string }) =>
    `${formatLsn(at.lsn as never)} on timeline ${at.timeline}, ${at.time}`;
  const version = record ? majorAndMinor(record.serverVersion) : '';
  const pairs: [string, string][] = [
    ['backup', b.id],
    ['state', `${STATE[b.state]}${b.kept ? ', kept' : ''}`],
    ...(b.problem === undefined ? [] : [['because', b.problem] as [string, string]]),
    ...(record
      ? ([
          ['label', record.label],
          ['server', `PostgreSQL ${version}, system identifier ${record.systemId}, ${record.from}`],
          ['began', point(record.start)],
          ['ended', point(record.end)],
          ['based on', record.parent ?? 'nothing: it is a full backup'],
          ...chainPairs(b),
          ['size', `${formatBytes(record.size)} in ${record.tars.length} tars`],
          ['compression', `${record.codec}${record.encrypted ? ', encrypted' : ''}`],
          ['WAL', record.wal === 'included' ? 'included' : 'in the archive'],
          [
            'page checksums',
            record.pageChecksums.enabled
              ? record.pageChecksums.checked
                ? 'checked'
                : 'not looked at'
              : 'the server has none',
          ],
          ...record.tablespaces.map(({ oid, location }) => ['tablespace', `${oid}, ${location}`]),
          ...record.warnings.map((warning) => ['warning', warning]),
        ] as [string, string][])
      : []),
    ['stored', `${formatBytes(b.stored)} in ${b.objects} objects`],
    ...b.children.map((child) => ['base of', child] as [string, string]),
  ];
  const lines = pairs.map(([name, value]) => `${name.padEnd(16)}${value}`);
  if (b.state !== 'complete') return lines.join('\n');
  return [...lines, '', ...pictureOf([b]), '', ...windowLines(b)].join('\n');
}

function majorAndMinor(version: number): string {
  return `${Math.floor(version / 10_000)}.${version % 10_000}`;
}

function jsonOf({ record, windows, ...rest }: ListedBackup): string {
  const { objects: _, tars, ...known } = record ?? { objects: [], tars: [] };
  return jsonLine({
    ...{ type: 'backup', ...rest, ...known, tars: tars.map(({ name, size }) => ({ name, size })) },
    windows: windows.map(({ to, ...window }) => ({
      ...window,
      ...(to
        ? {
            to: {
              lsn: formatLsn(to.lsn),
              ...(to.time === undefined ? {} : { time: formatIsoTimestamp(to.time) }),
            },
          }
        : {}),
    })),
  });
}
