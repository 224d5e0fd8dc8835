import { chmod, lstat, mkdir, rm, rmdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { requireSameCluster } from '../../archive/access.js';
import type { Archive } from '../../archive/archive.js';
import { isForGroup } from '../../archive/places/group-access.js';
import { type ArchiveKeys, openArchive } from '../../archive/places/open-archive.js';
import {
  CorruptWalError,
  EncryptedError,
  NotSupportedError,
  ParseError,
  RewriteError,
  StorageError,
  StoreUnsupportedError,
  SystemIdentifierError,
  UsageError,
  WalkeepError,
} from '../../errors.js';
import { parseFetchName, serveComplete } from '../../fetch/fetch.js';
import { storageError } from '../../files/durable.js';
import { pushFile } from '../../push/push.js';
import { parseHistoryFileName, parseStoredName } from '../../wal/file-name.js';

/** Another archive of the cluster, and the directory that is filled from it. Can be sent to a thread. */
export interface BackfillPlace {
  place: string;
  directory: string;
  keys: ArchiveKeys;
  systemId: bigint;
}

/** `take`: a complete segment; with `content` a history file of that content. */
export type BackfillJob = BackfillPlace &
  ({ ask: 'look' } | { ask: 'take'; name: string; content?: string });

/** What the other archive has. */
export interface BackfillLook {
  state: 'looked';
  /** Complete segments, by their 24 digits. */
  segments: Set<string>;
  /** Contents of history files, by timeline. */
  histories: Map<number, string>;
  /** It says whose it is, or has something: not a disk that is yet to be mounted. */
  begun: boolean;
}

/** Why something could not be had. */
export interface BackfillFailure {
  state: 'failed';
  message: string;
  /** What is there must not be taken; otherwise it may be had later. */
  refused: boolean;
}

/** `stored` here now, `present` the same before, `absent` there. */
export type BackfillAnswer =
  | BackfillLook
  | BackfillFailure
  | { state: 'stored' | 'present' | 'absent' };

/** Where a segment is put together before it is taken in; nothing looks into it. */
const STAGING = '.walkeep-backfill';

/** It is damaged, another cluster's, contradicts what is here, or can never be read with these keys. */
const REFUSED = [
  CorruptWalError,
  EncryptedError,
  NotSupportedError,
  ParseError,
  RewriteError,
  StoreUnsupportedError,
  SystemIdentifierError,
  UsageError,
] as const;

/** Looks of which each finds the file gone again. */
const MOST_LOOKS = 20;

/**
 * Brings segments of other archives into a receiving directory, whose receiver may be at work: each
 * is checked as a fetch checks it, and gets its name as a push gives it: durably, in place of nothing,
 * and only if it says what the files that are there say.
 */
export class BackfillWork {
  readonly #opened = new Map<string, Promise<Archive>>();
  #last: Promise<unknown> = Promise.resolve();
  /** What a killed one left in the staging directory is gone. */
  #cleaned = false;

  /** One job after the other: what fills a hole and what goes on may want the same segment. */
  run(job: BackfillJob): Promise<BackfillAnswer> {
    const answer = this.#last.then(() => this.#do(job));
    this.#last = answer.catch(() => {});
    return answer;
  }

  async #do(job: BackfillJob): Promise<BackfillAnswer> {
    try {
      const archive = await this.#open(job);
      await archive.reach();
      if (job.ask === 'look') return await look(archive, job);
      if (!this.#cleaned) await rm(join(job.directory, STAGING), { recursive: true, force: true });
      this.#cleaned = true;
      return await take(archive, job, job.name, job.content);
    } catch (e) {
      if (!(e instanceof WalkeepError)) throw e;
      await this.close();
      return {
        state: 'failed',
        message: e.message,
        refused: REFUSED.some((one) => e instanceof one),
      };
    }
  }

  /** Lets go of all connections: one that failed serves no more questions. */
  async close(): Promise<void> {
    const opened = [...this.#opened.values()];
    this.#opened.clear();
    for (const one of opened) await one.then((archive) => archive.close()).catch(() => {});
  }

  #open({ place, keys, systemId }: BackfillJob): Promise<Archive> {
    const opened = this.#opened.get(place) ?? openArchive(place, { ...keys, systemId });
    this.#opened.set(place, opened);
    return opened;
  }
}

async function look(archive: Archive, { systemId }: BackfillPlace): Promise<BackfillLook> {
  const cluster = await archive.cluster();
  requireSameCluster(archive.place, systemId, cluster?.systemId);
  const segments = new Set<string>();
  const histories = new Map<number, string>();
  for (const { name } of await archive.list()) {
    const stored = parseStoredName(name);
    if (stored?.kind === 'segment' && !stored.partial) segments.add(stored.base);
    if (stored?.kind !== 'history') continue;
    const content = await archive.text(name);
    if (content) histories.set(parseHistoryFileName(name) as number, content.toString('latin1'));
  }
  return {
    state: 'looked',
    segments,
    histories,
    begun: segments.size > 0 || cluster !== undefined,
  };
}

async function take(
  archive: Archive,
  { directory, systemId }: BackfillPlace,
  name: string,
  content: string | undefined,
): Promise<BackfillAnswer> {
  const staging = await stagingIn(directory);
  const target = join(staging, name);
  try {
    if (content !== undefined) await writeFile(target, content, 'latin1');
    else if (!(await bring(archive, name, target, directory, systemId))) return { state: 'absent' };
    const { outcome, name: kept } = await pushFile(directory, target, { verify: false });
    switch (outcome) {
      case 'stored':
      case 'mended':
        return { state: 'stored' };
      case 'present':
        return { state: 'present' };
      default:
        return {
          state: 'failed',
          message: `"${name}" of ${archive.place} does not go with what is here, and was kept as "${kept}"`,
          refused: true,
        };
    }
  } finally {
    await rm(target, { force: true });
    await rmdir(staging).catch(() => {});
  }
}

/** Puts a complete segment at `target`, verified. False if the archive has none. */
async function bring(
  archive: Archive,
  name: string,
  target: string,
  directory: string,
  systemId: bigint,
): Promise<boolean> {
  const request = { archive, wanted: parseFetchName(name), target, near: [directory] };
  for (let looks = 1; looks <= MOST_LOOKS; looks++) {
    let damage: CorruptWalError | undefined;
    let gone = false;
    for (const source of await archive.stored(name, false, { toRead: true })) {
      const problem = await serveComplete(request, source, async () => systemId);
      if (problem === undefined) return true;
      if (problem === 'gone') gone = true;
      // Another form of it may be whole.
      else damage ??= problem;
    }
    if (gone) continue;
    if (damage) throw damage;
    return false;
  }
  return false;
}

/** As readable for the group as the ledger, and so the WAL, is: what is made in it is. */
async function stagingIn(directory: string): Promise<string> {
  const staging = join(directory, STAGING);
  try {
    const mode = (await isForGroup(directory)) ? 0o750 : 0o700;
    await mkdir(staging, { recursive: true, mode });
    // Through a link files would be written, and removed, wherever it leads.
    if ((await lstat(staging)).isDirectory()) {
      await chmod(staging, mode);
      return staging;
    }
  } catch (e) {
    throw storageError('create directory', staging, e);
  }
  throw new StorageError(`"${staging}" is not a directory`, { path: staging, hint: 'Remove it.' });
}
