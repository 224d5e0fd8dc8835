import { MarkerFile } from '../marker.js';

/**
 * What says that a delta restore has not ended in a directory: durable before anything in it is
 * changed, removed when all is done. It has another name than that of a restore into an empty
 * directory, for which all that it finds beside its own marker is its own, to be removed.
 */
export const DELTA_MARKER = '.walkeep-delta';

export interface DeltaMarker {
  format: 1;
  /** Of this run: it removes no other's. Those of earlier versions have none. */
  token?: string | undefined;
  backup: string;
  /** Of the cluster, whose pg_control is not there any more. */
  systemId: string;
  catalogVersion: number;
  /** All that it writes to or removes from, that of the server first. */
  roots: string[];
  /** What is kept gets it behind its name. */
  stamp: string;
  /** Where the old pg_wal goes; absent: there was no WAL in it. */
  oldWal?: string | undefined;
}

export const DELTA_MARKERS = new MarkerFile<DeltaMarker>(DELTA_MARKER, {
  of: 'a delta restore',
  hint: 'Restore into an empty directory.',
});
