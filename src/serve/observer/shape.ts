import type { Catalog } from '../../archive/catalog.js';
import type { DirectoryEntry } from '../../files/file-system.js';
import { parseSegmentFileName, parseStoredName } from '../../wal/file-name.js';

const PLAIN = /^[0-9A-F]{24}$/;

/**
 * What of the names in a directory decides where WAL is missing: which segments of each timeline follow
 * each other, and which histories there are. The same while the newest timeline grows at its end and
 * the oldest goes away from its begin, which is what happens all the time, and makes no gap.
 */
export function shapeOf(entries: readonly DirectoryEntry[], segmentSize: number): string {
  const perId = 0x1_0000_0000 / segmentSize;
  const timelines = new Map<number, number[]>();
  const histories: number[] = [];
  const add = (timeline: number, segment: number): void => {
    const own = timelines.get(timeline);
    if (own) own.push(segment);
    else timelines.set(timeline, [segment]);
  };
  for (const { name, kind } of entries) {
    if (kind !== 'file' && kind !== 'link') continue;
    if (PLAIN.test(name)) {
      const low = Number.parseInt(name.slice(16), 16);
      if (low >= perId) continue;
      add(
        Number.parseInt(name.slice(0, 8), 16),
        Number.parseInt(name.slice(8, 16), 16) * perId + low,
      );
      continue;
    }
    const stored = parseStoredName(name);
    if (stored?.kind === 'history') histories.push(stored.timeline);
    const parsed = stored?.kind === 'segment' && parseSegmentFileName(name, segmentSize);
    if (parsed) add(parsed.timeline, Number(parsed.segment));
  }
  const edges = new Map<number, number[]>();
  for (const [timeline, segments] of timelines) {
    edges.set(timeline, edgesOf(Float64Array.from(segments).sort()));
  }
  return shapeIn(edges, histories);
}

/** The same of a directory that was looked over. */
export function shapeOfCatalog({ timelines, histories }: Catalog): string {
  const edges = new Map<number, number[]>();
  for (const { timeline, ranges } of timelines) {
    const own = ranges.flatMap(({ segments }) =>
      [segments[0], segments.at(-1)].map((one) => Number(one?.segment)),
    );
    if (own.length > 0) edges.set(timeline, own);
  }
  return shapeIn(
    edges,
    histories.map((h) => h.timeline),
  );
}

function shapeIn(edges: ReadonlyMap<number, readonly number[]>, histories: number[]): string {
  const numbers = [...edges.keys()].sort((a, b) => a - b);
  const [oldest, newest] = [numbers[0], numbers.at(-1)];
  const runs = numbers.map((timeline) => {
    const own = [...(edges.get(timeline) ?? [])];
    if (timeline === newest) own.pop();
    if (timeline === oldest) own.shift();
    return `${timeline}: ${own.join(' ')}`;
  });
  return [...runs, `histories: ${histories.sort((a, b) => a - b).join(' ')}`].join('\n');
}

/** First and last of those that follow each other. */
function edgesOf(sorted: Float64Array): number[] {
  const edges: number[] = [];
  let last: number | undefined;
  for (const segment of sorted) {
    if (last === undefined) edges.push(segment);
    else if (segment > last + 1) edges.push(last, segment);
    last = segment;
  }
  if (last !== undefined) edges.push(last);
  return edges;
}
