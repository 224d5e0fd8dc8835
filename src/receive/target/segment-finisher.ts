import { join } from 'node:path';
import { hasAllOf, sameContent } from '../../archive/compare.js';
import { keepAsEvidence } from '../../archive/evidence.js';
import type { WalkeepError } from '../../errors.js';
import { fsyncDir, fsyncError, storageError } from '../../files/durable.js';
import type { FileSystem } from '../../files/file-system.js';
import type { Lsn } from '../../lsn.js';
import { type StoredForm, segmentStart, storedForms, storedNames } from '../../wal/file-name.js';
import { closeSegment, type OpenSegment } from './open-segment.js';

/** A segment that is complete, durable and under its final name. */
export interface FinishedSegment {
  timeline: number;
  /** LSN after its last byte. */
  end: Lsn;
  path: string;
}

export interface SegmentFinisherOptions {
  directory: string;
  segmentSize: number;
  sync: boolean;
  fs: FileSystem;
  /**
   * Notes durably that the archive is complete up to `end`. Called before the final name
   * appears: from then on other tools may move the file away.
   */
  record: (end: Lsn, timeline: number) => Promise<void>;
  /**
   * Stores the segment in another form, durably under a temporary dotfile; absent: it is renamed
   * as it is.
   */
  convert?: (segment: OpenSegment) => Promise<Staged>;
  /** A segment is under its final name, for good; `end` is its end as a stream offset. */
  onDurable: (end: number) => void;
  onFinished: (segment: FinishedSegment) => void | Promise<void>;
  /** No segment gets its final name before `onFinished` of the one before has resolved. */
  oneByOne?: boolean | undefined;
  /** The queue is shorter. */
  onProgress: () => void;
  /** Called once, at the first failure; nothing is finished after it. */
  onFailure: (error: WalkeepError) => void;
}

interface Pending {
  segment: OpenSegment;
  /** The one background sync of its data. */
  syncing?: Promise<void>;
  dataSynced: boolean;
  closed: boolean;
  /** Present while a file that may hold other WAL has its final name. */
  contest?: Contest;
  /** The conversion, once it has begun, and what came of it. */
  converting?: Promise<void>;
  staged?: Staged;
}

/** Ends when the segment has its name, or will not get it any more. */
interface Contest {
  over: Promise<void>;
  end: () => void;
}

/** A finished segment's content: under which name now, and under which at last. */
interface Staged {
  temporary: string;
  name: string;
}

function makeContest(): Contest {
  let end = (): void => {};
  const over = new Promise<void>((resolve) => {
    end = resolve;
  });
  return { over, end };
}

/** Segments compressed at the same time: while one waits for the event loop, another uses its core. */
const CONVERT_AT_ONCE = 3;

/**
 * Brings full segments to their final names in the background, in order: fsync, ledger, rename,
 * fsync of the directory. The order is the promise: a final name means complete and durable.
 */
export class SegmentFinisher {
  private readonly o: SegmentFinisherOptions;
  private queue: Pending[] = [];
  private working: Promise<void> | undefined;
  private failure: WalkeepError | undefined;

  constructor(options: SegmentFinisherOptions) {
    this.o = options;
  }

  /** Segments that are full and not yet under their final names. */
  get pending(): number {
    return this.queue.length;
  }

  push(segment: OpenSegment): void {
    const pending: Pending = { segment, dataSynced: false, closed: false };
    if (this.isContested(segment)) pending.contest = makeContest();
    this.queue.push(pending);
    // The disk must not idle while earlier segments get their names; a failure is found there too.
    if (this.o.convert) this.convertMore(this.o.convert);
    else if (this.o.sync) this.syncData(pending).catch(() => undefined);
    this.working ??= this.work();
  }

  /**
   * Syncs the data of all that is queued; a commit may lie in a segment just filled.
   * @returns stream offset behind which nothing counts as durable yet: a record that ends there may
   *   begin in a segment whose name a damaged copy still has
   */
  syncPendingSync(): number {
    if (this.failure) throw this.failure;
    for (const p of this.queue) {
      if (p.dataSynced) continue;
      try {
        this.o.fs.fdatasyncSync(p.segment.fd);
      } catch (e) {
        throw this.fail(fsyncError(p.segment.path, e));
      }
      p.dataSynced = true;
    }
    const contested = this.queue.find((p) => p.contest);
    return contested ? contested.segment.end : Number.POSITIVE_INFINITY;
  }

  /** The same off the event loop; waits until all of it counts. */
  async syncPending(): Promise<void> {
    const queue = [...this.queue];
    for (const p of queue) await this.syncData(p);
    for (const p of queue) await p.contest?.over;
    if (this.failure) throw this.failure;
  }

  /** Resolves when nothing is queued. @throws what made it stop. */
  async drain(): Promise<void> {
    await this.working;
    if (this.failure) throw this.failure;
  }

  private async work(): Promise<void> {
    try {
      // Nothing is finished within the call that pushed it: what follows at once shares the work.
      await Promise.resolve();
      while (this.queue.length > 0 && !this.failure) {
        await this.finish(await this.nextBatch());
      }
    } catch (e) {
      this.fail(storageError('finish segment in', this.o.directory, e));
    } finally {
      // Nothing of this one may be going on under the next. Only then: what is pushed while this
      // waits would have nobody to finish it.
      if (this.failure) await Promise.allSettled(this.queue.map((p) => p.converting));
      this.working = undefined;
      if (this.failure) this.abandon();
    }
  }

  /** The segments to finish together: all, or those at the front that are converted. */
  private async nextBatch(): Promise<Pending[]> {
    await this.queue[0]?.converting;
    const behind = this.o.convert ? this.queue.findIndex((p) => !p.staged) : -1;
    const ready = behind < 0 ? this.queue.length : behind;
    return this.queue.slice(0, this.o.oneByOne ? 1 : ready);
  }

  /** Keeps as many conversions going as there may be, the oldest segments first. */
  private convertMore(convert: (segment: OpenSegment) => Promise<Staged>): void {
    let going = this.queue.filter((p) => p.converting && !p.staged).length;
    for (const p of this.queue) {
      if (going >= CONVERT_AT_ONCE || this.failure) return;
      if (p.converting) continue;
      going += 1;
      p.converting = convert(p.segment).then((staged) => {
        p.staged = staged;
        this.convertMore(convert);
      });
      // Found by who waits for it, if anybody still does.
      p.converting.catch(() => {});
    }
  }

  private async finish(batch: Pending[]): Promise<void> {
    const { o } = this;
    for (const p of batch) {
      // Converted ones become durable in their new form: with its name, and not before. Until then a
      // commit that waits syncs the old one.
      if (o.sync && !o.convert) await this.syncData(p);
      // The ledger is told of a full segment on the strength of its present name.
      await p.segment.named;
      await this.removeOlder(p);
      if (!o.convert) await this.release(p);
    }
    const last = (batch.at(-1) as Pending).segment;
    this.assertSound();
    await o.record(this.endOf(last), last.timeline);
    const paths: string[] = [];
    for (const { segment, staged, contest } of batch) {
      // Just before the rename: a push may bring a file of that name meanwhile.
      await this.setAside(segment);
      this.assertSound();
      paths.push(this.rename(staged?.temporary ?? segment.path, staged?.name ?? segment.name));
      // A power cut that kept only the next name would leave the other file in this one's place.
      if (o.sync && contest) await fsyncDir(o.directory, o.fs);
    }
    if (o.sync) await fsyncDir(o.directory, o.fs);
    o.onDurable(last.end);
    this.queue = this.queue.slice(batch.length);
    for (const p of batch) p.contest?.end();
    if (o.convert) await Promise.all(batch.map((p) => this.release(p)));
    for (const [i, { segment, staged }] of batch.entries()) {
      const { timeline } = segment;
      const path = paths[i] as string;
      await this.removeCovered(staged ? segment.path : path, storedForms(segment.name, true));
      await o.onFinished({ timeline, end: this.endOf(segment), path });
    }
    o.onProgress();
  }

  /** True if a file has one of the segment's final names, which has come again then. */
  private isContested({ name }: OpenSegment): boolean {
    const { directory, fs } = this.o;
    try {
      return storedNames(name, false).some((n) => fs.sizeSync(join(directory, n)) !== undefined);
    } catch {
      // Who gives it its name will tell.
      return true;
    }
  }

  private endOf(segment: OpenSegment): Lsn {
    return segmentStart(segment.segment + 1n, this.o.segmentSize);
  }

  /**
   * Files of this segment, in whatever form, that are not the same (the scan did not accept it, or
   * its WAL was refused later) are kept as evidence; what `walkeep push` brought is the same.
   */
  private async setAside({ name, path }: OpenSegment): Promise<void> {
    const { directory, segmentSize, fs } = this.o;
    for (const { name: file, compression } of storedForms(name, false)) {
      const other = { path: join(directory, file), compression };
      if (fs.sizeSync(other.path) === undefined) continue;
      // What cannot be read is not the same.
      const same = await sameContent(path, other, segmentSize, fs).catch(() => false);
      if (!same) keepAsEvidence(directory, file, fs);
    }
  }

  private rename(from: string, name: string): string {
    const path = join(this.o.directory, name);
    try {
      this.o.fs.renameSync(from, path);
    } catch (e) {
      throw storageError('rename file', from, e);
    }
    return path;
  }

  /**
   * Removes what an earlier receiver left of a full segment in other forms, for good before the
   * segment gets its final name: from then on other programs may move it away, and what is left then
   * would be taken for all that there is.
   */
  private async removeOlder(p: Pending): Promise<void> {
    const { directory, sync, fs } = this.o;
    const { name, path } = p.segment;
    const there = storedForms(name, true).filter(
      (form) =>
        form.compression !== 'none' && fs.sizeSync(join(directory, form.name)) !== undefined,
    );
    if (there.length === 0) return;
    // What replaces them: a converted one is not durable yet.
    if (sync) await this.syncData(p);
    await this.removeCovered(path, there);
    if (sync) await fsyncDir(directory, fs);
  }

  /**
   * Removes partials of a segment. One that holds something else than the segment is kept as
   * evidence. @param plain where the segment lies uncompressed
   */
  private async removeCovered(plain: string, forms: readonly StoredForm[]): Promise<void> {
    const { directory, segmentSize, fs } = this.o;
    // The plain one, to which the others are compared, last.
    for (const { name: file, compression } of [...forms].reverse()) {
      const path = join(directory, file);
      if (fs.sizeSync(path) === undefined) continue;
      try {
        const own = path === plain;
        if (own || (await hasAllOf(plain, { path, compression }, segmentSize, fs))) {
          await fs.unlink(path);
        } else keepAsEvidence(directory, file, fs);
      } catch (e) {
        throw storageError('remove file', path, e);
      }
    }
  }

  private syncData(p: Pending): Promise<void> {
    p.syncing ??= this.syncOnce(p);
    return p.syncing;
  }

  private async syncOnce(p: Pending): Promise<void> {
    const { segment } = p;
    await this.settled(segment);
    if (p.dataSynced) return;
    try {
      segment.inFlight = this.o.fs.fdatasync(segment.fd);
      await segment.inFlight;
    } catch (e) {
      throw this.fail(fsyncError(segment.path, e));
    }
    p.dataSynced = true;
  }

  /** Waits for a sync under way. One that failed counts: the next success proves nothing. */
  private async settled(segment: OpenSegment): Promise<void> {
    try {
      await segment.inFlight;
    } catch (e) {
      throw this.fail(fsyncError(segment.path, e));
    }
  }

  /** Its content is durable: closes the file once no sync of it is under way. */
  private async release(p: Pending): Promise<void> {
    // None begins from here on.
    p.dataSynced = true;
    try {
      await p.syncing;
      await this.settled(p.segment);
    } finally {
      this.close(p);
    }
  }

  private close(p: Pending): void {
    if (p.closed) return;
    p.closed = true;
    closeSegment(p.segment, this.o.fs);
  }

  /** A commit's own sync of a file may have failed while ours, which proves nothing, went well. */
  private assertSound(): void {
    if (this.failure) throw this.failure;
  }

  /** The first failure stays: after a failed fsync no later success proves anything. */
  private fail(error: WalkeepError): WalkeepError {
    if (!this.failure) {
      this.failure = error;
      this.o.onFailure(error);
    }
    return this.failure;
  }

  private abandon(): void {
    for (const p of this.queue) {
      p.contest?.end();
      try {
        this.close(p);
      } catch {
        // What made it stop is the error that counts.
      }
    }
    this.queue = [];
  }
}
