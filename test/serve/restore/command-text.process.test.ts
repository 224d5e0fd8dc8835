import { execFileSync } from 'node:child_process';
import fc from 'fast-check';
import { expect, it } from 'vitest';
import { commandText } from '../../../src/serve/restore/command-text.js';
import { planOf, QUERY, workOf } from './works.js';

/** The words that a shell makes of a command. */
function wordsOf(command: string): string[] {
  const script = `walkeep() { printf '%s\\0' "$@"; }\n${command}\n`;
  return execFileSync('/bin/sh', ['-c', script], { encoding: 'utf8' }).split('\0').slice(0, -1);
}

const NARROW = 80;

it('is one command in lines that are narrow', () => {
  const stores = [
    { name: 'minio', place: 's3://wal/shop?endpoint=https://minio.example:9000&region=eu' },
    { name: 'nas', place: 'ssh://backup@nas/wal/shop', identityFile: '/etc/walkeep/identity' },
  ];
  const query = { ...QUERY, from: ['directory', 'minio', 'nas'], action: 'promote' as const };
  const command = commandText(planOf(), query, workOf('/srv/wal', stores));
  expect(command).toBe(`walkeep restore --to='0/5000028' --before --timeline=1 --action=promote \\
  --identity=/etc/walkeep/identity /srv/wal \\
  's3://wal/shop?endpoint=https://minio.example:9000&region=eu' \\
  ssh://backup@nas/wal/shop /var/lib/postgresql/data`);
  expect(command.split('\n').every((line) => line.length < NARROW)).toBe(true);
  expect(wordsOf(command)).toEqual([
    ...['restore', '--to=0/5000028', '--before', '--timeline=1', '--action=promote'],
    ...['--identity=/etc/walkeep/identity', '/srv/wal', stores[0]?.place, stores[1]?.place],
    '/var/lib/postgresql/data',
  ]);
});

it('names the backup whose end is meant, and no action for the end of the archive', () => {
  const target = ['--to', 'immediate', '--backup', '20260801T000000F-000000'];
  const query = { ...QUERY, backup: '20260801T000000F-000000' };
  expect(wordsOf(commandText(planOf({ target }), query, workOf()))).toEqual([
    ...['restore', '--to=immediate', '--backup=20260801T000000F-000000', '--timeline=1'],
    ...['/srv/wal', '/var/lib/postgresql/data'],
  ]);
  const latest = planOf({ target: ['--to', 'latest'], isLatest: true });
  const asked = { ...QUERY, to: 'latest', action: 'promote' as const };
  expect(wordsOf(commandText(latest, asked, workOf()))[1]).toBe('--to=latest');
  expect(commandText(latest, asked, workOf())).not.toContain('--action');
});

it('gives each value to the command as it is, whatever is in it', () => {
  const hostile = [
    "it's",
    '$(id)',
    '`id`',
    'a b',
    '"',
    '\\',
    '*',
    '~',
    '#x',
    ';&|',
    '%p',
    'é',
    '!x',
  ];
  const part = fc.oneof(fc.constantFrom(...hostile), fc.string({ minLength: 1, maxLength: 60 }));
  const path = part.map((text) => `/${text.replace(/\p{Cc}/gu, '')}`);
  fc.assert(
    fc.property(path, path, path, (directory, dataDir, identityFile) => {
      const work = workOf(directory, [{ name: 'minio', identityFile }]);
      const query = { ...QUERY, dataDir, from: ['directory', 'minio'] };
      const words = wordsOf(commandText(planOf(), query, work));
      expect(words.slice(-4)).toEqual([
        `--identity=${identityFile}`,
        directory,
        's3://wal0/shop',
        dataDir,
      ]);
    }),
    { numRuns: 100 },
  );
});
