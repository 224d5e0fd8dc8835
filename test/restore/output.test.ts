import { describe, expect, it, vi } from 'vitest';
import type { LocatedTarget } from '../../src/archive/targets/target.js';
import { nextSteps, planText } from '../../src/cli/restore/output.js';
import type { Lsn } from '../../src/lsn.js';
import type { RestorePlan } from '../../src/restore/options.js';
import { settingLines } from '../../src/restore/settings.js';
import type { TimestampTz } from '../../src/wal/records/timestamp.js';

const time = 849_535_200_000_000n as TimestampTz;
const located: LocatedTarget = {
  ...{ timeline: 1, lsn: 0x3000028n as Lsn, notes: [], segmentsRead: 1 },
  setting: { name: 'recovery_target_lsn', value: '0/3000028', inclusive: false },
  last: { lsn: 0x3000000n as Lsn, time, xid: 7 },
};
const point = { timeline: 1, lsn: 0x2000028n as Lsn, time: '2026-11-20T22:00:00.000Z' };

function plan(standby?: object): RestorePlan {
  const settings = settingLines({
    ...{ located, restoreCommand: 'x', action: 'pause', standby, configured: new Map() },
    ...{ keepArchiving: false, keepSync: false, control: undefined, serverVersion: 150004 },
  });
  return {
    backup: { id: '20261127T201500F-3fa91c', serverVersion: 150004, size: 1, end: point },
    ...{ place: '/a', target: { kind: 'time', time, inclusive: false }, located, settings },
    wal: { from: point.lsn, to: located.lsn, segments: 2, first: 'a', last: 'b' },
    ...{ dataDir: '/data', configDir: '/data', tablespaces: [], adopted: [], space: [] },
    ...{ action: 'pause', signalFile: standby ? 'standby.signal' : 'recovery.signal' },
  } as unknown as RestorePlan;
}

function planIn(zone: string): string {
  vi.stubEnv('TZ', zone);
  try {
    return planText(plan());
  } finally {
    vi.unstubAllEnvs();
  }
}

describe('the plan of a restore, for people', () => {
  it('has a time twice only where clocks here show another one', () => {
    expect(planIn('UTC')).not.toMatch(/here\)/);
    expect(planIn('UTC')).toMatch(/^last in +2026-12-02 14:00:00.000000\+00, transaction 7 at /m);
    expect(planIn('Asia/Tokyo')).toMatch(/^target .*\+00 \(.*\+09 here\)$/m);
    expect(planIn('Asia/Tokyo')).toMatch(/^last in .*\+00 \(.*\+09 here\), transaction 7/m);
  });

  it('says in one line what is emptied of earlier recoveries, and shows what is set', () => {
    const text = planText(plan());
    const emptied = plan().settings.filter((line) => / = ''$/.test(line)).length - 1;
    expect(text).toContain(`  (and ${emptied} settings of earlier recoveries emptied)`);
    // That commits wait for nobody is no matter of an earlier recovery.
    expect(text.match(/^.* = ''$/gm)).toEqual(["  synchronous_standby_names = ''"]);
    expect(text).toContain("  recovery_target_lsn = '0/3000028'");
  });
});

describe('what is to be done next', () => {
  const steps = (one: RestorePlan) => nextSteps({ plan: one, files: 1, bytes: 1, duration: 1 });

  it('explains a SELECT that waits where recovery has paused', () => {
    expect(steps(plan()).join('\n')).toMatch(/waits .* lock .* DROP TABLE.*pg_locks/);
    expect(steps({ ...plan(), action: 'promote' }).join('\n')).not.toMatch(/pg_locks/);
  });
});
