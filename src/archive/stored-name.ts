import { UsageError } from '../errors.js';
import { parseStoredName } from '../wal/file-name.js';

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

/** Reads a `%f`. @throws UsageError if PostgreSQL has no such file */
export function parseFetchName(name: string): FetchName {
  const stored = parseStoredName(name);
  const { timeline = 0 } = stored ?? {};
  if (!stored || timeline === 0 || (stored.kind === 'segment' && stored.compression !== 'none')) {
    throw new UsageError(`"${name}" is not the name of a WAL segment or history file`, {
      hint: 'In restore_command it is %f.',
    });
  }
  if (stored.kind !== 'segment') return { name, kind: stored.kind, timeline, base: name };
  return { name, kind: stored.partial ? 'partial' : 'segment', timeline, base: stored.base };
}
