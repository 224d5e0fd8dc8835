import { describe, expect, it } from 'vitest';
import type { OutsideFile } from '../../src/base/backup-record.js';
import { adoptFile, adoptOptions } from '../../src/restore/config/adopt.js';
import { adoptedDirectories, adoptedFiles } from '../../src/restore/config/adopted.js';

const file = (path: string, kind: OutsideFile['kind'] = 'authentication'): OutsideFile =>
  kind === 'directory' ? { path, kind } : { path, kind, object: `of ${path}` };

/** A text of a file, in its new place. */
function adopted(
  text: string,
  from: string,
  outside: OutsideFile[],
  { dataDir = '/new/data', configDir = '/new/etc', exists = (_: string): boolean => false } = {},
) {
  const notes: string[] = [];
  const files = adoptedFiles(outside, configDir, new Set([`${dataDir}/pg_hba.conf`]));
  const own = files.find((one) => one.from === from) ?? { from, to: from };
  const options = adoptOptions(
    { dataDir, configDir },
    files,
    adoptedDirectories(outside, configDir),
    { exists, oldDataDir: '/old/data', note: (message) => notes.push(message) },
  );
  const kind = /hba|ident|names/.test(from) ? 'authentication' : 'settings';
  return { text: adoptFile(text, kind, { ...options, file: own }), notes, files };
}

const MAIN = file('/etc/pg/main/postgresql.conf', 'settings');
const HBA = '/etc/pg/main/pg_hba.conf';

describe('a pg_hba.conf that goes elsewhere', () => {
  const outside = [
    MAIN,
    ...[file(HBA), file('/etc/pg/main/near.conf'), file('/etc/pg/main/names')],
    ...[file('/srv/far.conf'), file('/srv/my names'), file('/srv/hba.d', 'directory')],
    ...[file('/srv/hba.d/a.conf'), file('/srv/hba.d/b.conf')],
  ];

  it('leads to the new places of what it includes', () => {
    const { text, notes } = adopted(
      [
        '# include "/srv/far.conf", @/srv/my',
        'include near.conf',
        'include "/srv/far.conf"  # from the other',
        'include_if_exists /srv/far.conf',
        'include_if_exists /srv/none.conf',
        'include_dir /srv/hba.d',
        'local @names,@"/srv/my names",x @"/srv/my names" trust',
        'local "@/srv/far.conf" all trust',
        'local all \\',
        '  @/etc/pg/main/names md5',
        '',
      ].join('\n'),
      HBA,
      outside,
    );
    expect(text.split('\n')).toEqual([
      '# include "/srv/far.conf", @/srv/my',
      'include near.conf',
      'include "/new/etc/far.conf"  # from the other',
      'include_if_exists "/new/etc/far.conf"',
      'include_if_exists /srv/none.conf',
      '#include_dir /srv/hba.d  # walkeep restore',
      'include "/new/etc/a.conf"',
      'include "/new/etc/b.conf"',
      'local @names,@"/new/etc/my names",x @"/new/etc/my names" trust',
      'local "@/srv/far.conf" all trust',
      'local all \\',
      '  @"/new/etc/names" md5',
      '',
    ]);
    expect(notes).toEqual([]);
  });

  it('says what it leads to that nobody has, and does without', () => {
    const { text, notes } = adopted(
      'include /srv/gone.conf\nlocal all \\\n @/srv/lost trust\nlocal all all peer',
      HBA,
      outside,
    );
    expect(text).toBe(
      '#include /srv/gone.conf  # walkeep restore\n#local all \\\n# @/srv/lost trust  # walkeep restore\nlocal all all peer',
    );
    expect(notes).toEqual([
      expect.stringContaining('names "/srv/gone.conf", which the backup does not have'),
      expect.stringContaining('names "/srv/lost"'),
    ]);
    const there = adopted('include /srv/gone.conf\n', HBA, outside, { exists: () => true });
    expect(there).toMatchObject({ text: 'include /srv/gone.conf\n', notes: [] });
  });
});

describe('a postgresql.conf that goes elsewhere', () => {
  it('leads to what was optional, and to what was in the old data directory', () => {
    const outside = [MAIN, file('/srv/one.conf', 'settings')];
    const { text, notes } = adopted(
      [
        "include_if_exists '/srv/one.conf'",
        "include_if_exists '/srv/none.conf'",
        "include '/old/data/own.conf'",
        "hba_file = '/old/data/pg_hba.conf'",
        "include '/srv/gone.conf'",
      ].join('\n'),
      MAIN.path,
      outside,
    );
    const kept = text.split('\n').filter((line) => !line.startsWith('#'));
    expect(kept).toEqual([
      "include = '/new/etc/one.conf'",
      "include_if_exists '/srv/none.conf'",
      "include = '/new/data/own.conf'",
      "hba_file = '/new/data/pg_hba.conf'",
    ]);
    expect(notes).toEqual([expect.stringContaining('includes "/srv/gone.conf"')]);
  });
});

it('two files of one name both go somewhere, and none into the place of another', () => {
  const outside = [file('/a/pg_hba.conf'), file('/b/pg_hba.conf'), file('/c/extra.conf')];
  const { files } = adopted('', '/a/pg_hba.conf', outside, { configDir: '/new/data' });
  expect(files.map(({ to }) => to)).toEqual([
    '/new/data/1-pg_hba.conf',
    '/new/data/2-pg_hba.conf',
    '/new/data/extra.conf',
  ]);
});
