import { expect, test } from 'vitest';
import {
  parseSyncStandbyNames,
  type SyncStandbyNames,
} from '../../src/protocol/sync-standby-names.js';
import { peerWarnings } from '../../src/server/sync-peers.js';
import { type SyncStandbyOptions, syncWarnings } from '../../src/server/sync-standby.js';

const codes = (
  setting: string | undefined,
  options: Partial<SyncStandbyOptions> = {},
  commit: string | undefined = 'on',
) => {
  const all = { applicationName: 'walkeep', synchronous: true, apply: 'none', ...options } as const;
  return syncWarnings(setting, commit, all).map((w) => w.code);
};

test.each<[string | undefined, Partial<SyncStandbyOptions>, string | undefined, string[]]>([
  // Nobody waits for us.
  ['', {}, 'on', []],
  ['', { synchronous: false }, 'remote_apply', []],
  ['other, third', { synchronous: false }, 'remote_apply', []],
  ['walkeep', { applicationName: 'renamed', synchronous: false }, 'on', []],
  // One of several.
  ['ANY 1 (walkeep, other)', {}, 'on', []],
  ['walkeep, other', {}, undefined, []],
  ['ANY 1 (walkeep, other)', { synchronous: false }, 'on', ['WK_SYNC_HANG']],
  ['ANY 1 (walkeep, other)', {}, 'remote_apply', ['WK_SYNC_APPLY']],
  ['ANY 1 (walkeep, other)', { apply: 'flush' }, 'remote_apply', ['WK_SYNC_APPLY_OTHERS']],
  [
    'ANY 1 (WALKEEP, other)',
    { synchronous: false },
    'remote_apply',
    ['WK_SYNC_HANG', 'WK_SYNC_APPLY'],
  ],
  // Nobody else to wait for.
  ['walkeep', {}, 'on', ['WK_SYNC_ONLY']],
  ['walkeep', { apply: 'flush' }, 'remote_apply', ['WK_SYNC_ONLY']],
  ['walkeep', { synchronous: false }, 'on', ['WK_SYNC_HANG', 'WK_SYNC_ONLY']],
  ['FIRST 2 (walkeep, other)', {}, 'on', ['WK_SYNC_ONLY']],
  ['2 (walkeep, other)', { apply: 'flush' }, 'on', ['WK_SYNC_ONLY', 'WK_SYNC_APPLY_OTHERS']],
  // What is not known is said to be unknown.
  [undefined, {}, undefined, ['WK_SYNC_UNKNOWN']],
  ['NEW SYNTAX (walkeep)', {}, 'on', ['WK_SYNC_UNKNOWN']],
  ['*', {}, 'on', []],
  ['*', { synchronous: false }, 'on', ['WK_SYNC_HANG']],
  ['*', { apply: 'flush' }, 'on', ['WK_SYNC_APPLY_OTHERS']],
])('%j with %j and synchronous_commit %s warns %j', (setting, options, commit, expected) => {
  expect(codes(setting, options, commit)).toEqual(expected);
});

test('says what hangs and what to do about it', () => {
  const [warning] = syncWarnings('walkeep, other', 'on', {
    applicationName: 'walkeep',
    synchronous: false,
    apply: 'none',
  });
  expect(warning).toEqual({
    code: 'WK_SYNC_HANG',
    message:
      '"walkeep" is listed in synchronous_standby_names, but --synchronous is off: commits that wait for this receiver will hang',
    hint: 'Start with --synchronous, or give it another application_name.',
  });
});

test.each<[string, string[] | undefined, string[]]>([
  // Only we are listed: that is said from the setting alone.
  ['walkeep', undefined, []],
  ['ANY 1 (walkeep, other)', ['walkeep', 'OTHER'], []],
  ['ANY 1 (walkeep, other)', ['walkeep', 'third'], ['WK_SYNC_ALONE']],
  ['ANY 1 (walkeep, other)', [], ['WK_SYNC_ALONE']],
  ['ANY 1 (walkeep, other)', undefined, ['WK_SYNC_UNKNOWN']],
  ['*', ['walkeep', 'third'], []],
  ['*', ['walkeep'], ['WK_SYNC_ALONE']],
  ['*', undefined, ['WK_SYNC_UNKNOWN']],
])('%j with %j connected warns %j', (setting, connected, expected) => {
  const parsed = parseSyncStandbyNames(setting) as SyncStandbyNames;
  expect(peerWarnings(parsed, 'walkeep', connected).map((w) => w.code)).toEqual(expected);
});
