import { execFileSync } from 'node:child_process';
import { describe, expect, it } from 'vitest';
import type { LocatedTarget } from '../../src/archive/targets/target.js';
import type { Lsn } from '../../src/lsn.js';
import {
  hasBlock,
  quoted,
  settingOf,
  settingsIn,
  withBlock,
  without,
} from '../../src/restore/config-file.js';
import {
  type RecoverySettings,
  restoreCommandOf,
  settingLines,
} from '../../src/restore/settings.js';

const control = {
  max_connections: 300,
  max_worker_processes: 8,
  max_wal_senders: 10,
  max_prepared_transactions: 5,
  max_locks_per_transaction: 64,
};

function lines(
  setting: LocatedTarget['setting'],
  more: Partial<RecoverySettings> = {},
): Map<string, string> {
  const located = { timeline: 3, lsn: 1n as Lsn, setting, notes: [], segmentsRead: 0 };
  const all = settingLines({
    ...{ located, restoreCommand: 'cmd', action: 'pause', keepArchiving: false, keepSync: false },
    ...{ control, configured: new Map(), serverVersion: 150004, standby: undefined, ...more },
  });
  return settingsIn(all.join('\n'));
}

describe('the settings of a recovery', () => {
  it('have one target, behind those that are taken away', () => {
    const found = lines({ name: 'recovery_target_lsn', value: '0/5', inclusive: false });
    const targets = [...found].filter(([name]) =>
      /^recovery_target(_lsn|_name|_time|_xid)?$/.test(name),
    );
    expect(targets.map(([, value]) => value)).toEqual(['', '', '', '', '0/5']);
    expect(targets.at(-1)?.[0]).toBe('recovery_target_lsn');
    expect(found.get('recovery_target_inclusive')).toBe('false');
    expect(found.get('recovery_target_timeline')).toBe('3');
    expect(found.get('recovery_target_action')).toBe('pause');
  });

  it('keep a server from asking for WAL that is missing behind its target', () => {
    const setting = { name: 'recovery_target_lsn', value: '0/5', inclusive: true } as const;
    const found = { timeline: 3, lsn: 1n as Lsn, notes: [], segmentsRead: 0 };
    const located = { ...found, setting, gap: { isPartial: false } };
    expect(lines(setting, { located }).get('recovery_prefetch')).toBe('off');
    expect(lines(setting).has('recovery_prefetch')).toBe(false);
    const old = { located, serverVersion: 140011 };
    expect(lines(setting, old).has('recovery_prefetch')).toBe(false);
    expect(restoreCommandOf({ places: ['/a'], program: '/w', allowTorn: true })).toMatch(
      / fetch --prefetch \d+ --allow-torn \/a %f %p$/,
    );
  });

  it('have no action where there is no target', () => {
    const found = lines(undefined);
    expect(found.has('recovery_target_action')).toBe(false);
    expect(found.get('recovery_target_timeline')).toBe('3');
  });

  it('let a standby follow whatever timeline', () => {
    const found = lines(undefined, { standby: { conninfo: "host=a password='x'" } });
    expect(found.get('recovery_target_timeline')).toBe('latest');
    expect(found.get('primary_conninfo')).toBe("host=a password='x'");
  });

  it('have what the WAL counts on at least, and not less than the server had', () => {
    const found = lines(undefined);
    expect(found.get('max_connections')).toBe('300');
    expect(found.get('max_prepared_transactions')).toBe('5');
    expect(found.has('max_worker_processes')).toBe(false);
    const more = lines(undefined, { configured: new Map([['max_connections', '500']]) });
    expect(more.has('max_connections')).toBe(false);
    const odd = lines(undefined, { configured: new Map([['max_connections', 'x']]) });
    expect(odd.get('max_connections')).toBe('300');
  });

  it('turn off what reaches out to the world of the lost server, unless it is wanted', () => {
    const found = lines(undefined);
    expect(found.get('archive_mode')).toBe('off');
    expect(found.get('synchronous_standby_names')).toBe('');
    const kept = lines(undefined, { keepArchiving: true, keepSync: true });
    expect(kept.has('archive_mode')).toBe(false);
    expect(kept.has('synchronous_standby_names')).toBe(false);
  });

  it('name no setting that a version has not', () => {
    expect(lines(undefined).has('promote_trigger_file')).toBe(true);
    expect(lines(undefined, { serverVersion: 160000 }).has('promote_trigger_file')).toBe(false);
  });
});

describe('the restore_command', () => {
  it('runs with an empty environment, and gives places as they are', () => {
    const places = ["/arch ive/it's", 's3://bucket/a%20b', '/100%'];
    const command = restoreCommandOf({
      ...{ places, identityFiles: ['/keys/a b'], identityCommand: "pass 'x y'" },
      program: '/tmp/echo it',
      nodeDirectory: '/opt/node/bin',
    });
    expect(command.startsWith("PATH=/opt/node/bin:/usr/bin:/bin '/tmp/echo it' fetch ")).toBe(true);
    expect(command.endsWith(' %f %p')).toBe(true);
    // As PostgreSQL makes a command of it.
    const made = command.replace(/%(.)/g, (_, c: string) =>
      c === 'f' ? 'FILE' : c === 'p' ? 'PATH' : c,
    );
    const asked = made.replace("'/tmp/echo it'", `printf '%s\\n'`);
    const words = execFileSync('/bin/sh', ['-c', asked], { env: {}, encoding: 'utf8' }).split('\n');
    expect(words.slice(0, -1)).toEqual([
      ...['fetch', '--prefetch', '4', '--identity', '/keys/a b'],
      ...['--identity-command', "pass 'x y'", ...places, 'FILE', 'PATH'],
    ]);
  });
});

describe('a file of settings', () => {
  it.each([
    ["a = 'x'", 'a', 'x'],
    ["A.b 'it''s'  # why", 'a.b', "it's"],
    ['  n=5', 'n', '5'],
    ["e = 'a\\\\b\\'c\\061'", 'e', "a\\b'c1"],
    ['on_off on', 'on_off', 'on'],
  ])('%s', (line, name, value) => {
    expect(settingOf(line)).toEqual({ name, value });
  });

  it.each(['# a = 1', '', 'a', "include 'x' y", "a = 'x"])('has nothing in %j', (line) => {
    expect(settingOf(line)).toBeUndefined();
  });

  it('keeps a value through quotes', () => {
    for (const value of ['', "it's", 'a\\b', 'tab\tline\nend', '%p']) {
      expect(settingOf(`a = ${quoted(value)}`)?.value).toBe(value);
    }
  });

  it('is as before when its block is taken out', () => {
    for (const text of ['', 'a = 1\n', '# c\n\nb = 2\n']) {
      const changed = withBlock(text, ['x = 1']);
      expect(hasBlock(changed)).toBe(true);
      expect(settingsIn(changed).get('x')).toBe('1');
      expect(without(changed)).toBe(text);
      expect(hasBlock(text)).toBe(false);
    }
    // One that a backup brought along is replaced.
    const twice = withBlock(without(withBlock('a = 1\n', ['x = 1'])), ['x = 2']);
    expect(twice).toBe('a = 1\n# walkeep restore begin\nx = 2\n# walkeep restore end\n');
    expect(without('a = 1\nb = 2\n', (name) => name === 'a')).toBe('b = 2\n');
  });
});
