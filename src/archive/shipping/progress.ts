import { createHash } from 'node:crypto';
import { join } from 'node:path';
import { type ErrorDetails, StorageError } from '../../errors.js';
import { storageError, writeFileDurably } from '../../files/durable.js';
import { nodeFileSystem } from '../../files/file-system.js';
import { formatLsn, type Lsn, parseLsn } from '../../lsn.js';
import { parsePlace } from '../../store/place.js';
import type { Range } from './ranges.js';

/** Below it each place that a directory was shipped to has a directory of its own. */
export const SHIP_DIRECTORY = '.walkeep-ship';
const FILE = 'progress.json';
/** Version of the file. */
const FORMAT = 1;

/** What a place answered for of one timeline. */
export interface TimelineProgress {
  /** WAL in whole segments: disjoint, ascending. */
  shipped: Range[];
  /** Ends of unfinished segments, by the 24 digits. */
  partials: Map<string, Lsn>;
}

/** Why a place does not get on, or one file of ours. */
export interface ShipTrouble {
  code: string;
  message: string;
  hint?: string;
  /** Since when, ISO 8601. */
  since: string;
}

/** A local file that is not sent, since it must not be called good. */
export interface HeldFile extends ShipTrouble {
  name: string;
}

/** How far a directory was shipped to one place. */
export interface ShipProgress {
  place: string;
  /** Of the archive there: of another one all this says nothing. */
  archiveId: string;
  systemId: bigint;
  /** Bytes. */
  segmentSize: number;
  /** What our objects have as `wk-writer`. */
  writer: string;
  timelines: Map<number, TimelineProgress>;
  /** Timelines whose history file is there. */
  histories: number[];
  /** Backup history files that are there. */
  backups: string[];
  /** `retrying`: tried again and again; `stopped`: only a person can help. */
  state: 'ok' | 'retrying' | 'stopped';
  trouble?: ShipTrouble;
  held: HeldFile[];
  /** When it was written, ISO 8601. */
  updated: string;
}

/** The same archive by another spelling of its place: what does not say where it is does not count. */
export function placeIdentity(text: string): string {
  const place = parsePlace(text);
  switch (place.kind) {
    case 'directory':
      return place.path;
    case 's3':
      return ['s3', place.endpoint ?? '', place.bucket, place.prefix].join(' ');
    case 'ssh':
      return ['ssh', place.user ?? '', place.host, place.port ?? '', place.path].join(' ');
  }
}

/** Where the progress towards a place is kept, with the lock of who ships there. */
export function progressDirectory(directory: string, identity: string): string {
  const id = createHash('sha256').update(identity).digest('hex').slice(0, 16);
  return join(directory, SHIP_DIRECTORY, id);
}

/** Puts it in place durably. @throws StorageError */
export async function writeProgress(directory: string, progress: ShipProgress): Promise<void> {
  const timelines = Object.fromEntries(
    [...progress.timelines].map(([timeline, { shipped, partials }]) => [
      timeline,
      {
        shipped: shipped.map(([from, to]) => [formatLsn(from), formatLsn(to)]),
        partials: Object.fromEntries([...partials].map(([name, end]) => [name, formatLsn(end)])),
      },
    ]),
  );
  const { systemId } = progress;
  const value = { format: FORMAT, ...progress, systemId: String(systemId), timelines };
  await writeFileDurably(join(directory, FILE), `${JSON.stringify(value, undefined, 1)}\n`);
}

/** Undefined if there is none. @throws StorageError if it cannot be read or is damaged */
export async function readProgress(directory: string): Promise<ShipProgress | undefined> {
  const path = join(directory, FILE);
  let text: string;
  try {
    text = (await nodeFileSystem.readFile(path)).toString();
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw storageError('read file', path, e);
  }
  try {
    return decode(JSON.parse(text));
  } catch (cause) {
    const details: ErrorDetails = {
      path,
      cause,
      hint: 'Remove it: all that is in the directory is then compared with what the place has.',
    };
    throw new StorageError(`the progress file "${path}" is damaged`, details);
  }
}

function decode(value: {
  format: number;
  systemId: string;
  timelines: Record<string, { shipped: [string, string][]; partials: Record<string, string> }>;
  [field: string]: unknown;
}): ShipProgress {
  const { format, systemId, timelines, ...rest } = value;
  if (format !== FORMAT) throw new Error(`format ${format}`);
  return {
    // One that an earlier version wrote knows of none.
    ...({ backups: [], ...rest } as unknown as ShipProgress),
    systemId: BigInt(systemId),
    timelines: new Map(
      Object.entries(timelines).map(([timeline, { shipped, partials }]) => [
        Number(timeline),
        {
          shipped: shipped.map(([from, to]): Range => [parseLsn(from), parseLsn(to)]),
          partials: new Map(Object.entries(partials).map(([name, end]) => [name, parseLsn(end)])),
        },
      ]),
    ),
  };
}
