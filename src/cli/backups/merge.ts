import type { MergedBackup } from '../../backup/merge.js';
import { formatBytes, formatSeconds } from '../../units.js';
import { jsonLine } from '../json.js';
import type { OptionSpec, OptionValues } from '../option-spec.js';
import type { Output } from '../output.js';
import { absolutePlace, keysOf } from '../place-options.js';
import { recipientsFrom } from '../ship-options.js';
import { stopOnSignals } from '../signals.js';

const GROUP = 'Merge:';

export const MERGE_OPTIONS: readonly OptionSpec[] = [
  {
    long: 'merge',
    argument: 'ID',
    group: GROUP,
    help: 'make a full backup of an incremental one and all that it is based on, without the server',
  },
  {
    long: 'recipients-file',
    argument: 'FILE',
    group: GROUP,
    help: 'encrypt it to the age recipients in FILE: needed where any of its chain is encrypted',
  },
  { long: 'keep', group: GROUP, help: 'it is never expired' },
];

/** Milliseconds between two updates of the line on a terminal. */
const SHOWN_EVERY = 200;

/** `walkeep backups PLACE --merge ID`. Exit code 0: the full backup exists. */
export async function merge(
  place: string,
  id: string,
  values: OptionValues,
  output: Output,
): Promise<number> {
  const file = values['recipients-file'];
  const recipients = await recipientsFrom(typeof file === 'string' ? [file] : []);
  const { mergeBackup } = await import('../../backup/merge.js');
  const json = values.json === true;
  const { signal, release } = stopOnSignals(output);
  let shown = Number.NEGATIVE_INFINITY;
  try {
    const merged = await mergeBackup({
      ...{ place: absolutePlace(place), id, recipients, keys: keysOf(values), signal },
      keep: values.keep === true,
      onProgress: ({ bytes, total = 0 }) => {
        if (json || !output.live || performance.now() - shown < SHOWN_EVERY) return;
        shown = performance.now();
        output.status(`merging: ${formatBytes(bytes)} of about ${formatBytes(total)}`);
      },
      onWarning: (warning) => {
        if (json) output.print(jsonLine({ type: 'warning', ...warning }));
        else output.warning(warning.message, warning.hint);
      },
    });
    output.clearStatus();
    output.print(json ? jsonLine({ type: 'merged', ...result(merged) }) : summary(merged));
    return 0;
  } catch (e) {
    output.clearStatus();
    if (!signal.aborted || e !== signal.reason) throw e;
    output.error('stopped: there is no merged backup, and nothing was left behind');
    return 1;
  } finally {
    release();
  }
}

function result({ record, duration, ...rest }: MergedBackup) {
  const { start, end, size, codec, encrypted, warnings } = record;
  return { ...rest, start, end, size, codec, encrypted, seconds: duration / 1000, warnings };
}

function summary({ id, record, from, stored, files, duration, cleaned }: MergedBackup): string {
  const lines = [
    `${id}: ${files} files, ${formatBytes(record.size)}, stored as ${formatBytes(stored)}, in ${formatSeconds(duration / 1000)}`,
    `it is the full backup that ${from.join(', ')} make together; these stay until they are expired`,
  ];
  if (cleaned.length > 0) lines.push(`removed what was left of ${cleaned.join(', ')}`);
  return lines.join('\n');
}
