import { readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { generateX25519Identity, identityToRecipient } from 'age-encryption';
import { describe, expect, it } from 'vitest';
import { openBackupArea } from '../../src/archive/backups/area.js';
import { readBackups } from '../../src/archive/backups/catalog.js';
import { BackupReader } from '../../src/archive/backups/reader.js';
import type { ArchiveKeys } from '../../src/archive/places/open-archive.js';
import { mergeBackup } from '../../src/backup/merge.js';
import { parseBackupLabel } from '../../src/base/label.js';
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

/** A chain of three in a directory archive, and what the files of the last one really were. */
async function chained(options: Partial<ChainOptions> = {}) {
  const place = scratchDir('merging');
  const store = await openFileStore(place, { init: true });
  const tables = [TABLE, MOVED].map((path) => ({ path, table: new ModelTable(GEOMETRY) }));
  for (const { table } of tables) table.grow(20);
  for (const { table } of tables) for (let b = 0; b < table.length; b++) table.vacuum(b);
  const backups: Map<string, Buffer>[] = [];
  let real = new Map<string, Buffer>();
  for (let n = 0; n < 3; n++) {
    const made = tables.map(({ path, table }) => table.backUp(path, n === 0));
    const plain = new Map([
      ['PG_VERSION', Buffer.from('18\n')],
      [Buffer.from('base/5/ü "name"').toString('latin1'), Buffer.from(`${n}`)],
      ['base/5/empty', Buffer.alloc(0)],
      [`pg_wal/00000001000000000000000${n}`, Buffer.alloc(2000, n)],
    ]);
    backups.push(new Map([...plain, ...made.flatMap(({ backup }) => [...backup])]));
    real = new Map([...plain, ...made.flatMap((one) => [...one.real])]);
    for (const { table } of tables) for (const b of [1, 9, 17]) table.change((b + n) % 20);
  }
  const { records } = await storeChain(backups, { store, geometry: GEOMETRY, ...options });
  return { place, store, records, real };
}

/** A key of its own, and the file that has it. */
async function key() {
  const identity = await generateX25519Identity();
  const file = join(scratchDir('identity'), 'identity');
  writeFileSync(file, identity);
  return { recipients: [await identityToRecipient(identity)], keys: { identityFiles: [file] } };
}

const idsIn = (place: string) => readdirSync(join(place, 'backups')).sort();

async function filesOf(place: string, id: string, keys: ArchiveKeys = {}) {
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
  const label = parseBackupLabel(await reader.object('backup_label'));
  await area.close();
  return { files, manifest, label };
}

describe('a chain that is merged', () => {
  it.each(['none', 'gzip'] as const)('is a full backup of its own: %s', async (codec) => {
    const { place, records, real } = await chained({ codec });
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
    const { files, manifest, label } = await filesOf(place, id);
    const { backup_label: _, 'global/pg_control': __, ...rest } = Object.fromEntries(files);
    expect(Object.keys(rest).sort()).toEqual([...real.keys()].sort());
    for (const [path, content] of real) {
      expect(files.get(path)?.equals(content), path).toBe(true);
    }
    expect(label).toMatchObject({ start: last.start.lsn, incrementalFrom: undefined });
    expect(manifest).toMatchObject({ version: 2, systemId: last.systemId });
    const inManifest = manifest.files.map(({ path }) => path);
    expect(inManifest.sort()).toEqual([...files.keys()].filter((p) => !/^pg_wal/.test(p)).sort());
    expect(count).toBe(files.size);
    expect(readdirSync(join(place, 'keep'))).toEqual([id]);
    expect(
      readdirSync(join(place, 'lease')).flatMap((l) => readdirSync(join(place, 'lease', l))),
    ).toEqual([]);

    const { code, stdout } = await run('walkeep', 'verify', place);
    expect({ code, stdout }).toMatchObject({
      stdout: expect.not.stringContaining('backup-damaged'),
    });
    // The server's own way of taking it: the last one is what it is based on.
    const again = await run('walkeep', 'backups', place, '--merge', id);
    expect(again.code).toBe(1);
    expect(again.stderr).toContain('is a full backup: there is nothing to merge');
  });

  it('is told of by the command', async () => {
    const { place, records } = await chained();
    const { code, stdout } = await run('walkeep', 'backups', place, '--merge', records[1]!.id);
    expect(code).toBe(0);
    expect(stdout).toMatch(/^\d{8}T\d{6}F-[0-9a-f]{6}: \d+ files/);
    expect(stdout).toContain(`${records[0]!.id}, ${records[1]!.id} make together`);
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
      await expect(filesOf(place, id)).rejects.toThrow(EncryptedError);
      const { files } = await filesOf(place, id, keys);
      for (const [path, content] of real) {
        expect(files.get(path)?.equals(content), path).toBe(true);
      }
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
