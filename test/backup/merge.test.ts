import { createHash } from 'node:crypto';
import { lstatSync, readdirSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { describe, expect, it } from 'vitest';
import { openBackupArea } from '../../src/archive/backups/area.js';
import { readBackups } from '../../src/archive/backups/catalog.js';
import { BackupReader } from '../../src/archive/backups/reader.js';
import type { ArchiveKeys } from '../../src/archive/places/open-archive.js';
import { mergeBackup } from '../../src/backup/merge.js';
import { parseManifest } from '../../src/base/manifest.js';
import { manifestBytes } from '../../src/base/manifest-writer.js';
import { TarReader } from '../../src/base/tar.js';
import { CorruptObjectError, EncryptedError, UsageError } from '../../src/errors.js';
import { openFileStore } from '../../src/store/file/file-store.js';
import { run } from '../cli/run.js';
import { ModelTable } from '../support/model-table.js';
import { scratchDir } from '../support/scratch.js';
import { type ChainOptions, storeChain } from '../support/stored-chain.js';

const GEOMETRY = { blockSize: 1024, segmentBlocks: 8 };
const TABLE = 'base/5/16384';
const MOVED = 'pg_tblspc/16388/PG_18_202506291/5/16390';
const DROPPED = 'base/5/16391';

/**
 * A chain of three in a directory archive, and what all files of each really were. A page is
 * of any of the three, and some were changed before each; a table is cut, one grows, one is dropped.
 */
async function chained(options: Partial<ChainOptions> = {}) {
  const place = scratchDir('merging');
  const store = await openFileStore(place, { init: true });
  const tables = [TABLE, MOVED, DROPPED].map((path) => ({ path, table: new ModelTable(GEOMETRY) }));
  for (const { table } of tables) table.grow(20);
  for (const { table } of tables) for (let b = 0; b < table.length; b++) table.vacuum(b);
  const backups: Map<string, Buffer>[] = [];
  const reals: Map<string, Buffer>[] = [];
  for (let n = 0; n < 3; n++) {
    const made = tables.map(({ path, table }) => table.backUp(path, n === 0));
    const plain = new Map([
      ['PG_VERSION', Buffer.from('18\n')],
      [Buffer.from('base/5/ü "name"').toString('latin1'), Buffer.from(`${n}`)],
      ['base/5/empty', Buffer.alloc(0)],
      [`pg_wal/00000001000000000000000${n}`, Buffer.alloc(2000, n)],
    ]);
    backups.push(new Map([...plain, ...made.flatMap(({ backup }) => [...backup])]));
    reals.push(new Map([...plain, ...made.flatMap((one) => [...one.real])]));
    for (const { table } of tables) for (const b of [1 + n, 4, 9 + n, 17]) table.change(b);
    if (n > 0) tables.splice(2);
    tables[n]?.table.truncate(18);
    // As after a crash: nothing was written there yet.
    if (n > 0) tables[0]?.table.grow(1, false);
    tables[1]?.table.grow(3);
  }
  const { records, files } = await storeChain(backups, { store, geometry: GEOMETRY, ...options });
  for (const [n, real] of reals.entries()) {
    const label = files[n]!.get('backup_label')!.toString();
    real.set('backup_label', Buffer.from(label.replace(/^INCREMENTAL FROM .*\n/gm, '')));
    real.set('global/pg_control', files[n]!.get('global/pg_control')!);
  }
  return { place, store, records, reals, real: reals.at(-1)! };
}

/** A key of its own, and the file that has it. */
async function key() {
  const identity = await generateX25519Identity();
  const file = join(scratchDir('identity'), 'identity');
  writeFileSync(file, identity);
  return { recipients: [await identityToRecipient(identity)], keys: { identityFiles: [file] } };
}

const idsIn = (place: string) => readdirSync(join(place, 'backups')).sort();

/** What a backup is made of: its files byte for byte, and what it says of them. */
async function contentsOf(place: string, id: string, keys: ArchiveKeys = {}) {
  const area = await openBackupArea(place, {});
  const found = (await readBackups(area)).find((one) => one.id === id);
  const reader = new BackupReader(area, found!.record!, keys);
  const index = await reader.index();
  const files = new Map<string, Buffer>();
  for (const [i, { name }] of index.tars.entries()) {
    const oid = reader.record.tars[i]?.oid;
    const root = oid === undefined ? '' : `pg_tblspc/${oid}/`;
    let content: Buffer[] = [];
    const tar = new TarReader({
      member: () => {
        content = [];
      },
      content: (piece) => void content.push(Buffer.from(piece)),
      done: (member) => {
        if (member.type !== 'file') return;
        files.set(`${root}${member.name}`, Buffer.concat(content));
      },
    });
    for (const piece of reader.pieces(index).filter((one) => one.tar === name)) {
      for await (const { content: bytes } of reader.read(piece)) tar.feed(bytes);
    }
    tar.end();
  }
  const manifest = parseManifest(await reader.content('backup_manifest'));
  const others = new Map<string, Buffer>();
  for (const { name } of reader.record.objects) {
    if (/^(claim\.json|base\.|16388\.|backup_manifest)/.test(name)) continue;
    others.set(name, await reader.object(name));
  }
  await area.close();
  return { files, manifest, others };
}

/** Files as they can be compared, and shown where they differ. */
function digests(files: ReadonlyMap<string, Buffer>) {
  const digest = (bytes: Buffer) => createHash('sha256').update(bytes).digest('hex');
  return Object.fromEntries(
    [...files].map(([path, bytes]) => [path, { size: bytes.length, sha256: digest(bytes) }]),
  );
}

/** All that a restore makes of a backup, with modes; each time at the same place. */
async function restored(place: string, id: string, root: string) {
  const owner = process.getuid?.() === 0 ? ['--owner', '65534:65534'] : [];
  const settings = ['--restore-command', 'false', '-T', `/old/16388=${root}/space`];
  const which = ['--backup', id, place, `${root}/data`];
  const { code, stderr } = await run('walkeep', 'restore', ...owner, ...settings, ...which);
  expect(code, stderr).toBe(0);
  const tree = new Map<string, Buffer>();
  // Names are bytes, in any encoding.
  for (const path of readdirSync(root, { recursive: true, encoding: 'latin1' })) {
    const at = Buffer.from(join(root, path), 'latin1');
    const stat = lstatSync(at);
    const link = () => (stat.isSymbolicLink() ? Buffer.from(readlinkSync(at)) : Buffer.alloc(0));
    const content = stat.isFile() ? readFileSync(at) : link();
    tree.set(`${stat.mode.toString(8)} ${path}`, content);
  }
  for (const path of readdirSync(root)) rmSync(join(root, path), { recursive: true });
  return tree;
}

describe('a chain that is merged', () => {
  it.each(['none', 'gzip'] as const)('is a full backup of its own: %s', async (codec) => {
    const outside = Buffer.from('local all all peer\n');
    const { place, records, real } = await chained({
      codec,
      // It needs no archive.
      record: { wal: 'included' },
      own: { 2: { others: { 'outside/000-pg_hba.conf': outside } } },
    });
    const last = records.at(-1)!;
    const {
      id,
      record,
      from,
      files: count,
    } = await mergeBackup({ place, id: last.id, keep: true });
    expect(from).toEqual(records.map((one) => one.id));
    expect(record).toMatchObject({ start: last.start, end: last.end, codec });
    expect(record).not.toHaveProperty('parent');
    expect(record).not.toHaveProperty('incrementalFrom');
    const { files, manifest, others } = await contentsOf(place, id);
    expect(digests(files)).toEqual(digests(real));
    expect(count).toBe(real.size);
    const listed = [...real].filter(([path]) => !/^pg_wal/.test(path));
    const inManifest = manifest.files.map(({ path, size, checksum, lastModified }) => {
      expect([checksum?.algorithm, lastModified]).toEqual(['SHA256', '2026-11-28 01:00:00 GMT']);
      return [path, { size, sha256: checksum?.hex }];
    });
    expect(Object.fromEntries(inManifest)).toEqual(digests(new Map(listed)));
    expect(inManifest).toHaveLength(listed.length);
    expect(manifest).toMatchObject({ version: 2, systemId: last.systemId });
    expect(manifest.walRanges).toEqual((await contentsOf(place, last.id)).manifest.walRanges);
    expect(Object.fromEntries(others)).toEqual({
      backup_label: real.get('backup_label'),
      pg_control: real.get('global/pg_control'),
      'outside/000-pg_hba.conf': outside,
    });
    expect(readdirSync(join(place, 'keep'))).toEqual([id]);
    expect(
      readdirSync(join(place, 'lease')).flatMap((l) => readdirSync(join(place, 'lease', l))),
    ).toEqual([]);

    // What is restored of it is to the byte what is restored of the chain, which has no manifest.
    const root = scratchDir('restored');
    const ofChain = await restored(place, last.id, root);
    const ofMerged = await restored(place, id, root);
    const manifestOf = [...ofMerged.keys()].filter((path) => path.endsWith('backup_manifest'));
    expect(manifestOf).toHaveLength(1);
    for (const path of manifestOf) ofMerged.delete(path);
    expect(digests(ofMerged)).toEqual(digests(ofChain));

    const { code, stdout } = await run('walkeep', 'verify', '--verify-pages', place);
    expect(stdout).toContain('and 4 base backups checked');
    expect({ code, stdout }).toMatchObject({
      code: 0,
      stdout: expect.stringContaining('all is well'),
    });
    // The server's own way of taking it: the last one is what it is based on.
    const again = await run('walkeep', 'backups', place, '--merge', id);
    expect(again.code).toBe(1);
    expect(again.stderr).toContain('is a full backup: there is nothing to merge');
  });

  it('is told of by the command', async () => {
    const { place, records, reals } = await chained();
    const { code, stdout } = await run('walkeep', 'backups', place, '--merge', records[1]!.id);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^\d{8}T\d{6}F-[0-9a-f]{6}: \d+ files/);
    expect(stdout).toContain(`${records[0]!.id}, ${records[1]!.id} make together`);
    const id = stdout.slice(0, stdout.indexOf(':'));
    expect(digests((await contentsOf(place, id)).files)).toEqual(digests(reals[1]!));
    const json = await run('walkeep', 'backups', place, '--json', '--merge', records[2]!.id);
    const said = JSON.parse(json.stdout) as { type: string; from: string[] };
    expect(said).toMatchObject({ type: 'merged', from: records.map(({ id }) => id) });
    const wrong = await run('walkeep', 'backups', place, '--merge', '20261128T000000I-000000');
    expect(wrong.stderr).toContain('has no complete backup');
  });

  it.each([[[0]], [[1]], [[2]], [[0, 1, 2]]])(
    'of which %j are encrypted is encrypted, or nothing is stored',
    async (encrypted) => {
      const { recipients, keys } = await key();
      const own = Object.fromEntries(encrypted.map((n) => [n, { recipients }]));
      const { place, records, real } = await chained({ own });
      const last = records.at(-1)!;
      const had = idsIn(place);
      const plain = await mergeBackup({ place, id: last.id, keys }).catch((e) => e);
      expect(plain).toBeInstanceOf(UsageError);
      expect(plain.message).toContain(`${records[encrypted[0]!]!.id} is encrypted`);
      expect(idsIn(place)).toEqual(had);

      const { id, record } = await mergeBackup({ place, id: last.id, keys, recipients });
      expect(record.encrypted).toBe(true);
      await expect(contentsOf(place, id)).rejects.toThrow(EncryptedError);
      const { files } = await contentsOf(place, id, keys);
      expect(digests(files)).toEqual(digests(real));
    },
  );

  it.each([
    [[true, true, true], true],
    [[true, false, true], false],
    [[false, true, true], false],
    [[true, true, false], false],
  ])('has checked pages only if all of the chain has: %j', async (checked, expected) => {
    const own = Object.fromEntries(
      checked.map((one, n) => [n, { record: { pageChecksums: { enabled: true, checked: one } } }]),
    );
    const { place, records } = await chained({ own });
    const { record } = await mergeBackup({ place, id: records.at(-1)!.id });
    expect(record.pageChecksums).toEqual({ enabled: true, checked: expected });
  });

  it('leaves nothing where a source is damaged, or it is stopped', async () => {
    const { place, records } = await chained({
      manifests: { 0: manifestBytes(7_000_000_000_000_000_001n, [], []) },
    });
    const had = idsIn(place);
    await expect(mergeBackup({ place, id: records[2]!.id })).rejects.toThrow(CorruptObjectError);
    expect(idsIn(place)).toEqual(had);

    const whole = await chained();
    const stop = new AbortController();
    const merging = mergeBackup({
      ...{ place: whole.place, id: whole.records[2]!.id, signal: stop.signal },
      onProgress: () => stop.abort(new Error('enough')),
    });
    await expect(merging).rejects.toThrow('enough');
    expect(idsIn(whole.place)).toEqual(whole.records.map(({ id }) => id).sort());
  });
});
