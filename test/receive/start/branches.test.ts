import { describe, expect, it } from 'vitest';
import {
  applyEntry,
  emptyState,
  type LedgerEntry,
  lineageHistory,
  summarize,
} from '../../../src/archive/ledger-entry.js';
import { formatLsn, parseLsn } from '../../../src/lsn.js';
import { isBeside, knownEnd, strangerWarning } from '../../../src/receive/start/branches.js';
import { parseTimelineHistory, rootHistory } from '../../../src/wal/timeline.js';

/** A ledger: timelines with their starts, and up to where each was acknowledged. */
function ledger(...followed: [timeline: number, start: string, flushed: string][]) {
  const state = emptyState();
  for (const [timeline, start, flushed] of followed) {
    const entries: LedgerEntry[] = [
      { type: 'timeline', timeline, start: parseLsn(start), why: 'switch' },
      { type: 'flushed', timeline, lsn: parseLsn(flushed) },
    ];
    for (const entry of entries) applyEntry(state, entry);
  }
  return state;
}

/** A server's timeline, from its ancestors with their ends. */
function server(timeline: number, ...ancestors: [number, string][]) {
  const text = ancestors.map(([n, end]) => `${n}\t${end}\tx\n`).join('');
  const history = timeline === 1 ? rootHistory(1) : parseTimelineHistory(timeline, text);
  return { timeline, history };
}

const history = (timeline: number, ...ancestors: [number, string][]) =>
  server(timeline, ...ancestors).history;

function end(...args: Parameters<typeof knownEnd>): string | undefined {
  const known = knownEnd(...args);
  return known && `${formatLsn(known.lsn)} tli ${known.timeline}${known.warning ? ' told' : ''}`;
}

describe('knownEnd', () => {
  const two = ledger([1, '0/1000000', '0/5080000'], [2, '0/5000000', '0/9000000']);
  const ofTwo = history(2, [1, '0/5040000']);

  it('is the ledger’s, as long as the server goes on from there or is behind', () => {
    expect(end(emptyState(), server(1), undefined)).toBeUndefined();
    expect(end(two, server(2, [1, '0/5040000']), ofTwo)).toBe('0/9000000 tli 2');
    expect(end(two, server(3, [1, '0/5040000'], [2, '0/9000000']), ofTwo)).toBe('0/9000000 tli 2');
    expect(end(two, server(1), ofTwo)).toBe('0/9000000 tli 2');
  });
  it('is on the timeline that a branch beside the server’s has in common with it', () => {
    for (const fork of ['0/3000000', '0/5060000', '0/8000000']) {
      expect(end(two, server(3, [1, fork]), ofTwo)).toBe('0/5080000 tli 1 told');
    }
  });
  it('is where the branch left it, if receiving began behind that', () => {
    const late = ledger([2, '0/6000000', '0/9000000']);
    expect(end(late, server(3, [1, '0/8000000']), ofTwo)).toBe('0/5040000 tli 1 told');
  });
  it('needs the history of the timeline that was followed', () => {
    expect(end(two, server(3, [1, '0/3000000']), undefined)).toBe('0/9000000 tli 2');
    expect(end(two, server(3, [1, '0/3000000']), lineageHistory(two, 2))).toBe(
      '0/5080000 tli 1 told',
    );
  });
  it('stays if nothing is in common', () => {
    const other = history(3, [2, '0/5040000']);
    const three = ledger([3, '0/5000000', '0/9000000']);
    expect(end(three, server(4, [1, '0/3000000']), other)).toBe('0/9000000 tli 3');
    // A timeline of one number that began elsewhere is another one.
    const ours = history(3, [1, '0/1040000'], [2, '0/5040000']);
    const theirs = server(4, [1, '0/1080000'], [2, '0/6000000']);
    const common = ledger(
      [1, '0/1000000', '0/1040000'],
      [2, '0/1000000', '0/5040000'],
      [3, '0/5000000', '0/9000000'],
    );
    expect(end(common, theirs, ours)).toBe('0/9000000 tli 3');
  });
  it('survives the compaction of the ledger, and a third branch', () => {
    const state = ledger(
      [1, '0/1000000', '0/5080000'],
      [2, '0/5000000', '0/9000000'],
      [3, '0/3000000', '0/4000000'],
    );
    state.systemId = 7n;
    const ofThree = history(3, [1, '0/3040000']);
    const compacted = emptyState();
    for (const entry of summarize(state)) applyEntry(compacted, entry);
    expect(compacted).toMatchObject({ timeline: 3, left: state.left, lineage: state.lineage });
    for (const one of [state, compacted]) {
      expect(end(one, server(4, [1, '0/8000000']), ofThree)).toBe('0/5080000 tli 1 told');
      const ontoTwo = server(4, [1, '0/5040000'], [2, '0/8800000']);
      expect(end(one, ontoTwo, ofThree)).toBe('0/5080000 tli 1 told');
    }
  });
});

describe('isBeside', () => {
  const one = ledger([1, '0/1000000', '0/5080000']);
  const two = ledger([1, '0/1000000', '0/5080000'], [2, '0/5000000', '0/9000000']);

  it('is false on the server’s way', () => {
    expect(isBeside(1, server(1), one)).toBe(false);
    expect(isBeside(1, server(2, [1, '0/5040000']), one)).toBe(false);
  });
  it('is true for an earlier branch', () => {
    expect(isBeside(2, server(3, [1, '0/3000000']), two)).toBe(true);
    expect(isBeside(2, server(3, [1, '0/3000000']), emptyState())).toBe(true);
  });
  it('is true for a later one only if it was never received, and the server’s was', () => {
    expect(isBeside(2, server(1), one)).toBe(true);
    // An old primary.
    expect(isBeside(2, server(1), two)).toBe(false);
    // Nothing is known.
    expect(isBeside(2, server(1), emptyState())).toBe(false);
    expect(isBeside(3, server(1), two)).toBe(false);
  });
});

it('names the files of a stranger', () => {
  expect(strangerWarning([10], server(1))).toMatch(/timeline 10, which was.*0000000A\*/);
  expect(strangerWarning([2, 3], server(1))).toMatch(/timelines 2, 3.*00000002\*, 00000003\*/);
});
