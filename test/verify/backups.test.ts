import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, rmSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import type { Catalog } from '../../src/archive/catalog.js';
import type { Finding } from '../../src/archive/findings.js';
import { beginStore } from '../../src/archive/places/begin-store.js';
import type { Lsn } from '../../src/lsn.js';
import { openFileStore } from '../../src/store/file/file-store.js';
import { BackupCheck } from '../../src/verify/backups.js';
import { run } from '../cli/run.js';
import {
  randomNumbers,
  SEGMENT,
  SYSTEM_ID,
  sampleArchive,
  writeLedger,
} from '../support/archives.js';
import { checksumOf } from '../support/checksum.js';
import { incrementalFile } from '../support/incremental-file.js';
import { scratchDir } from '../support/scratch.js';
import { labelOf, type StoreBackup, storeBackup, tarOf } from '../support/stored-backup.js';
import { controlFile, storeChain } from '../support/stored-chain.js';

const ID = '20261127T201500F-3fa91c';
const random = randomNumbers(7);
const bytes = (n: number) => Buffer.from(Array.from({ length: n }, () => random() * 256));

const FILES = {
  PG_VERSION: Buffer.from('18\n'),
  'base/1/1249': bytes(3000),
  'global/pg_control': bytes(512),
};
/** Of the usual geometry. */
const CONTROL = controlFile({ blockSize: 8192, segmentBlocks: 131_072 });
const SPACE = { 'PG_18_202506291/5/16400': bytes(2500) };

/** As a server makes it. */
function manifestOf(files: Record<string, Buffer>): Buffer {
  const entries = Object.entries(files).map(([path, content]) => {
    const algorithm = path.startsWith('base') ? 'SHA256' : 'CRC32C';
    const checksum = checksumOf(algorithm, content);
    return `{ "Path": "${path}", "Size": ${content.length}, "Last-Modified": "2026-11-28 01:00:00 GMT", "Checksum-Algorithm": "${algorithm}", "Checksum": "${checksum}" }`;
  });
  const text = `{ "PostgreSQL-Backup-Manifest-Version": 1,\n"Files": [\n${entries.join(',\n')}\n],\n"WAL-Ranges": [\n{ "Timeline": 1, "Start-LSN": "0/1000028", "End-LSN": "0/1000100" }\n],\n`;
  const sum = createHash('sha256').update(text).digest('hex');
  return Buffer.from(`${text}"Manifest-Checksum": "${sum}"}\n`);
}

/** An archive of three segments with a backup that needs the second. */
async function archive(options: Partial<StoreBackup> = {}, files = FILES) {
  const made = sampleArchive(3);
  const { directory, segmentStart } = made;
  await writeLedger(directory);
  const store = await openFileStore(directory, { init: true });
  const start = (segmentStart(1) + 40n) as Lsn;
  const end = (start + 5000n) as Lsn;
  const point = { timeline: 1, time: '2026-11-27T20:15:00.000Z' };
  const members = (all: Record<string, Buffer>) =>
    Object.entries(all).map(([name, content]) => ({ name, content }));
  const spaced = Object.entries(SPACE).map(([name, content]) => [
    `pg_tblspc/16388/${name}`,
    content,
  ]);
  const manifest = manifestOf({ ...FILES, ...Object.fromEntries(spaced) });
  const record = {
    ...{ systemId: SYSTEM_ID, segmentSize: SEGMENT },
    ...{ start: { ...point, lsn: start }, end: { ...point, lsn: end } },
    walRanges: [{ timeline: 1, start, end }],
  };
  await storeBackup({
    ...{ store, id: ID, frame: 2000, volume: 3000 },
    tars: [
      { name: '16388.tar', oid: 16388, bytes: tarOf(members(SPACE)) },
      { name: 'base.tar', bytes: tarOf(members(files)) },
    ],
    others: { backup_manifest: manifest, backup_label: labelOf({ ...record, ...options.record }) },
    ...options,
    record: { ...record, ...options.record },
  });
  return { ...made, base: join(directory, 'backups', ID) };
}

/** What is found of base backups, where no WAL is missing. */
async function findingsOf(directory: string): Promise<Finding[]> {
  const check = await BackupCheck.open(directory, undefined, undefined);
  const findings: Finding[] = [];
  const catalog = {
    ...{ timelines: [], histories: [], segmentSize: SEGMENT, ledger: undefined },
    systemId: SYSTEM_ID,
  } as unknown as Catalog;
  await check?.run(catalog, {
    ...{ quick: false, keys: undefined, signal: undefined, progress: () => {} },
    finding: (f) => void findings.push(f),
  });
  await check?.close();
  return findings.filter((f) => f.code !== 'backup-without-wal');
}

describe('verify of base backups', () => {
  it.each(['none', 'gzip', 'zstd', 'lz4'] as const)(
    'finds nothing in a good one: %s',
    async (codec) => {
      const { directory } = await archive({ codec });
      const { code, stdout } = await run('walkeep', 'verify', '-v', directory);
      expect(stdout).toContain('3 segments of 1 timeline and 1 base backup checked');
      expect({ code, stdout }).toMatchObject({
        code: 0,
        stdout: expect.stringContaining('all is well'),
      });
      const { stdout: without } = await run('walkeep', 'verify', '--no-backups', directory);
      expect(without).not.toContain('backup');
    },
  );

  it('checks those that have their own WAL where there is no other', async () => {
    const record = { wal: 'included' } as const;
    for (const prefix of ['', `systems/${SYSTEM_ID}/`]) {
      const directory = scratchDir();
      if (prefix !== '') await beginStore(directory);
      const store = await openFileStore(directory, { init: true });
      await archive({ store, prefix, record });
      const { code, stdout } = await run('walkeep', 'verify', '--json', directory);
      expect({ code, ...JSON.parse(stdout) }).toMatchObject({
        ...{ code: 0, type: 'summary', segments: 0, backups: 1, errors: 0, infos: 0 },
        ...{ systemId: String(SYSTEM_ID), segmentSize: SEGMENT },
      });
      const base = join(directory, prefix, 'backups', ID);
      const tar = readdirSync(base).find((name) => name.startsWith('base.tar')) as string;
      const path = join(base, tar);
      const content = readFileSync(path);
      content[content.length >> 1]! ^= 1;
      writeFileSync(path, content);
      const damaged = await run('walkeep', 'verify', directory);
      expect(damaged).toMatchObject({ code: 1, stdout: expect.stringContaining(tar) });
      // There is nothing to be said of WAL alone.
      for (const option of ['--no-backups', '--since=0/0', '--timeline=1']) {
        const { code, stderr } = await run('walkeep', 'verify', option, directory);
        expect(stderr).toMatch(/it has no WAL and no ledger/);
        expect(code).toBe(2);
      }
    }
  });

  it('tells that a backup lacks its WAL where there is none at all', async () => {
    const { directory } = await archive();
    for (const name of readdirSync(directory)) {
      if (!['backups', '.walkeep-store'].includes(name)) rmSync(join(directory, name));
    }
    const { code, stdout } = await run('walkeep', 'verify', directory);
    expect({ code, stdout }).toMatchObject({
      code: 1,
      stdout: expect.stringContaining('(backup-without-wal)'),
    });
    rmSync(join(directory, 'backups'), { recursive: true });
    expect(await run('walkeep', 'verify', directory)).toMatchObject({ code: 2 });
  });

  it.each(['none', 'gzip'] as const)(
    'names the object that one bit was flipped in, 500 times: %s',
    async (codec) => {
      const { directory, base } = await archive({ codec });
      const names = readdirSync(base).sort();
      expect(names.length).toBeGreaterThan(6);
      for (let trial = 0; trial < 500; trial++) {
        const name = names[trial % names.length] as string;
        const path = join(base, name);
        const content = readFileSync(path);
        const { atime, mtime } = statSync(path);
        const bad = Buffer.from(content);
        const at = Math.floor(random() * bad.length);
        bad[at] = bad[at]! ^ (1 << Math.floor(random() * 8));
        writeFileSync(path, bad);
        // As a disk does it, or as somebody who writes.
        if (trial % 2 === 0) utimesSync(path, atime, mtime);
        const found = await findingsOf(directory);
        expect(
          found.map((f) => `${f.severity} ${f.file}`),
          `${name} ${at}`,
        ).toContain(`error backups/${ID}/${name}`);
        expect(new Set(found.map((f) => f.file)).size, `${name} ${at}`).toBe(1);
        writeFileSync(path, content);
        utimesSync(path, atime, mtime);
        if (trial % 10 === 0) expect(await findingsOf(directory)).toEqual([]);
      }
    },
  );

  it('names what is no part of one, and a claim that says nothing', async () => {
    const { directory, base } = await archive();
    writeFileSync(join(base, 'claim.json'), '{"format":1,"writer":{"pid":1}}\n');
    expect(await findingsOf(directory)).toEqual([]);
    // Of an older walkeep the record does not name it.
    writeFileSync(join(base, 'claim.json'), '{"format":1,"writer":\n');
    writeFileSync(join(base, 'base.tar.gz.0007'), 'of somebody else');
    const found = (await findingsOf(directory)).map((f) => `${f.severity} ${f.code} ${f.file}`);
    expect(found).toEqual([
      `warning backup-foreign backups/${ID}/base.tar.gz.0007`,
      `warning backup-foreign backups/${ID}/claim.json`,
    ]);
  });

  it('finds objects that are missing or cut, also without reading them', async () => {
    const { directory, base } = await archive();
    writeFileSync(join(base, 'base.index'), '');
    rmSync(join(base, '16388.tar.gz.0000'));
    const found = await findingsOf(directory);
    expect([...new Set(found.map((f) => f.file))].sort()).toEqual([
      `backups/${ID}/16388.tar.gz.0000`,
      `backups/${ID}/base.index`,
    ]);
    const { code, stdout } = await run('walkeep', 'verify', '--quick', directory);
    expect({ code, stdout }).toMatchObject({ code: 1, stdout: expect.stringContaining(ID) });
  });

  it('compares each file with the manifest', async () => {
    const files = { ...FILES, 'base/1/1249': Buffer.alloc(3000, 1) };
    const { directory } = await archive({}, files);
    const [found, ...more] = await findingsOf(directory);
    expect(found?.message).toContain('"base/1/1249" of backup');
    expect(more).toEqual([]);
  });

  it('looks at what an incremental one is based on, and at its label', async () => {
    const child = '20261127T211500I-3fa91d';
    const at = { lsn: 0x7000028n as Lsn, timeline: 1 };
    const chained = async (from: { lsn: Lsn; timeline: number }, label = labelOf) => {
      const { directory, segmentStart } = await archive();
      const store = await openFileStore(directory);
      const [own, parent] = [segmentStart(2), segmentStart(1)].map((s) => (s + 40n) as Lsn);
      const point = { timeline: 1, time: '2026-11-27T21:15:00.000Z' };
      const record = {
        ...{ systemId: SYSTEM_ID, segmentSize: SEGMENT, parent: ID },
        incrementalFrom: from === at ? { lsn: parent!, timeline: 1 } : from,
        ...{ start: { ...point, lsn: own! }, end: { ...point, lsn: own! } },
      };
      const manifest = manifestOf({ PG_VERSION: FILES.PG_VERSION });
      await storeBackup({
        ...{ store, id: child, record },
        tars: [{ name: 'base.tar', bytes: tarOf([{ name: 'PG_VERSION', content: '18\n' }]) }],
        others: { backup_manifest: manifest, backup_label: label(record), pg_control: CONTROL },
      });
      return directory;
    };
    const directory = await chained(at);
    expect(await findingsOf(directory)).toEqual([]);
    rmSync(join(directory, 'backups', ID, 'backup.json'));
    const chain = { severity: 'error', code: 'backup-chain-broken' };
    const record = `backups/${child}/backup.json`;
    const gone = await findingsOf(directory);
    expect(gone.filter((f) => f.severity === 'error')).toMatchObject([{ ...chain, file: record }]);

    const elsewhere = await findingsOf(await chained({ lsn: 0x42n as Lsn, timeline: 1 }));
    expect(elsewhere).toMatchObject([{ ...chain, file: record }]);
    expect(elsewhere[0]?.message).toContain('and not at 0/42 on timeline 1');
    for (const wrong of [undefined, at]) {
      const label: typeof labelOf = ({ start }) =>
        labelOf({ start, ...(wrong ? { incrementalFrom: wrong } : {}) });
      const file = `backups/${child}/backup_label`;
      const found = await findingsOf(await chained(at, label));
      expect(found).toMatchObject([{ code: 'backup-damaged', file }]);
    }
  });

  it('combines a chain, and names what is flipped anywhere in it', async () => {
    const geometry = { blockSize: 1024, segmentBlocks: 8 };
    const part = (...blocks: number[]) =>
      incrementalFile(new Map(blocks.map((b) => [b, bytes(1024)])), 4, geometry);
    const chained = async (last: [string, Buffer][]) => {
      const { directory } = sampleArchive(3);
      const store = await openFileStore(directory, { init: true });
      const backups = [
        new Map([['base/5/16384', bytes(4096)]]),
        new Map([['base/5/INCREMENTAL.16384', part(1, 2)]]),
        new Map(last),
      ];
      const { records } = await storeChain(backups, { store, geometry });
      return { directory, records };
    };
    const { directory, records } = await chained([['base/5/INCREMENTAL.16384', part(3)]]);
    expect(await findingsOf(directory)).toEqual([]);
    for (const { id, objects } of records) {
      for (const { name, size } of objects) {
        const path = join(directory, 'backups', id, name);
        const good = readFileSync(path);
        const bad = Buffer.from(good);
        const at = Math.floor(random() * size);
        bad.writeUInt8(bad.readUInt8(at) ^ (1 << Math.floor(random() * 8)), at);
        writeFileSync(path, bad);
        const [found, ...more] = await findingsOf(directory);
        expect([found?.file, found?.code]).toEqual([`backups/${id}/${name}`, 'backup-damaged']);
        // Nobody is told twice, of what is based on it.
        expect(more.filter(({ file }) => !file?.includes(id))).toEqual([]);
        writeFileSync(path, good);
      }
    }
    // Each of them is whole, and they do not go together.
    const lacking = await chained([['base/5/INCREMENTAL.16385', part(3)]]);
    expect(await findingsOf(lacking.directory)).toMatchObject([
      {
        code: 'backup-damaged',
        message: expect.stringMatching(/"base.5.16385" of backup \S+01I?/),
      },
    ]);
  });

  it('finds the WAL that it needs missing, and names what was never finished', async () => {
    const { directory, names, base } = await archive();
    rmSync(join(directory, names[0]!));
    expect((await run('walkeep', 'verify', directory)).code).toBe(0);
    rmSync(join(directory, names[1]!));
    const { stdout } = await run('walkeep', 'verify', directory);
    expect(stdout).toContain('(backup-without-wal)');
    rmSync(join(base, 'backup.json'));
    const { stdout: left } = await run('walkeep', 'verify', '-v', directory);
    expect(left).toContain('(backup-unfinished)');
  });
});
