import { join } from 'node:path';
import {
  DiskFullError,
  type ParseError,
  StorageError,
  SystemIdentifierError,
  UsageError,
} from '../errors.js';
import { fsyncError, storageError, writeFileDurably, writeFully } from '../files/durable.js';
import { type FileSystem, nodeFileSystem, OPEN_APPEND } from '../files/file-system.js';
import { accessError, isGone } from './access.js';
import {
  applyEntry,
  decodeLine,
  emptyState,
  encodeLine,
  type LedgerEntry,
  type LedgerState,
  summarize,
} from './ledger-entry.js';

export type {
  AgainEntry,
  DamageEntry,
  GapEntry,
  LedgerEntry,
  LedgerState,
  OpenEntry,
  PositionEntry,
  TimelineEntry,
  TimelineReason,
} from './ledger-entry.js';

/** The ledger's file name: a dotfile, since other tools move stray files out of the directory. */
export const LEDGER_FILE = '.walkeep-ledger';

/** Bytes from which the entries are replaced by a summary. */
const COMPACT_SIZE = 256 * 1024;

/** How a ledger is opened. */
export interface LedgerOptions {
  /** Make an empty ledger if there is none; its file comes with the first entries. */
  create?: boolean;
  /** File mode. Default 0o600. */
  mode?: number;
  /** False (as with --no-sync): nothing is synced. Default true. */
  sync?: boolean;
  fs?: FileSystem;
}

interface Pending {
  entries: LedgerEntry[];
  resolve: () => void;
  reject: (error: unknown) => void;
}

/**
 * The continuity ledger of a receiving directory: what was stored there, in lines that are only
 * ever appended (see `encodeLine`), so that a gap is seen even after the directory was emptied. One
 * process has it open; the directory lock sees to that.
 */
export class Ledger {
  /** What the durable entries say. Of the caller's to read only. */
  readonly state: LedgerState = emptyState();
  readonly path: string;
  readonly #mode: number;
  readonly #sync: boolean;
  readonly #fs: FileSystem;
  /** Open for appending; undefined when the whole file has to be written anew first. */
  #fd: number | undefined;
  /** Bytes in the file, and those of the summary it began with. */
  #size = 0;
  #base = 0;
  #pending: Pending[] = [];
  #writing: Promise<void> | undefined;
  /** After a failed fsync nothing more is recorded: the process has to end. */
  #failed: unknown;

  private constructor(dir: string, options: LedgerOptions) {
    this.path = join(dir, LEDGER_FILE);
    this.#mode = options.mode ?? 0o600;
    this.#sync = options.sync ?? true;
    this.#fs = options.fs ?? nodeFileSystem;
  }

  /**
   * Opens the ledger of a directory, or undefined if it has none and `create` is not set. A last
   * line torn by a crash is cut off. The file is written anew and synced: a line that an earlier
   * process wrote but could not sync might exist in the page cache alone.
   * @throws StorageError if it cannot be read or written, or is damaged elsewhere
   */
  static async open(dir: string, options: LedgerOptions = {}): Promise<Ledger | undefined> {
    const ledger = new Ledger(dir, options);
    const content = await readContent(ledger.path, ledger.#fs);
    if (!content) return options.create ? ledger : undefined;
    Object.assign(ledger.state, content.state);
    await ledger.#rewrite(
      content.text.length > COMPACT_SIZE ? encodeLine(summarize(ledger.state)) : content.text,
    );
    return ledger;
  }

  /**
   * Records entries; resolves once they are durable (written only, without `sync`). Callers that
   * come while a sync runs share the next one.
   * @throws DiskFullError and goes on later; FsyncError now and for every later call
   */
  append(...entries: LedgerEntry[]): Promise<void> {
    const at = new Date().toISOString();
    return new Promise((resolve, reject) => {
      this.#pending.push({ entries: entries.map((e) => ({ at, ...e })), resolve, reject });
      this.#writing ??= this.#drain();
    });
  }

  /** Waits for what is being recorded and closes the file. */
  async close(): Promise<void> {
    await this.#writing;
    this.#failed ??= new UsageError('the ledger is closed');
    await this.#release();
  }

  async #drain(): Promise<void> {
    // The turn of the event loop in which the first caller came may bring more.
    await Promise.resolve();
    while (this.#pending.length > 0) {
      const group = this.#pending;
      this.#pending = [];
      try {
        const accepted = this.#accept(group);
        await this.#record(accepted.flatMap((p) => p.entries));
        for (const p of accepted) p.resolve();
      } catch (e) {
        for (const p of group) p.reject(e);
      }
    }
    this.#writing = undefined;
  }

  /** Rejects the entries that must not get into this ledger, without spoiling the group. */
  #accept(group: Pending[]): Pending[] {
    let { systemId } = this.state;
    return group.filter(({ entries, reject }) => {
      for (const entry of entries) {
        if (entry.type === 'open') systemId ??= entry.systemId;
        if (systemId === undefined) {
          reject(new UsageError('a ledger begins with an "open" entry', { path: this.path }));
          return false;
        }
        if (entry.type === 'open' && entry.systemId !== systemId) {
          const details = {
            path: this.path,
            expected: String(systemId),
            actual: String(entry.systemId),
          };
          reject(new SystemIdentifierError(`"${this.path}" belongs to another cluster`, details));
          return false;
        }
      }
      return true;
    });
  }

  async #record(entries: LedgerEntry[]): Promise<void> {
    if (this.#failed !== undefined) throw this.#failed;
    if (entries.length === 0) return;
    try {
      if (this.#fd === undefined || this.#size > Math.max(COMPACT_SIZE, 2 * this.#base)) {
        const state = structuredClone(this.state);
        for (const entry of entries) applyEntry(state, entry);
        await this.#rewrite(encodeLine(summarize(state)));
      } else {
        await this.#write(this.#fd, encodeLine(entries));
      }
    } catch (e) {
      // A line may now be there in part: the next one must not follow it. A new file cures that.
      await this.#release().catch(() => {});
      if (!(e instanceof DiskFullError)) this.#failed = e;
      throw e;
    }
    for (const entry of entries) applyEntry(this.state, entry);
  }

  async #release(): Promise<void> {
    const fd = this.#fd;
    this.#fd = undefined;
    if (fd !== undefined) await this.#fs.close(fd);
  }

  async #write(fd: number, line: string): Promise<void> {
    const bytes = Buffer.from(line);
    await writeFully(this.#fs, fd, bytes, this.#size).catch((e) => {
      throw storageError('write file', this.path, e);
    });
    this.#size += bytes.length;
    if (!this.#sync) return;
    await this.#fs.fdatasync(fd).catch((e) => {
      throw fsyncError(this.path, e);
    });
  }

  async #rewrite(text: string): Promise<void> {
    await this.#release();
    await writeFileDurably(this.path, text, {
      mode: this.#mode,
      temporary: `${this.path}.tmp`,
      sync: this.#sync,
      fs: this.#fs,
    });
    this.#fd = await this.#fs.open(this.path, OPEN_APPEND, 0).catch((e) => {
      throw storageError('open file', this.path, e);
    });
    this.#base = Buffer.byteLength(text);
    this.#size = this.#base;
  }
}

/** Reads of a ledger that a file server still has the replaced file of. */
const MOST_READS = 20;

/**
 * What a directory's ledger says, without changing it; undefined if there is none.
 * @throws ArchiveAccessError if it cannot be read, StorageError if it is damaged
 */
export async function readLedger(dir: string): Promise<LedgerState | undefined> {
  const path = join(dir, LEDGER_FILE);
  for (let reads = 1; ; reads++) {
    try {
      return (await readContent(path, nodeFileSystem))?.state;
    } catch (e) {
      if (!isGone(e) || reads === MOST_READS) throw accessError('read file', path, e);
    }
  }
}

/** Reads and checks a ledger: its intact lines, and what they say. */
async function readContent(
  path: string,
  fs: FileSystem,
): Promise<{ state: LedgerState; text: string } | undefined> {
  let raw: string;
  try {
    raw = (await fs.readFile(path)).toString();
  } catch (e) {
    if ((e as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw storageError('read file', path, e);
  }
  return parseLedger(path, raw);
}

/** Checks what a ledger file holds, its intact lines. @throws StorageError */
export function parseLedger(path: string, raw: string): { state: LedgerState; text: string } {
  const lines = raw.split('\n');
  const rest = lines.pop() as string;
  // Blocks that a power loss kept from being written read as NULs.
  if (rest === '' && lines.at(-1)?.includes('\0')) lines.pop();
  const state = emptyState();
  lines.forEach((line, i) => {
    try {
      for (const entry of decodeLine(line)) applyEntry(state, entry);
    } catch (e) {
      throw unreadable(path, `line ${i + 1}: ${(e as Error).message}`, e as ParseError);
    }
  });
  if (state.systemId === undefined) {
    throw unreadable(path, 'it does not begin with an "open" entry');
  }
  return { state, text: lines.map((line) => `${line}\n`).join('') };
}

/** @param cause with a hint of its own: nothing is damaged, it has what is not known here */
function unreadable(path: string, detail: string, cause?: ParseError): StorageError {
  const { hint } = cause ?? {};
  return new StorageError(
    `the continuity ledger "${path}" ${hint === undefined ? 'is damaged' : 'cannot be read'}`,
    {
      path,
      detail,
      hint:
        hint ??
        'Restore it from a copy, or remove it: the directory is then taken over as it is, and gaps before that are not seen.',
      cause,
    },
  );
}
