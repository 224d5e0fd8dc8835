import { createHash } from 'node:crypto';
import { readClaim } from '../archive/backups/abandoned.js';
import { type BackupArea, openBackupArea } from '../archive/backups/area.js';
import { readBackups, readRecord } from '../archive/backups/catalog.js';
import { type FileHash, fileHash } from '../archive/backups/file-hash.js';
import { backupKey, CLAIM, RECORD } from '../archive/backups/keys.js';
import { BackupReader } from '../archive/backups/reader.js';
import { judgeBackups, type PlacedBackup } from '../archive/backups/state.js';
import { Ways } from '../archive/backups/ways.js';
import type { Catalog } from '../archive/catalog.js';
import type { Finding } from '../archive/findings.js';
import type { ArchiveOptions } from '../archive/places/open-archive.js';
import type { BackupRecord } from '../base/backup-record.js';
import type { BaseIndex } from '../base/base-index.js';
import { parseBackupLabel } from '../base/label.js';
import { type BackupManifest, type ManifestFile, parseManifest } from '../base/manifest.js';
import { PageCheck, pagesText } from '../base/page-check.js';
import { TarReader } from '../base/tar.js';
import { decompressAtOnce } from '../codec/at-once.js';
import { CorruptObjectError, EncryptedError, UsageError } from '../errors.js';
import { formatLsn } from '../lsn.js';
import { controlGeometry } from '../server/control-file.js';
import { chainProblem } from './chain.js';

/** How the base backups of a place are checked. */
export interface BackupChecking {
  /** Only what is there, not what it holds. */
  quick: boolean;
  /** Also the checksums of pages. */
  pages?: boolean | undefined;
  keys: ArchiveOptions | undefined;
  finding(finding: Finding): void;
  /** Bytes of objects that were read. */
  progress(bytes: number): void;
  signal: AbortSignal | undefined;
}

/** The base backups of a place that are to be checked. */
export class BackupCheck {
  readonly #area: BackupArea;
  readonly #backups: readonly PlacedBackup[];
  /** Those of which something is damaged; what is based on one comes behind it. */
  readonly #bad = new Set<string>();

  private constructor(area: BackupArea, backups: readonly PlacedBackup[]) {
    this.#area = area;
    this.#backups = backups;
  }

  /** Undefined where there are none. @throws StoreUncertainError, StoreAccessError */
  static async open(
    place: string,
    systemId: bigint | undefined,
    signal: AbortSignal | undefined,
  ): Promise<BackupCheck | undefined> {
    let area: BackupArea;
    try {
      area = await openBackupArea(place, { systemId, signal });
    } catch (e) {
      // There is WAL of no cluster yet.
      if (e instanceof UsageError && systemId === undefined) return undefined;
      throw e;
    }
    const found = await readBackups(area, signal);
    return new BackupCheck(area, judgeBackups(found, { leases: [], now: new Date() }));
  }

  get count(): number {
    return this.#backups.length;
  }

  /** What the newest that is complete is of. */
  get cluster(): Pick<BackupRecord, 'systemId' | 'segmentSize'> | undefined {
    return this.#backups.findLast((b) => b.record)?.found.record;
  }

  /** Bytes of what is read. */
  get size(): number {
    const records = this.#backups.flatMap((b) => (b.record ? [b.found.record] : []));
    return records.reduce((sum, record) => sum + sizeOf(record as BackupRecord), 0);
  }

  close(): Promise<void> {
    return this.#area.close();
  }

  /** @throws what the place throws, if it cannot be told; the signal's reason */
  async run(catalog: Catalog, checking: BackupChecking): Promise<void> {
    const ways = waysOf(catalog);
    for (const backup of this.#backups) {
      checking.signal?.throwIfAborted();
      const findings: Finding[] = [];
      const finding = (f: Finding) => void findings.push(f);
      await this.#one(backup, catalog, ways, { ...checking, finding });
      // What an expire removed meanwhile is no backup any more.
      if (findings.length > 0 && (await this.#isGone(backup, checking.signal))) continue;
      for (const f of findings) checking.finding(f);
    }
  }

  async #isGone({ id, record }: PlacedBackup, signal: AbortSignal | undefined): Promise<boolean> {
    if (!record) return false;
    const now = await readRecord(this.#area, id, signal);
    return !now.record && !now.problem;
  }

  async #one(
    backup: PlacedBackup,
    catalog: Catalog,
    ways: Ways,
    checking: BackupChecking,
  ): Promise<void> {
    const { id, found } = backup;
    const file = backupKey(this.#area.prefix, id, RECORD);
    const { record } = found;
    if (found.problem) {
      checking.finding(damaged(file, found.problem));
      return;
    }
    if (!record) {
      checking.finding({
        ...{ severity: 'info', code: 'backup-unfinished', file: backupKey(this.#area.prefix, id) },
        message: `backup ${id} is not complete: it is running, or was never finished`,
        hint: 'What was never finished is removed by the next backup and by "walkeep expire".',
      });
      return;
    }
    if (backup.broken !== undefined) {
      checking.finding({
        ...{ severity: 'error', code: 'backup-chain-broken', file, message: backup.broken },
        hint: 'Take a full backup: this one, and what is based on it, cannot be restored.',
      });
    }
    if (checking.quick) {
      if (backup.problem !== undefined && backup.problem !== backup.broken) {
        checking.finding(damaged(file, new CorruptObjectError(backup.problem, { key: file })));
      }
    } else await this.#whole(backup, record, checking);
    await this.#foreign(backup, record, checking);
    if (record.wal === 'archive') this.#wal(record, file, catalog, ways, checking);
  }

  /** All that it holds; and, of an incremental one, whether that goes together with its chain. */
  async #whole(
    { id, chain, state }: PlacedBackup,
    record: BackupRecord,
    checking: BackupChecking,
  ): Promise<void> {
    const { keys, signal } = checking;
    const finding = (f: Finding): void => {
      if (f.severity === 'error') this.#bad.add(id);
      checking.finding(f);
    };
    await new OneBackup(this.#area, record, { ...checking, finding }).run();
    const isKnown = this.#bad.has(id) || chain.some((one) => this.#bad.has(one.id));
    if (record.parent === undefined || state !== 'complete' || isKnown) return;
    const problem = await chainProblem(this.#area, [...chain.toReversed(), record], keys, signal);
    if (!problem) return;
    checking.finding({
      ...damaged(problem.key ?? backupKey(this.#area.prefix, id, RECORD), problem),
      hint: 'Take a full backup: this one, and what is based on it, cannot be restored.',
    });
  }

  /** What lies beside its objects; of older walkeeps the record does not name the claim. */
  async #foreign(
    { id, found }: PlacedBackup,
    { objects }: BackupRecord,
    { finding, quick, signal }: BackupChecking,
  ): Promise<void> {
    const { prefix } = this.#area;
    const known = new Set([RECORD, CLAIM, ...objects.map(({ name }) => name)]);
    for (const { key } of found.objects) {
      if (known.has(key.slice(backupKey(prefix, id).length))) continue;
      finding(foreign(key, `"${key}" is no part of backup ${id}: its record does not name it`));
    }
    if (quick || objects.some(({ name }) => name === CLAIM)) return;
    const key = backupKey(prefix, id, CLAIM);
    if (!found.objects.some((object) => object.key === key)) return;
    if ((await readClaim(this.#area, id, signal)) !== undefined) return;
    finding(foreign(key, `"${key}" does not say who took backup ${id}`));
  }

  /** By names: what is in them is checked with all other WAL. */
  #wal(
    record: BackupRecord,
    file: string,
    catalog: Catalog,
    ways: Ways,
    { finding }: BackupChecking,
  ): void {
    if (catalog.systemId !== undefined && catalog.systemId !== record.systemId) {
      finding({
        ...{ severity: 'info', code: 'backup-without-wal', file },
        message: `backup ${record.id} is of cluster ${record.systemId}, the WAL of ${catalog.systemId}`,
        hint: 'It was taken before the cluster was made anew: its WAL is kept elsewhere, or not.',
      });
      return;
    }
    for (const { timeline, start, end } of record.walRanges) {
      if (ways.has(timeline, start, end)) continue;
      finding({
        ...{ severity: 'error', code: 'backup-without-wal', file, lsn: start },
        message: `backup ${record.id} needs WAL ${formatLsn(start)} - ${formatLsn(end)} of timeline ${timeline}, and some of it is not here`,
        hint: 'Without it the backup cannot be restored: bring the segments back, or take another.',
      });
    }
  }
}

function sizeOf({ objects }: BackupRecord): number {
  return objects.reduce((sum, object) => sum + object.size, 0);
}

function waysOf({ timelines, histories, segmentSize, ledger }: Catalog): Ways {
  const stored = new Date(0);
  const segments = timelines.flatMap(({ timeline, segments }) =>
    segments.map(({ segment }) => ({ timeline, segment, stored })),
  );
  const known = histories.flatMap((h) => (h.history ? [h.history] : []));
  return new Ways(segments, known, [], segmentSize, ledger);
}

function damaged(file: string, { message, detail }: Error & { detail?: string }): Finding {
  return {
    ...{ severity: 'error', code: 'backup-damaged', file },
    message: detail === undefined ? message : `${message}: ${detail}`,
    hint: 'Use another backup, or another place that has this one, and take a new one.',
  };
}

function foreign(file: string, message: string): Finding {
  return {
    ...{ severity: 'warning', code: 'backup-foreign', file, message },
    hint: 'The backup can be restored without it: see who stored it there, and remove it.',
  };
}

/** All that one backup holds: each object once. */
class OneBackup {
  readonly #record: BackupRecord;
  readonly #reader: BackupReader;
  readonly #checking: BackupChecking;
  /** Nobody here can open it: only what is stored was compared. */
  #closed = false;
  #manifest: BackupManifest | undefined;
  readonly #files = new Map<string, { size: number; digest: string }>();
  #pages: PageCheck | undefined;
  /** Every tar was read to its end. */
  #whole = true;

  constructor(area: BackupArea, record: BackupRecord, checking: BackupChecking) {
    this.#record = record;
    this.#reader = new BackupReader(area, record, checking.keys);
    this.#checking = checking;
  }

  async run(): Promise<void> {
    const { tars, objects, id } = this.#record;
    const volumes = new Set(tars.flatMap((tar) => tar.volumes));
    for (const { name } of objects) {
      const bytes = volumes.has(name) ? undefined : await this.#object(name);
      if (name === LABEL && bytes) this.#label(bytes);
    }
    if (objects.some(({ name }) => name === MANIFEST) && !this.#closed) await this.#readManifest();
    if (this.#checking.pages === true && !this.#closed) this.#pages = await this.#pageCheck();
    const index = this.#closed ? undefined : await this.#index();
    for (const [i, tar] of tars.entries()) await this.#tar(tar, index?.tars[i]);
    if (this.#manifest && this.#whole && !this.#closed) this.#compare(this.#manifest);
    if (this.#pages && this.#pages.wrong > 0) this.#wrongPages(this.#pages);
    if (!this.#closed) return;
    this.#checking.finding({
      ...{ severity: 'info', code: 'backup-not-checked', file: this.#reader.key(RECORD) },
      message: `backup ${id} is encrypted: its objects are what was stored, what is in them was not looked at`,
      hint: 'Give the keys with --identity to have its files compared with the manifest.',
    });
  }

  /** What recovery begins with, and what the backup is put onto, is what the record says. */
  #label(bytes: Buffer): void {
    const { start, parent, incrementalFrom: from } = this.#record;
    try {
      const key = this.#reader.key(LABEL);
      const label = parseBackupLabel(bytes, key);
      const is = label.incrementalFrom;
      const isSame =
        label.start === start.lsn &&
        label.timeline === start.timeline &&
        (is !== undefined) === (parent !== undefined) &&
        (!from || (is?.lsn === from.lsn && is.timeline === from.timeline));
      if (isSame) return;
      throw new CorruptObjectError(`"${key}" is of another backup than its record`, { key });
    } catch (e) {
      this.#damaged(e, LABEL);
    }
  }

  /** What is stored is compared with the record; undefined if it is damaged, or stays closed. */
  async #object(name: string): Promise<Buffer | undefined> {
    const { signal, progress } = this.#checking;
    try {
      return await this.#reader.object(name, signal);
    } catch (e) {
      if (e instanceof EncryptedError) this.#closed = true;
      else this.#damaged(e, name);
      return undefined;
    } finally {
      progress(this.#record.objects.find((object) => object.name === name)?.size ?? 0);
    }
  }

  #damaged(error: unknown, name: string): void {
    if (!(error instanceof CorruptObjectError)) throw error;
    this.#checking.finding(damaged(error.key ?? this.#reader.key(name), error));
  }

  async #index(): Promise<BaseIndex | undefined> {
    try {
      return await this.#reader.index(this.#checking.signal);
    } catch (e) {
      this.#damaged(e, 'base.index');
      return undefined;
    }
  }

  /** Undefined where the cluster has no checksums. */
  async #pageCheck(): Promise<PageCheck | undefined> {
    try {
      const control = await this.#reader.content('pg_control', this.#checking.signal);
      const geometry = controlGeometry(control);
      if (!geometry?.checksums) return undefined;
      return new PageCheck({ start: this.#record.start.lsn, ...geometry });
    } catch (e) {
      this.#damaged(e, 'pg_control');
      return undefined;
    }
  }

  #wrongPages({ bad, wrong }: PageCheck): void {
    const { id, pageChecksums } = this.#record;
    this.#checking.finding({
      severity: pageChecksums.checked ? 'error' : 'warning',
      code: 'backup-page',
      file: this.#reader.key(RECORD),
      message: `backup ${id}: ${pagesText(bad, wrong)}`,
      hint: pageChecksums.checked
        ? 'Restored, the server refuses to read them: use another backup.'
        : 'Nobody compared them when it was taken: they are damaged, or were written just then, and are whole in the WAL.',
    });
  }

  async #readManifest(): Promise<void> {
    try {
      const bytes = await this.#reader.content(MANIFEST, this.#checking.signal);
      this.#manifest = parseManifest(bytes, this.#reader.key(MANIFEST));
    } catch (e) {
      this.#damaged(e, MANIFEST);
    }
  }

  /** Each volume is read, whatever is wrong with others. */
  async #tar(
    { name, oid, volumes }: BackupRecord['tars'][0],
    index: BaseIndex['tars'][0] | undefined,
  ): Promise<void> {
    const reader = index && this.#tarReader(oid);
    let goesOn = reader !== undefined;
    for (const [n, volume] of volumes.entries()) {
      const plain = await this.#object(volume);
      if (!plain) goesOn = false;
      if (!plain || !reader || !goesOn || !index) continue;
      try {
        for (const frame of index.frames.filter((one) => one.volume === n)) {
          const stored = plain.subarray(frame.at, frame.at + frame.stored);
          const digest = createHash('sha256').update(stored).digest('hex');
          const content =
            digest === frame.sha256
              ? await decompressAtOnce(this.#record.codec, stored, frame.length)
              : undefined;
          if (!content) {
            throw new CorruptObjectError(
              `a frame at ${frame.at} of "${this.#reader.key(volume)}" is not what its index says`,
              { key: this.#reader.key(volume) },
            );
          }
          reader.feed(content);
        }
      } catch (e) {
        this.#damaged(e, volume);
        goesOn = false;
      }
    }
    if (!goesOn || !reader) this.#whole = false;
    else {
      try {
        reader.end();
      } catch (e) {
        this.#damaged(e, volumes.at(-1) ?? name);
      }
    }
  }

  #tarReader(oid: number | undefined): TarReader {
    const root = oid === undefined ? '' : `pg_tblspc/${oid}/`;
    const expected = new Map((this.#manifest?.files ?? []).map((file) => [file.path, file]));
    let hash: FileHash | undefined;
    return new TarReader({
      member: ({ type, name }) => {
        const algorithm = expected.get(`${root}${name}`)?.checksum?.algorithm;
        if (type === 'file') this.#pages?.begin(`${root}${name}`);
        hash = type === 'file' && algorithm ? fileHash(algorithm) : undefined;
      },
      content: (piece) => {
        hash?.update(piece);
        this.#pages?.content(piece);
      },
      done: ({ type, name, size }) => {
        if (type !== 'file') return;
        this.#files.set(`${root}${name}`, { size, digest: hash?.digest() ?? '' });
      },
    });
  }

  #compare({ files }: BackupManifest): void {
    const seen = new Set<string>();
    for (const file of files) {
      seen.add(file.path);
      const why = difference(file, this.#files.get(file.path));
      if (why === undefined) continue;
      const message = `${JSON.stringify(file.path)} of backup ${this.#record.id} ${why}`;
      this.#damaged(new CorruptObjectError(message, { key: this.#reader.key(RECORD) }), RECORD);
    }
  }
}

const MANIFEST = 'backup_manifest';
const LABEL = 'backup_label';

function difference(
  { size, checksum }: ManifestFile,
  is: { size: number; digest: string } | undefined,
): string | undefined {
  if (!is) return 'is in the manifest, and not in the backup';
  if (is.size !== size) return `has ${is.size} bytes, in the manifest ${size}`;
  return checksum && checksum.hex !== is.digest ? 'is not what the manifest says' : undefined;
}
