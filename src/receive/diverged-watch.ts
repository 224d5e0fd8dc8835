import { openDirectory } from '../archive/places/directory-archive.js';
import { readCatalog } from '../archive/read-catalog.js';
import { divergedWal } from '../archive/way/diverged.js';
import { WalkeepError } from '../errors.js';
import { formatLsn } from '../lsn.js';
import type { TimelineHistory } from '../wal/timeline.js';
import type { RunOwner } from './timeline-run.js';

/**
 * Finds out, beside the receiving, what was received beyond the place where a server's way leaves it.
 * The new primary's first WAL does not wait for that.
 */
export class DivergedWatch {
  private readonly directory: string;
  private readonly tell: RunOwner['tell'];
  /** Timelines that were told of. */
  private readonly told = new Set<number>();
  private looking: Promise<void> = Promise.resolve();

  constructor(directory: string, tell: RunOwner['tell']) {
    this.directory = directory;
    this.tell = tell;
  }

  /** The archive goes on along `way`, after `left`. */
  look(left: number, way: TimelineHistory, fail: (error: unknown) => void): void {
    this.looking = this.looking.then(() => this.lookAt(left, way)).catch(fail);
  }

  /** Resolves when nothing is looked for any more. */
  end(): Promise<void> {
    return this.looking;
  }

  private async lookAt(left: number, way: TimelineHistory): Promise<void> {
    const { directory } = this;
    try {
      const catalog = await readCatalog(openDirectory(directory));
      const before = catalog.timelines.find(({ timeline }) => timeline === left)?.history;
      // What an earlier failover left was told then, and check tells it all the time.
      const known = before ? await divergedWal(catalog, before) : [];
      for (const wal of await divergedWal(catalog, way)) {
        const { timeline, from, to } = wal;
        const old = known.some((k) => k.timeline === timeline && k.from === from);
        if (old || this.told.has(timeline)) continue;
        this.told.add(timeline);
        this.tell('diverged', { ...wal, followed: way.timeline });
        this.tell('warning', {
          code: 'WK_BEYOND_FORK',
          message: `${to - from} bytes of WAL on timeline ${timeline}, from ${formatLsn(from)} to ${formatLsn(to)}, were received and are not on timeline ${way.timeline}: transactions in it, confirmed ones too, are missing there`,
          hint: `They are kept: "walkeep find --timeline ${timeline} --beyond-fork ${directory}" lists them.`,
        });
      }
    } catch (error) {
      if (!(error instanceof WalkeepError)) throw error;
      const message = `whether WAL was received beyond timeline ${way.timeline} could not be seen: ${error.message}`;
      this.tell('warning', { code: 'WK_BEYOND_FORK', message, hint: 'See "walkeep check".' });
    }
  }
}
