import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { SyncPace } from '../../../src/receive/target/sync-pace.js';
import { VirtualClock } from '../../simulation/virtual-clock.js';

let clock: VirtualClock;
let restore: () => void;
let position: number;
/** Times at which a sync began. */
let syncs: number[];
let pace: SyncPace;

beforeEach(() => {
  clock = new VirtualClock();
  restore = clock.install();
  clock.advance(1000);
  position = 0;
  syncs = [];
  pace = new SyncPace(
    () => {
      syncs.push(clock.now);
      pace.ended(clock.now);
    },
    () => position,
  );
});
afterEach(() => restore());

/** WAL comes. */
function write(): void {
  position += 1;
  pace.request(clock.now);
}

describe('syncs that no commit waits for', () => {
  it('begin at once after a pause', () => {
    write();
    expect(syncs).toEqual([1000]);
    clock.advance(10);
    write();
    expect(syncs).toEqual([1000, 1010]);
  });

  it('are kept apart while WAL keeps coming', () => {
    for (let i = 0; i < 200; i++) {
      write();
      clock.advance(0.5);
    }
    expect(syncs.length).toBeGreaterThan(7);
    expect(syncs.length).toBeLessThan(12);
    syncs.slice(1).forEach((at, i) => {
      expect(at - (syncs[i] as number)).toBeGreaterThanOrEqual(10);
    });
  });

  it('begin as soon as it is quiet: what has come last may be waited for', () => {
    write();
    for (let i = 0; i < 6; i++) {
      clock.advance(0.5);
      write();
    }
    expect(syncs).toEqual([1000]);
    clock.advance(4);
    expect(syncs).toHaveLength(2);
    expect(syncs[1]).toBeLessThanOrEqual(1007);
    // All of it is covered: nothing more to do.
    clock.advance(100);
    expect(syncs).toHaveLength(2);
  });

  it('do not begin any more after the end', () => {
    write();
    write();
    pace.stop();
    clock.advance(100);
    expect(syncs).toEqual([1000]);
  });
});
