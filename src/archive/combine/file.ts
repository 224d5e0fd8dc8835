import { NO_VERSION, planBlocks } from '../../base/incremental.js';
import { FileCursor } from './cursor.js';
import { MapRepair } from './map-repair.js';
import type { CombineContext, CombinedFile, FileSource } from './source.js';
import { type Version, versionsOf } from './version.js';

/** Bytes that are handed on at a time. */
const OUT = 1024 * 1024;

/** A file of a chain whose blocks are known, and can be written. */
export interface OpenedFile {
  /** Bytes. */
  size: number;
  /** Where nothing of it was changed since the full backup: that has it, to the last byte. */
  unchanged: FileSource | undefined;
  /** Proves all sources but that one, without writing anything. Once. @throws as openCombined */
  prove(): Promise<void>;
  /** All of it, in order; the bytes are valid until `out` has ended. Once. */
  write(out: (bytes: Uint8Array) => Promise<void> | void): Promise<void>;
}

/**
 * Combines a file from the backups of a chain. All of each source is read, and compared with the
 * manifest of its own backup, also what is not used of it: a byte is only taken from a file that is
 * proven.
 * @throws CorruptObjectError that names the file and its backup; what the places throw
 */
export async function openCombined(
  file: CombinedFile,
  context: CombineContext,
): Promise<OpenedFile> {
  const { geometry } = context;
  const cursors = file.sources.map((source) => new FileCursor(source, context.frames));
  const versions = await versionsOf(cursors, geometry);
  const plan = planBlocks(versions.map(({ version }) => version));
  const repair = file.map && new MapRepair(file.map, context);
  const { blockSize } = geometry;
  const size = plan.length * blockSize;
  const last = file.sources.length - 1;
  const full = file.sources[last];
  const isUnchanged = full?.size === size && !repair && plan.every((from) => from === last);
  return {
    size,
    unchanged: isUnchanged ? full : undefined,
    async prove() {
      for (const cursor of cursors.slice(0, -1)) await cursor.end();
    },
    async write(out) {
      const buffer = new Uint8Array(Math.max(OUT, blockSize));
      let filled = 0;
      for (let block = 0; block < plan.length; block++) {
        const from = plan[block] as number;
        const page = buffer.subarray(filled, filled + blockSize);
        if (from === NO_VERSION) page.fill(0);
        else {
          const version = versions[from] as Version;
          const at = version.offsetOf(block);
          if (version.cursor.copy(at, blockSize, page, 0) < blockSize) {
            await version.cursor.read(at, blockSize, page, 0);
          }
        }
        if (repair) await repair.page(page, block, file.sources[from]?.backup);
        filled += blockSize;
        if (filled + blockSize <= buffer.length) continue;
        await out(buffer.subarray(0, filled));
        filled = 0;
      }
      if (filled > 0) await out(buffer.subarray(0, filled));
      for (const cursor of cursors) await cursor.end();
    },
  };
}
