import { describe, expect, it } from 'vitest';
import {
  GapError,
  SystemIdentifierError,
  TimelineBehindError,
  TimelineConflictError,
} from '../../../src/errors.js';
import { formatLsn, type Lsn, parseLsn } from '../../../src/lsn.js';
import { chooseStart, type StartInputs } from '../../../src/receive/start/start-point.js';
import { parseTimelineHistory, rootHistory } from '../../../src/wal/timeline.js';

const MB = 1024 * 1024;
const lsn = parseLsn;

function inputs(change: Partial<StartInputs> = {}): StartInputs {
  return {
    segmentSize: MB,
    server: { systemId: 7n, timeline: 1, flushLsn: lsn('0/1234567'), history: rootHistory(1) },
    acceptGap: false,
    refuseGaps: true,
    ...change,
  };
}

const ledger = (end: string, timeline = 1) => ({
  systemId: 7n,
  end: { lsn: lsn(end), timeline },
});

const server2 = (end: string, flush: string) => ({
  systemId: 7n,
  timeline: 2,
  flushLsn: lsn(flush),
  history: parseTimelineHistory(2, `1\t${end}\tno recovery target specified\n`),
});

const local = (at: string, timeline = 1, empty = false) => ({
  lsn: lsn(at),
  timeline,
  empty,
  file: 'x',
});

const at = (i: StartInputs) => {
  const s = chooseStart(i);
  return `${formatLsn(s.lsn)} tli ${s.timeline} ${s.reason}`;
};

describe('chooseStart: order of sources', () => {
  it('takes the flush position, rounded down, when there is nothing else', () => {
    expect(at(inputs())).toBe('0/1200000 tli 1 first start');
  });
  it('takes the slot before the flush position', () => {
    const slot = { name: 's', readable: true, restartLsn: lsn('0/1100028'), restartTimeline: 1 };
    expect(at(inputs({ slot }))).toBe('0/1100000 tli 1 slot');
  });
  it('takes the newest local segment before everything', () => {
    const slot = { name: 's', readable: true, restartLsn: lsn('0/1100028') };
    expect(at(inputs({ local: local('0/1000000'), slot }))).toBe('0/1000000 tli 1 adopted');
    expect(at(inputs({ local: local('0/1000000'), ledger: ledger('0/1000000') }))).toBe(
      '0/1000000 tli 1 local',
    );
  });
  it('goes on at the ledger when only an ancestor left something that ends before', () => {
    const server = server2('0/1080000', '0/1500000');
    const slot = { name: 's', readable: true, restartLsn: lsn('0/1400028'), restartTimeline: 2 };
    const i = inputs({ server, slot, ledger: ledger('0/1300000', 2), local: local('0/1000000') });
    expect(at(i)).toBe('0/1300000 tli 2 ledger');
    // What is there of the later timeline, or nowhere but in its first segment, decides.
    expect(at({ ...i, local: local('0/1200000', 2) })).toBe('0/1200000 tli 2 local');
    expect(at({ ...i, ledger: ledger('0/1000000', 2) })).toBe('0/1000000 tli 1 local');
    // The wish to start there.
    expect(at({ ...i, local: local('0/1000000', 1, true) })).toBe('0/1000000 tli 1 local');
  });
  it('goes on at the ledger with a slot of which a server before 15 cannot tell', () => {
    const slot = { name: 's', readable: false };
    expect(at(inputs({ ledger: ledger('0/10FF000'), slot }))).toBe('0/1000000 tli 1 ledger');
  });
  it('goes on at the ledger when the directory was emptied and no slot says where', () => {
    expect(at(inputs({ ledger: ledger('0/10FF000') }))).toBe('0/1000000 tli 1 ledger');
  });
});

describe('chooseStart: cluster', () => {
  it('refuses another system identifier, from the ledger or from a segment', () => {
    expect(() => chooseStart(inputs({ localSystemId: 8n }))).toThrow(SystemIdentifierError);
    expect(() => chooseStart(inputs({ ledger: { systemId: 8n } }))).toThrow(SystemIdentifierError);
  });
});

describe('chooseStart: gaps', () => {
  const lost = { name: 's', readable: true };
  it('refuses to start beyond the ledger with a slot that holds nothing', () => {
    const i = inputs({ ledger: ledger('0/1000000'), slot: lost });
    expect(() => chooseStart(i)).toThrow(GapError);
    expect(() => chooseStart(i)).toThrow(/0\/1000000 to 0\/1200000/);
  });
  it('records the gap when it is accepted, or where gaps are not refused', () => {
    for (const change of [{ acceptGap: true }, { refuseGaps: false }]) {
      const s = chooseStart(inputs({ ledger: ledger('0/1000000'), slot: lost, ...change }));
      expect(s.gap).toMatchObject({ from: lsn('0/1000000'), to: lsn('0/1200000') });
      expect(s.warnings).toHaveLength(1);
    }
  });
  it('sees no gap inside the segment that the ledger ends in', () => {
    const i = inputs({ ledger: ledger('0/1234560'), slot: lost });
    expect(chooseStart(i).gap).toBeUndefined();
  });
  it('refuses a local segment beyond the ledger unless everything between is there', () => {
    const i = inputs({ ledger: ledger('0/1000000'), local: local('0/1200000') });
    expect(() => chooseStart(i)).toThrow(GapError);
    expect(at({ ...i, localReachesLedger: true })).toBe('0/1200000 tli 1 local');
  });
  it('takes an empty partial as an explicit restart and records the gap', () => {
    const s = chooseStart(
      inputs({ ledger: ledger('0/1000000'), local: local('0/1200000', 1, true) }),
    );
    expect(s.gap?.why).toBe('restarted at an empty partial');
  });
});

describe('chooseStart: WAL that the server removed', () => {
  const removed = { walRemoved: true, acceptGap: true, local: local('0/1000000') };
  it('goes on where the server flushed, or where the slot holds WAL', () => {
    expect(at(inputs(removed))).toBe('0/1200000 tli 1 accepted gap');
    const slot = { name: 's', readable: true, restartLsn: lsn('0/1100028'), restartTimeline: 1 };
    expect(at(inputs({ ...removed, slot }))).toBe('0/1100000 tli 1 accepted gap');
  });
  it('records the gap from the end of what is stored', () => {
    const { gap } = chooseStart(inputs({ ...removed, ledger: ledger('0/10FF000') }));
    expect(gap).toMatchObject({ from: lsn('0/10FF000'), to: lsn('0/1200000') });
    expect(chooseStart(inputs(removed)).gap?.from).toBe(lsn('0/1000000'));
  });
});

describe('chooseStart: the newest file is an old one, and the server lacks what follows it', () => {
  const old = {
    local: local('0/1000000'),
    ledger: { ...ledger('0/11F0000'), complete: lsn('0/1100000') },
  };
  it('asks for what follows the file first', () => {
    expect(at(inputs(old))).toBe('0/1000000 tli 1 local');
  });
  it('goes on behind the segments that were complete', () => {
    const s = chooseStart(inputs({ ...old, behindNewestGone: true }));
    expect(`${formatLsn(s.lsn)} ${s.reason}`).toBe('0/1100000 ledger');
    expect(s.gap).toBeUndefined();
    expect(s.warnings.join()).toMatch(/from 0\/1000000 to 0\/1100000 was archived/);
  });
  it('does not where nothing complete lies behind, or an empty partial says where', () => {
    const change = { ...old, behindNewestGone: true };
    const { complete, ...known } = old.ledger;
    expect(at(inputs({ ...change, ledger: known }))).toBe('0/1000000 tli 1 local');
    expect(at(inputs({ ...change, local: local('0/1100000') }))).toBe('0/1100000 tli 1 local');
    const empty = local('0/1000000', 1, true);
    expect(at(inputs({ ...change, local: empty }))).toBe('0/1000000 tli 1 local');
  });
  it('goes over a gap from there only', () => {
    const change = { ...old, behindNewestGone: true, walRemoved: true, acceptGap: true };
    expect(chooseStart(inputs(change)).gap).toMatchObject({ from: lsn('0/11F0000') });
  });
});

describe('chooseStart: the server has no file for the end of a timeline', () => {
  const server = {
    systemId: 7n,
    timeline: 4,
    flushLsn: lsn('0/1900000'),
    history: parseTimelineHistory(4, '1\t0/1080000\tx\n2\t0/1090000\tx\n3\t0/1180000\tx\n'),
  };
  const forked = { server, local: local('0/1000000') };
  it('asks the next timelines that begin in its segment, one after the other', () => {
    expect(at(inputs(forked))).toBe('0/1000000 tli 1 adopted');
    expect(at(inputs({ ...forked, lastSegmentGone: 1 }))).toBe('0/1000000 tli 2 fork');
    expect(at(inputs({ ...forked, lastSegmentGone: 2 }))).toBe('0/1000000 tli 3 fork');
    const { warnings } = chooseStart(inputs({ ...forked, lastSegmentGone: 2 }));
    expect(warnings.join()).toMatch(/timeline 1; its WAL from 0\/1000000 to 0\/1080000/);
  });
  it('goes no further than where the next one left that segment', () => {
    expect(at(inputs({ ...forked, lastSegmentGone: 3 }))).toBe('0/1000000 tli 3 fork');
  });
  it('takes nothing from the next one in a segment before', () => {
    const earlier = { ...forked, local: local('0/F00000'), lastSegmentGone: 2 };
    expect(at(inputs(earlier))).toBe('0/F00000 tli 1 adopted');
  });
  it('still sees a gap before that segment', () => {
    const gap = { ...forked, lastSegmentGone: 1, ledger: ledger('0/E00000') };
    expect(() => chooseStart(inputs(gap))).toThrow(GapError);
  });
});

describe('chooseStart: timelines', () => {
  it('streams the rest of the old timeline when the fork lies ahead', () => {
    const i = inputs({ server: server2('0/1080000', '0/1300000'), local: local('0/1000000') });
    expect(at(i)).toBe('0/1000000 tli 1 adopted');
  });
  it('asks for the old timeline when the fork is exactly where we are', () => {
    const i = inputs({ server: server2('0/1100000', '0/1300000'), local: local('0/1100000') });
    expect(at(i)).toBe('0/1100000 tli 1 adopted');
  });
  it('goes back to the segment of the fork on the child when we are beyond it', () => {
    const i = inputs({
      server: server2('0/1080000', '0/1300000'),
      local: local('0/1200000'),
      ledger: ledger('0/1200000'),
    });
    const s = chooseStart(i);
    expect(at(i)).toBe('0/1000000 tli 2 fork');
    expect(s.warnings.join()).toMatch(/0\/1200000.*0\/1080000/);
    expect(s.gap).toBeUndefined();
  });
  it('says so when a partial holds WAL beyond the fork', () => {
    const i = inputs({
      server: server2('0/1080000', '0/1300000'),
      local: local('0/1000000'),
      ledger: ledger('0/1090000'),
    });
    expect(at(i)).toBe('0/1000000 tli 1 local');
    expect(chooseStart(i).warnings.join()).toMatch(/0\/1090000.*0\/1080000/);
  });
  it('measures a gap from the fork, not from what the old timeline had reached', () => {
    const i = inputs({
      server: server2('0/1080000', '0/1300000'),
      ledger: ledger('0/1200000'),
      slot: { name: 's', readable: true },
    });
    expect(() => chooseStart(i)).toThrow(/from 0\/1080000 to 0\/1300000/);
  });
  it('waits for a server that has not reached our timeline', () => {
    expect(() => chooseStart(inputs({ local: local('0/1000000', 2) }))).toThrow(
      TimelineBehindError,
    );
  });
  it('refuses a server whose history does not hold our timeline', () => {
    const server = {
      systemId: 7n,
      timeline: 3,
      flushLsn: lsn('0/1300000'),
      history: parseTimelineHistory(3, '1\t0/1080000\tx\n'),
    };
    expect(() => chooseStart(inputs({ server, local: local('0/1000000', 2) }))).toThrow(
      TimelineConflictError,
    );
  });
  it('refuses such a server also when only the ledger tells of the timeline', () => {
    const server = {
      systemId: 7n,
      timeline: 3,
      flushLsn: lsn('0/1300000'),
      history: parseTimelineHistory(3, '1\t0/1080000\tx\n'),
    };
    const slot = { name: 's', readable: true, restartLsn: lsn('0/1000000'), restartTimeline: 3 };
    expect(() => chooseStart(inputs({ server, slot, ledger: ledger('0/1200000', 2) }))).toThrow(
      TimelineConflictError,
    );
  });
  it('always starts at a segment boundary', () => {
    for (const end of ['0/1000001', '0/10FFFFF', '0/1100000']) {
      const s = chooseStart(inputs({ ledger: ledger(end) }));
      expect(s.lsn % BigInt(MB)).toBe(0n as Lsn);
    }
  });
});
