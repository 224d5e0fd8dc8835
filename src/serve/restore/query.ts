import { isBackupId } from '../../base/backup-record.js';
import { WalkeepError } from '../../errors.js';
import { parseTarget, targetWords, type WrittenTarget } from '../../restore/target-text.js';
import { OBEYED } from '../../text.js';
import type { WorkConfig } from '../config/config.js';
import type { RestoreQuery } from './messages.js';

export const DIRECTORY = 'directory';
/** Where Debian and the images have it, more or less; to be changed in the form. */
export const DEFAULT_DATA_DIR = '/var/lib/postgresql/data';
export const ACTIONS = ['pause', 'promote', 'shutdown'] as const;

const FIELDS = ['to', 'before', 'timeline', 'backup', 'from', 'pgdata', 'action'] as const;
export type Field = (typeof FIELDS)[number];
const MOST_TIMELINE = 0xffff_ffff;
const LONGEST_TARGET = 200;
const LONGEST_PATH = 1024;

/** What is wrong with what was asked. It never quotes it. */
export interface QueryFault {
  field: Field | undefined;
  message: string;
}

/** The names of the places of a server, the directory first. */
export function placeNames({ stores }: WorkConfig): string[] {
  return [DIRECTORY, ...stores.map(({ name }) => name)];
}

/**
 * Reads what a request asks for. Whatever it is, what comes out of this is well-formed, and no more than
 * an argument of one option.
 */
export function readQuery(
  params: URLSearchParams,
  work: WorkConfig,
): { query: RestoreQuery } | { faults: QueryFault[] } {
  const faults: QueryFault[] = [];
  const fault = (field: Field | undefined, message: string): undefined => {
    faults.push({ field, message });
    return undefined;
  };
  for (const key of new Set(params.keys())) {
    if (!FIELDS.includes(key as Field)) fault(undefined, 'there is an unknown field');
    else if (key !== 'from' && params.getAll(key).length > 1) fault(key as Field, 'is given twice');
  }
  const text = (field: Field) => params.get(field)?.trim() || undefined;
  const before = text('before') !== undefined;
  if (before && !/^(on|1|true)$/.test(text('before') as string))
    fault('before', 'is on or not there');
  const written = params.get('to') ?? '';
  // A name may end with a blank.
  const to = targetOf(
    (/^name:/.test(written) ? written : text('to')) ?? 'latest',
    before,
    (message) => fault('to', message),
  );
  const timeline = text('timeline');
  const isTimeline = timeline === undefined || /^[1-9]\d{0,9}$/.test(timeline);
  if (!isTimeline || Number(timeline ?? 1) > MOST_TIMELINE) fault('timeline', 'is no timeline');
  const backup = text('backup');
  if (backup !== undefined && !isBackupId(backup)) fault('backup', 'is no ID of a backup');
  const names = placeNames(work);
  const from = params.getAll('from');
  if (from.some((name) => !names.includes(name))) fault('from', 'is no place of this server');
  const dataDir = text('pgdata') ?? DEFAULT_DATA_DIR;
  const wrong = pathFault(dataDir, work.server.directory);
  if (wrong !== undefined) fault('pgdata', wrong);
  const action = ACTIONS.find((one) => one === (text('action') ?? 'pause'));
  if (action === undefined) fault('action', `is none of ${ACTIONS.join(', ')}`);
  if (faults.length > 0 || to === undefined) return { faults };
  return {
    query: {
      ...{ to, before, dataDir, from: names.filter((n) => from.length === 0 || from.includes(n)) },
      ...(timeline === undefined ? {} : { timeline: Number(timeline) }),
      ...(backup === undefined ? {} : { backup }),
      // At the end of the archive a server is promoted in any case.
      ...(action === 'pause' || action === undefined || to === 'latest' ? {} : { action }),
    },
  };
}

/** As `--to` has it; a time without a zone is in UTC. */
function targetOf(
  text: string,
  before: boolean,
  fault: (message: string) => undefined,
): string | undefined {
  if (text.length > LONGEST_TARGET) return fault('is too long');
  if (hasObeyed(text)) return fault('has characters that cannot be shown');
  const read = (written: string): WrittenTarget | undefined => {
    try {
      return parseTarget(written, before);
    } catch {
      return undefined;
    }
  };
  const isTime = /^\d{4}-/.test(text);
  const found = (isTime ? read(`${text}+00`) : undefined) ?? read(text);
  if (found) return targetWords(found.target)[1];
  try {
    parseTarget(text, before);
  } catch (e) {
    if (e instanceof WalkeepError) return fault(wordsOf(e, text));
  }
  return fault('is no target of a recovery');
}

function wordsOf({ message, hint }: WalkeepError, text: string): string {
  const said = message.replaceAll(`"${text}"`, 'this');
  return hint === undefined ? said : `${said}. ${hint}`;
}

function pathFault(path: string, archive: string): string | undefined {
  if (!path.startsWith('/')) return 'must be an absolute path';
  if (Buffer.byteLength(path) > LONGEST_PATH) return 'is too long';
  if (hasObeyed(path)) return 'has characters that cannot be shown';
  if (isWithin(path, archive) || isWithin(archive, path))
    return 'lies in the archive, or around it';
  return undefined;
}

function isWithin(path: string, directory: string): boolean {
  const [inner, outer] = [path, directory].map((one) => one.replace(/\/*$/, '/'));
  return (inner as string).startsWith(outer as string);
}

function hasObeyed(text: string): boolean {
  return text.search(OBEYED) >= 0;
}
