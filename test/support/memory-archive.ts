import type { Archive } from '../../src/archive/archive.js';
import type { StoredSegment } from '../../src/archive/segment-source.js';
import { StorageError } from '../../src/errors.js';
import { parseSegmentFileName, parseStoredName } from '../../src/wal/file-name.js';
import { judgeHistory } from '../../src/wal/history-file.js';
import { SEGMENT } from './archives.js';

/** Files by their names; a segment's bytes may be made when they are read. */
export type MemoryFiles = Map<string, Buffer | (() => Buffer)>;

/** An archive of plain files in memory, which counts the segments that are read. */
export function memoryArchive(files: MemoryFiles): Archive & { reads: string[] } {
  const reads: string[] = [];
  const contentOf = (name: string): Buffer => {
    const content = files.get(name);
    if (!content) throw new StorageError(`no file "${name}"`, { path: name });
    return typeof content === 'function' ? content() : content;
  };
  const segmentNamed = (name: string): StoredSegment => ({
    name,
    path: name,
    compression: 'none',
    partial: parseSegmentFileName(name, SEGMENT)!.partial,
    inStore: false,
    async read(limit, take) {
      const bytes = contentOf(name);
      if (limit > 40) reads.push(name);
      const end = Math.min(limit, bytes.length);
      for (let at = 0; at < end; at += 1 << 18) {
        const chunk = bytes.subarray(at, Math.min(end, at + (1 << 18)));
        if (!take(chunk)) return { bytes: at, end: 'stopped', trailingGarbage: false };
      }
      return { bytes: end, end: 'complete', trailingGarbage: false };
    },
    bytes: () => {
      throw new Error('not needed');
    },
    async contentEnd() {
      const bytes = contentOf(name);
      let end = bytes.length;
      while (end > 0 && bytes[end - 1] === 0) end--;
      return end;
    },
    size: async () => contentOf(name).length,
    discard: async () => {},
  });
  const unneeded = () => {
    throw new Error('not needed');
  };
  return {
    reads,
    place: 'memory',
    isDirectory: true,
    reach: async () => {},
    cluster: async () => undefined,
    list: async () => [...files.keys()].map((name) => ({ name, kind: 'file' as const })),
    listAround: unneeded,
    has: async (name) => files.has(name),
    ledger: async () => undefined,
    history: async (timeline) => {
      const name = [...files.keys()].find((one) => {
        const stored = parseStoredName(one);
        return stored?.kind === 'history' && stored.timeline === timeline;
      });
      return name === undefined
        ? { state: 'absent' as const }
        : judgeHistory(name, timeline, contentOf(name));
    },
    text: async (name) => files.get(name) && contentOf(name),
    stored: unneeded,
    segment: async (name, read) => read(segmentNamed(name)),
    completeName: unneeded,
    refuseIrregular: unneeded,
    refuseUnreadableForm: unneeded,
    remove: unneeded,
    receiver: unneeded,
    close: async () => {},
  };
}
