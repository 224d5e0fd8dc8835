import { createHash } from 'node:crypto';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect } from 'vitest';
import { type BackupRecord, parseBackupRecord } from '../../src/base/backup-record.js';

const namesIn = (directory: string): string[] =>
  existsSync(directory) ? readdirSync(directory, { recursive: true }).map(String).sort() : [];

export interface FoundBackups {
  /** That exist, in the order of their ends: each with all that its record names, byte for byte. */
  complete: BackupRecord[];
  /** IDs of those that were begun. */
  begun: string[];
}

/** Reads the base backups of a directory archive; one that exists without being whole fails. */
export function wholeBackups(archive: string, known: Set<string> = new Set()): FoundBackups {
  const root = join(archive, 'backups');
  const found: FoundBackups = { complete: [], begun: [] };
  for (const id of existsSync(root) ? readdirSync(root).sort() : []) {
    const directory = join(root, id);
    if (!existsSync(join(directory, 'backup.json'))) {
      // One that was killed between two calls leaves it empty.
      if (readdirSync(directory).length > 0) found.begun.push(id);
      continue;
    }
    const record = parseBackupRecord(readFileSync(join(directory, 'backup.json')));
    found.complete.push(record);
    if (known.has(id)) continue;
    known.add(id);
    for (const { name, size, sha256 } of record.objects) {
      const bytes = readFileSync(join(directory, name));
      expect(bytes.length, `${id}/${name}`).toBe(size);
      expect(createHash('sha256').update(bytes).digest('hex'), `${id}/${name}`).toBe(sha256);
    }
  }
  // Of the same second the IDs say nothing.
  found.complete.sort((a, b) => (a.end.lsn < b.end.lsn ? -1 : 1));
  return found;
}

/** That nothing is left of runs that did not come to their end. */
export function expectClean(archive: string): void {
  const { complete, begun } = wholeBackups(archive);
  expect(begun).toEqual([]);
  for (const { id, objects } of complete) {
    const names = [...objects.map(({ name }) => name), 'backup.json'];
    const files = namesIn(join(archive, 'backups', id)).filter((name) => name !== 'wal');
    expect(files, id).toEqual(names.sort());
  }
  expect(filesBelow(join(archive, 'lease'))).toEqual([]);
  expect(filesBelow(join(archive, 'intent'))).toEqual([]);
}

/** Directories that were emptied do not count. */
function filesBelow(directory: string): string[] {
  if (!existsSync(directory)) return [];
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => !entry.isDirectory())
    .map(({ name }) => name);
}
