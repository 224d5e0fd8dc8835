import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { includedByAuthentication, includedBySettings } from '../../src/server/included-files.js';

describe('a file of settings', () => {
  const FROM = '/etc/postgresql/15/main/postgresql.conf';
  const read = (text: string) => includedBySettings(FROM, text);

  it('includes files and directories', () => {
    const text = [
      "include_dir = 'conf.d'\t\t# include files ending in '.conf' from",
      "  INCLUDE 'it''s.conf'",
      'include_if_exists /abs/x.conf # why',
      "include='../y\\'z.conf'",
      "include'near.conf'",
      'max_connections = 100',
    ].join('\r\n');
    expect(read(text)).toEqual([
      { path: '/etc/postgresql/15/main/conf.d', optional: false, directory: true },
      { path: "/etc/postgresql/15/main/it's.conf", optional: false },
      { path: '/abs/x.conf', optional: true },
      { path: "/etc/postgresql/15/y'z.conf", optional: false },
      { path: '/etc/postgresql/15/main/near.conf', optional: false },
    ]);
  });

  it.each([
    "#include_dir = 'conf.d'",
    "include_dir_x = 'y'",
    "includes 'x'",
    'include',
    "include ''",
  ])('includes nothing by %s', (line) => expect(read(line)).toEqual([]));
});

describe('a file of authentication', () => {
  const read = (text: string) => includedByAuthentication('/etc/pg/pg_hba.conf', text);

  it('includes by directives and by names with an at sign', () => {
    const text = [
      '# local @no all trust',
      'local @dbs,extra @"the users" trust # @not',
      'host "@name" all 10.0.0.0/8 \\\n  md5',
      'include more.conf',
      'include_if_exists "my rules"',
      'include_dir hba.d',
      'mymap /^(.*)@example\\.com$ \\1',
    ].join('\n');
    expect(read(text)).toEqual([
      { path: '/etc/pg/dbs', optional: false },
      { path: '/etc/pg/the users', optional: false },
      { path: '/etc/pg/more.conf', optional: false },
      { path: '/etc/pg/my rules', optional: true },
      { path: '/etc/pg/hba.d', optional: false, directory: true },
    ]);
  });
});

it('any text gives absolute paths', () => {
  const text = fc.string({ unit: 'binary', maxLength: 300 });
  const lines = fc.array(
    fc.oneof(
      text,
      fc.constantFrom('include ', "'", '"', '\\', '@', '\n', '#', 'include_dir =', 'x'),
    ),
  );
  fc.assert(
    fc.property(lines, (parts) => {
      const content = parts.join('');
      return [includedBySettings, includedByAuthentication].every((of) =>
        of('/etc/x', content).every(({ path }) => path.startsWith('/')),
      );
    }),
  );
  const long = `include '${"\\'".repeat(200_000)}`;
  expect(includedBySettings('/etc/x', long)).toEqual([]);
  expect(includedByAuthentication('/etc/x', '"'.repeat(200_001))).toEqual([]);
});
