import { UsageError } from '../errors.js';
import { type Compression, compressionSuffix } from '../wal/file-name.js';

/** Plain first: the others come from it, so that who looks in this order misses none. */
export const COMPRESSIONS: readonly Compression[] = ['none', 'gzip', 'lz4', 'zstd'];

/** What PostgreSQL can ask a restore_command for. */
export interface FetchName {
  /** The whole name, as `%f` gives it. */
  name: string;
  /** `backup`: a backup history file. */
  kind: 'segment' | 'partial' | 'history' | 'backup';
  /** Timeline in the name. */
  timeline: number;
  /** The 24 digits of a segment or partial; otherwise the whole name. */
  base: string;
}

const FORMS: readonly [FetchName['kind'], RegExp][] = [
  ['segment', /^([0-9A-F]{8})[0-9A-F]{16}$/],
  ['partial', /^([0-9A-F]{8})[0-9A-F]{16}\.partial$/],
  ['history', /^([0-9A-F]{8})\.history$/],
  // BackupHistoryFileName, access/xlog_internal.h
  ['backup', /^([0-9A-F]{8})[0-9A-F]{16}\.[0-9A-F]{8}\.backup$/],
];

/** Reads a `%f`. @throws UsageError if PostgreSQL has no such file */
export function parseFetchName(name: string): FetchName {
  for (const [kind, form] of FORMS) {
    const timeline = Number.parseInt(form.exec(name)?.[1] ?? '', 16);
    if (!(timeline > 0)) continue;
    return { name, kind, timeline, base: kind === 'partial' ? name.slice(0, 24) : name };
  }
  throw new UsageError(`"${name}" is not the name of a WAL segment or history file`, {
    hint: 'In restore_command it is %f.',
  });
}

/** The names under which a segment can be stored, best first. */
export function storedNames(base: string, partial: boolean): string[] {
  return COMPRESSIONS.map((c) => base + compressionSuffix(c) + (partial ? '.partial' : ''));
}
