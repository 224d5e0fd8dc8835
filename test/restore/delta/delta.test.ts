import { createHash } from 'node:crypto';
import {
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { describe, expect, it } from 'vitest';
import type { OutsideFile } from '../../../src/base/backup-record.js';
import type { Lsn } from '../../../src/lsn.js';
import { openFileStore } from '../../../src/store/file/file-store.js';
import { crc32c } from '../../../src/wal/crc32c.js';
import { run } from '../../cli/run.js';
import { scratchDir } from '../../support/scratch.js';
import { type Made, type StoreBackup, storeBackup, tarOf } from '../../support/stored-backup.js';
import { archiveOf, SEGMENT, SYSTEM_ID } from '../../support/wal-archive.js';
import { loadFixture } from '../../wal/fixtures.js';
import { controlFile, deltaBackup, PARTS } from './fixtures.js';

const { start } = loadFixture('switch');
const { base, options } = deltaBackup(SYSTEM_ID);

interface Lost {
  dir: string;
  root: string;
  data: string;
  one: string;
  args: string[];
}

/** A directory that was restored from an archive, as a server that ran on it would have it. */
async function lost(backup: Partial<StoreBackup> = {}, args: string[] = []): Promise<Lost> {
  const { dir } = archiveOf('switch');
  const store = await openFileStore(dir, { init: true });
  const point = { timeline: 1, time: '2026-11-20T21:58:00.000Z' };
  await storeBackup({
    ...{ store, frame: 5000, volume: 16_000, ...options, ...backup },
    record: {
      ...{ systemId: SYSTEM_ID, segmentSize: SEGMENT, serverVersion: 180004 },
      start: { ...point, lsn: (start + 0x28n) as Lsn },
      end: { ...point, lsn: (start + 0x80n) as Lsn },
      tablespaces: [
        { oid: 16388, location: '/old/space', inPlace: false },
        { oid: 16389, location: 'pg_tblspc/16389', inPlace: true },
      ],
      ...backup.record,
    },
  });
  await store.close();
  const root = scratchDir('lost', { forServer: true });
  const made = { dir, root, data: join(root, 'data'), one: join(root, 'one'), args };
  const restored = await restore(made);
  expect(restored.stderr).toMatch(/restored/);
  writeFileSync(join(made.data, 'global/pg_control'), controlFile(SYSTEM_ID, { time: 5 }));
  for (const name of ['backup_label', 'tablespace_map', 'recovery.signal']) {
    rmSync(join(made.data, name));
  }
  return made;
}

function restore({ dir, data, one, args }: Lost, ...more: string[]) {
  const mapping = more.includes('-T') ? [] : ['-T', `/old/space=${one}`];
  const own = [...mapping, '--restore-command', 'x', ...args, ...more];
  return run('walkeep', 'restore', ...own, dir, data);
}

function treeOf(path: string, name = '', found: Record<string, string> = {}) {
  for (const entry of readdirSync(path, { withFileTypes: true })) {
    const [at, as] = [join(path, entry.name), `${name}/${entry.name}`];
    if (entry.isDirectory()) treeOf(at, as, found);
    else if (entry.isSymbolicLink()) found[as] = `-> ${readlinkSync(at)}`;
    else found[as] = readFileSync(at).toString('latin1');
  }
  return found;
}

const flipped = (name: string): Buffer => {
  const content = Buffer.from(base.find((one) => one.name === name)?.content as Buffer);
  content[12_000] = (content[12_000] as number) ^ 1;
  return content;
};

describe('walkeep restore --delta', () => {
  const identity = generateX25519Identity();
  it.each([
    ['none', {}],
    ['gzip', {}],
    ['lz4', {}],
    ['gzip, encrypted', { encrypted: true }],
    ['gzip, a manifest without checksums', { bare: true }],
  ] as const)(
    'makes the same again, of %s',
    async (what, { encrypted, bare }: { encrypted?: boolean; bare?: boolean }) => {
      const codec = what.split(',')[0] as 'none';
      const key = await identity;
      const file = join(scratchDir('key'), 'key');
      writeFileSync(file, `${key}\n`);
      const made = await lost(
        {
          codec,
          ...(encrypted ? { recipients: [await identityToRecipient(key)] } : {}),
          ...(bare ? { others: { backup_manifest: withoutChecksums() } } : {}),
        },
        encrypted ? ['--identity', file] : [],
      );
      const again = await restore(made, '--delta');
      expect(again.stderr).toMatch(/restored/);
      const whole = treeOf(made.root);
      for (const name of PARTS) writeFileSync(join(made.data, name), flipped(name));
      writeFileSync(join(made.data, 'base/5/small'), 'yy');
      const planned = await restore(made, '--delta', '-n', '--json');
      const { compared } = JSON.parse(planned.stdout).delta;
      if (bare) expect(compared.same.bytes).toBeGreaterThan(40_000);
      else expect(compared.same.bytes).toBeGreaterThan(60_000);
      const once = await restore(made, '--delta');
      expect(once.stderr).toMatch(/same: .* in \d+ files/);
      expect(once.code).toBe(0);
      expect(treeOf(made.root)).toEqual(whole);
    },
  );

  it.each(['none', 'gzip'] as const)(
    'takes no CRC32C for a proof of what has SHA-256 too, %s',
    async (codec) => {
      const { options } = deltaBackup(SYSTEM_ID, undefined, 'CRC32C');
      const made = await lost({ codec, ...options });
      const path = join(made.data, 'base/5/parts');
      const whole = readFileSync(path);
      const changed = Buffer.from(whole);
      // The polynomial itself: added anywhere it leaves the CRC as it is.
      const polynomial = Buffer.alloc(8);
      polynomial.writeBigUInt64LE(0x1n | (0x82f63b78n << 1n));
      for (const [i, byte] of polynomial.entries()) changed[12_000 + i]! ^= byte;
      expect([crc32c(changed), changed.equals(whole)]).toEqual([crc32c(whole), false]);
      writeFileSync(path, changed);
      const done = await restore(made, '--delta');
      expect(done.stderr).toMatch(/same: /);
      expect(readFileSync(path).equals(whole)).toBe(true);
    },
  );

  it('writes to no file that has another name elsewhere, and through no link', async () => {
    const made = await lost();
    const parts = join(made.data, 'base/5/parts');
    writeFileSync(parts, flipped('base/5/parts'));
    linkSync(parts, join(made.root, 'copy'));
    const small = join(made.data, 'base/5/small');
    renameSync(small, join(made.root, 'theirs'));
    writeFileSync(join(made.root, 'theirs'), 'theirs');
    symlinkSync(join(made.root, 'theirs'), small);
    const log = join(made.root, 'logs');
    mkdirSync(log);
    writeFileSync(join(log, 'log'), 'log');
    symlinkSync(log, join(made.data, 'log'));
    rmSync(join(made.data, 'pg_replslot'), { recursive: true });
    symlinkSync(log, join(made.data, 'pg_replslot'));
    const done = await restore(made, '--delta');
    expect(done.code, done.stderr).toBe(0);
    expect(readFileSync(join(made.root, 'copy')).equals(flipped('base/5/parts'))).toBe(true);
    expect(readFileSync(parts).equals(flipped('base/5/parts'))).toBe(false);
    expect(readFileSync(join(made.root, 'theirs'), 'utf8')).toBe('theirs');
    expect(readFileSync(small, 'utf8')).toBe('x');
    expect(lstatSync(join(made.data, 'pg_replslot')).isDirectory()).toBe(true);
    expect(readdirSync(log)).toEqual(['log']);
  });

  it('replaces a link to a configuration, again and again, and not what it leads to', async () => {
    const outside: OutsideFile[] = [
      { path: '/etc/pg/pg_hba.conf', kind: 'authentication', object: 'outside.0' },
    ];
    const others = { ...options.others, 'outside.0': Buffer.from('local all all peer\n') };
    const tars = (options.tars ?? []).map((tar) =>
      tar.name === 'base.tar'
        ? { ...tar, bytes: tarOf(base.filter(({ name }) => name !== 'pg_hba.conf')) }
        : tar,
    );
    const made = await lost({ others, tars, record: { outside } });
    const theirs = join(made.root, 'theirs');
    writeFileSync(theirs, 'host all all ::/0 scram\n');
    for (let n = 0; n < 2; n++) {
      for (const name of ['pg_hba.conf', 'postgresql.conf']) {
        rmSync(join(made.data, name));
        symlinkSync(theirs, join(made.data, name));
      }
      const done = await restore(made, '--delta');
      expect(done.code, done.stderr).toBe(0);
      expect(readFileSync(theirs, 'utf8')).toBe('host all all ::/0 scram\n');
      expect(readFileSync(join(made.data, 'pg_hba.conf'), 'utf8')).toBe('local all all peer\n');
      expect(lstatSync(join(made.data, 'postgresql.conf')).isFile()).toBe(true);
    }
  });

  it('follows a pg_wal that is a link, and puts what it leads to aside', async () => {
    const made = await lost();
    const wal = join(made.root, 'wal');
    renameSync(join(made.data, 'pg_wal'), wal);
    symlinkSync(wal, join(made.data, 'pg_wal'));
    writeFileSync(join(wal, '00000001000000000000000F'), 'wal');
    const done = await restore(made, '--delta');
    expect(done.code, done.stderr).toBe(0);
    expect(readlinkSync(join(made.data, 'pg_wal'))).toBe(wal);
    expect(readdirSync(wal)).toEqual(['archive_status']);
    const [aside] = readdirSync(made.root).filter((name) => name.startsWith('wal.'));
    expect(readdirSync(join(made.root, aside as string))).toContain('00000001000000000000000F');
    expect(done.stderr).toContain(`rm -r ${join(made.root, aside as string)}`);

    // Elsewhere: the old one stays where it is.
    const other = join(made.root, 'other');
    writeFileSync(join(wal, '00000001000000000000000F'), 'wal');
    const moved = await restore(made, '--delta', '--waldir', other);
    expect(moved.code, moved.stderr).toBe(0);
    expect(readlinkSync(join(made.data, 'pg_wal'))).toBe(other);
    expect(readdirSync(wal)).toContain('00000001000000000000000F');
  });

  it('makes again what the backup has of an earlier delta, and ends', async () => {
    const old = 'pg_wal.20261128T101500Z';
    const more: Made[] = [
      { name: old, type: 'directory' },
      { name: `${old}/00000001000000000000000E`, content: 'wal' },
      { name: `${old}/archive_status`, type: 'directory' },
      { name: 'conf.d', type: 'directory' },
      { name: 'conf.d/one.conf.20261128T101500Z', content: 'kept' },
      { name: '.walkeep-delta', content: '{}' },
      { name: '.walkeep-delta.tmp', content: '{}' },
    ];
    const made = await lost(deltaBackup(SYSTEM_ID, (base) => [...base, ...more]).options);
    expect((await restore(made, '--delta')).code).toBe(0);
    const whole = treeOf(made.data);
    expect(whole).toHaveProperty([`/${old}/00000001000000000000000E`], 'wal');
    const theirs = { [`/${old}/theirs`]: 'theirs', '/pg_wal.20261128T101501Z/0': 'other' };
    for (const round of ['as it was', 'changed', 'gone']) {
      const file = join(made.data, old, '00000001000000000000000E');
      if (round === 'changed') writeFileSync(file, 'xxx');
      if (round === 'gone') rmSync(join(made.data, old), { recursive: true });
      else writeFileSync(join(made.data, old, 'theirs'), 'theirs');
      mkdirSync(join(made.data, 'pg_wal.20261128T101501Z'), { recursive: true });
      writeFileSync(join(made.data, 'pg_wal.20261128T101501Z/0'), 'other');
      const done = await restore(made, '--delta');
      expect(done.code, `${round}: ${done.stderr}`).toBe(0);
      const found = treeOf(made.data);
      if (round === 'as it was') expect(found['/.walkeep-delta']).toBeUndefined();
      const kept = Object.keys(found).filter((name) => /0E\.\d{8}T\d{6}Z$/.test(name));
      expect(kept).toHaveLength(round === 'changed' ? 1 : 0);
      for (const name of kept) {
        expect(found[name]).toBe('xxx');
        rmSync(join(made.data, name));
        delete found[name];
      }
      for (const [name, content] of Object.entries(theirs)) {
        if (round === 'gone' && name.startsWith(`/${old}/`)) continue;
        expect(found).toHaveProperty([name], content);
        delete found[name];
      }
      expect(found).toEqual(whole);
    }
  });

  it('keeps configuration that it replaces by what was outside the data directory', async () => {
    const outside: OutsideFile[] = [
      { path: '/etc/pg/postgresql.conf', kind: 'settings', object: 'outside.0' },
      { path: '/etc/pg/pg_hba.conf', kind: 'authentication', object: 'outside.1' },
      { path: '/etc/pg/pg_ident.conf', kind: 'authentication', object: 'outside.2' },
      { path: '/etc/pg/people', kind: 'settings', object: 'outside.3' },
    ];
    const bare = (name: string) => !/^(postgresql|pg_hba)\.conf$/.test(name);
    const others = {
      ...options.others,
      'outside.0': Buffer.from("hba_file = '/etc/pg/pg_hba.conf'\n"),
      'outside.1': Buffer.from('local all all peer\n'),
      'outside.2': Buffer.from('# none\n'),
      'outside.3': Buffer.from('# people\n'),
    };
    const tars = (options.tars ?? []).map((tar) =>
      tar.name === 'base.tar'
        ? { ...tar, bytes: tarOf(base.filter(({ name }) => bare(name))) }
        : tar,
    );
    const made = await lost({ others, tars, record: { outside } });
    const whole = treeOf(made.data);
    expect(whole['/pg_hba.conf']).toBe('local all all peer\n');
    const edited = { 'pg_hba.conf': 'host all all ::/0 scram\n', 'postgresql.conf': 'port = 7\n' };
    for (const [name, text] of Object.entries(edited)) writeFileSync(join(made.data, name), text);
    rmSync(join(made.data, 'people'));
    mkdirSync(join(made.data, 'people'));
    writeFileSync(join(made.data, 'people', 'theirs'), 'theirs');
    const planned = await restore(made, '--delta', '-n', '--json');
    const kept = JSON.parse(planned.stdout).delta.compared.kept;
    const names = ['people', ...Object.keys(edited)].sort();
    expect(kept.map(({ path }: { path: string }) => path).sort()).toEqual(
      names.map((name) => join(made.data, name)),
    );
    for (let n = 0; n < 2; n++) {
      const done = await restore(made, '--delta');
      expect(done.code, done.stderr).toBe(0);
      const found = treeOf(made.data);
      for (const name of Object.keys(edited)) expect(found[`/${name}`]).toBe(whole[`/${name}`]);
      expect(found['/people']).toBe('# people\n');
      const copies = readdirSync(made.data).filter((name) => /\.conf\.\d{8}T/.test(name));
      const texts = copies.map((name) => readFileSync(join(made.data, name), 'utf8'));
      expect(texts).toEqual(expect.arrayContaining(Object.values(edited)));
      // Of what a restore has made of one nobody can tell that it was not edited, once.
      expect(copies).toHaveLength(n === 0 ? 2 : 3);
      const [theirs] = readdirSync(made.data).filter((name) => /^people\.\d{8}T/.test(name));
      expect(readdirSync(join(made.data, theirs as string))).toEqual(['theirs']);
    }
  });

  it("renames what is of another kind than in the backup, where it is not the server's", async () => {
    const more: Made[] = [
      { name: 'notes', content: 'notes' },
      { name: 'plans', type: 'directory' },
      { name: 'plans/one', content: 'one' },
    ];
    const made = await lost(deltaBackup(SYSTEM_ID, (base) => [...base, ...more]).options);
    const whole = treeOf(made.data);
    rmSync(join(made.data, 'notes'));
    mkdirSync(join(made.data, 'notes'));
    writeFileSync(join(made.data, 'notes', 'theirs'), 'theirs');
    rmSync(join(made.data, 'plans'), { recursive: true });
    writeFileSync(join(made.data, 'plans'), 'a file');
    rmSync(join(made.data, 'base/5/small'));
    mkdirSync(join(made.data, 'base/5/small'));
    const done = await restore(made, '--delta');
    expect(done.code, done.stderr).toBe(0);
    const found = treeOf(made.data);
    for (const name of ['/notes', '/plans/one', '/base/5/small']) {
      expect(found[name], name).toBe(whole[name]);
    }
    const copy = (name: RegExp) => Object.entries(found).find(([path]) => name.test(path))?.[1];
    expect(copy(/^\/notes\.\d{8}T\d{6}Z\/theirs$/)).toBe('theirs');
    expect(copy(/^\/plans\.\d{8}T\d{6}Z$/)).toBe('a file');
    expect(readdirSync(join(made.data, 'base/5')).filter((n) => /small/.test(n))).toEqual([
      'small',
    ]);
  });

  it('refuses what is not the place of a tablespace', async () => {
    const made = await lost();
    const before = treeOf(made.root);
    const other = join(made.root, 'other');
    const mapped = await restore(made, '--delta', '-T', `/old/space=${other}`);
    expect(mapped).toMatchObject({
      code: 3,
      stderr: expect.stringContaining(`-T OLD=${made.one}`),
    });
    expect(treeOf(made.root)).toEqual(before);
    rmSync(join(made.data, 'pg_tblspc/16388'));
    const without = treeOf(made.root);
    const foreign = await restore(made, '--delta');
    expect(foreign).toMatchObject({
      code: 3,
      stderr: expect.stringContaining('none of the server'),
    });
    expect(treeOf(made.root)).toEqual(without);
  });

  it('restores into a directory that is empty, and goes on with a restore that was none of deltas', async () => {
    const made = await lost();
    rmSync(made.data, { recursive: true });
    rmSync(made.one, { recursive: true });
    const fresh = await restore(made, '--delta');
    expect(fresh.code, fresh.stderr).toBe(0);
    expect(existsSync(join(made.data, 'global/pg_control'))).toBe(true);
  });
});

/** As a server without manifest checksums writes it. */
function withoutChecksums(): Buffer {
  const text = ((options.others as Record<string, Buffer>).backup_manifest as Buffer).toString(
    'utf8',
  );
  const bare = text.replace(/, "Checksum-Algorithm": "SHA256", "Checksum": "[0-9a-f]+"/g, '');
  const lines = bare.slice(0, bare.indexOf('"Manifest-Checksum"'));
  return Buffer.from(`${lines}"Manifest-Checksum": "${sha256(lines)}"}\n`);
}

function sha256(text: string): string {
  return createHash('sha256').update(text).digest('hex');
}
