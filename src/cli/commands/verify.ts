import type { Finding } from '../../archive/findings.js';
import { formatLsn } from '../../lsn.js';
import { oneLine } from '../../text.js';
import { formatBytes } from '../../units.js';
import type { VerifySummary } from '../../verify/verify.js';
import { ARCHIVE_OPTIONS, countOption, directoryOperand, lsnOption } from '../archive-options.js';
import type { Command } from '../command.js';
import { fold } from '../help.js';
import { jsonLine } from '../json.js';
import type { OptionSpec } from '../option-spec.js';
import type { Output } from '../output.js';
import { KEY_OPTIONS, keysOf } from '../place-options.js';
import { progressBar } from '../progress.js';
import { stopOnSignals } from '../signals.js';

const OPTIONS: readonly OptionSpec[] = [
  {
    long: 'since',
    argument: 'LSN',
    group: 'Options:',
    help: 'check only segments that reach beyond LSN',
  },
  { long: 'timeline', argument: 'N', group: 'Options:', help: 'check only timeline N' },
  {
    long: 'quick',
    group: 'Options:',
    help: 'check names, sizes, headers and continuity, but read no records',
  },
  { long: 'no-backups', group: 'Options:', help: 'leave base backups out' },
  {
    long: 'verify-pages',
    group: 'Options:',
    help: 'compare the checksums of all pages in base backups, too',
  },
  {
    long: 'jobs',
    short: 'j',
    argument: 'N',
    group: 'Options:',
    help: 'number of threads (default: one for each core)',
  },
  {
    long: 'verbose',
    short: 'v',
    group: 'Options:',
    help: 'print what is in order too, and what to do about the rest',
  },
  ...KEY_OPTIONS,
  ...ARCHIVE_OPTIONS,
];

/** Exit code where it could not be checked. */
const NOT_CHECKED = 2;
const MAX_THREADS = 1024;
/** Timeline IDs are unsigned 32-bit numbers. */
const MAX_TIMELINE = 0xffff_ffff;

/** `walkeep verify`. Exit code 0: all is well, 1: something was found, 2: could not look. */
export const command: Command = {
  takesPlace: true,
  light: true,
  usage: 'verify [OPTION]... PLACE',
  description:
    'Checks every segment file of an archive, in a directory or a store: names, sizes, page headers, the checksum of each ' +
    'record, continuity, timelines; and every base backup: its objects, its files against their ' +
    'manifest, the WAL that it needs. Exit code 0: nothing is wrong, 1: something is, 2: it could ' +
    'not be checked.',
  options: () => OPTIONS,
  async run(values, operands, { output, tryHelp }) {
    const directory = directoryOperand(operands, tryHelp);
    const options = {
      since: lsnOption(values, 'since'),
      timeline: countOption(values, 'timeline', MAX_TIMELINE),
      jobs: countOption(values, 'jobs', MAX_THREADS),
      quick: values.quick === true,
      backups: values['no-backups'] !== true,
      verifyPages: values['verify-pages'] === true,
      keys: keysOf(values),
    };
    const { verifyArchive } = await import('../../verify/verify.js');
    const { signal, release } = stopOnSignals(output);
    const onProgress = output.live && values.json !== true ? progressBar(output) : undefined;
    try {
      const { findings, summary } = await verifyArchive(directory, {
        ...options,
        signal,
        onProgress,
      });
      output.clearStatus();
      if (values.json === true) printJson(output, findings, summary);
      else printTable(output, findings, summary, values.verbose === true);
      return summary.errors + summary.warnings > 0 ? 1 : 0;
    } catch (error) {
      if (!signal.aborted) throw error;
      output.error('interrupted');
      return NOT_CHECKED;
    } finally {
      output.clearStatus();
      release();
    }
  },
};

function printJson(output: Output, findings: readonly Finding[], summary: VerifySummary): void {
  const lines = findings.map((finding) => jsonLine({ type: 'finding', ...finding }));
  const { milliseconds, ...rest } = summary;
  const last = jsonLine({ type: 'summary', ...rest, milliseconds: Math.round(milliseconds) });
  output.print([...lines, last].join('\n'));
}

const WIDTH = 100;
const INDENT = 9;

function printTable(
  output: Output,
  findings: readonly Finding[],
  summary: VerifySummary,
  verbose: boolean,
): void {
  const lines: string[] = [];
  for (const { severity, code, file, lsn, message, hint } of findings) {
    if (severity === 'info' && !verbose) continue;
    const place = [file, lsn === undefined ? '' : `at ${formatLsn(lsn)}`, `(${code})`];
    lines.push(
      `${severity.padEnd(INDENT)}${oneLine(place.filter((part) => part !== '').join(' '))}`,
    );
    const text = fold(oneLine(message), WIDTH - INDENT);
    if (verbose || severity === 'error') text.push(...fold(hint, WIDTH - INDENT));
    lines.push(...text.map((line) => ' '.repeat(INDENT) + line));
  }
  if (lines.length > 0) lines.push('');
  output.print([...lines, summaryLine(summary)].join('\n'));
}

function summaryLine(s: VerifySummary): string {
  const count = (n: number, what: string) => `${n} ${what}${n === 1 ? '' : 's'}`;
  const speed = s.milliseconds > 0 ? s.bytes / (s.milliseconds / 1000) : 0;
  const read = s.quick
    ? 'headers only'
    : `${formatBytes(s.bytes)} in ${(s.milliseconds / 1000).toFixed(1)} s, ${formatBytes(speed)}/s`;
  const backups = s.backups === 0 ? '' : ` and ${count(s.backups, 'base backup')}`;
  const looked = `${count(s.segments, 'segment')} of ${count(s.timelines, 'timeline')}${backups} checked (${read})`;
  const found = [
    s.errors > 0 ? count(s.errors, 'error') : '',
    s.warnings > 0 ? count(s.warnings, 'warning') : '',
    s.infos > 0 ? `${s.infos} for information` : '',
  ].filter((part) => part !== '');
  return `${looked}: ${found.length === 0 ? 'all is well' : found.join(', ')}`;
}
