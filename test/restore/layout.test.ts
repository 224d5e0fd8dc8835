import { describe, expect, it } from 'vitest';
import type { Frame } from '../../src/base/base-index.js';
import { layoutOf, type PlacedFile, partsOf } from '../../src/restore/layout.js';
import { Random } from '../simulation/random.js';
import { tarOf } from '../support/stored-backup.js';
import { BASE, stored } from './restorable.js';

const roots = { dataDir: '/data', tablespaces: new Map([[16388, '/one']]) };

describe('where the files of a backup go', () => {
  it('is below the roots, with tablespaces where they were mapped to', async () => {
    const { record, index } = await stored();
    const layout = layoutOf(record, index, roots);
    expect(layout.roots).toEqual(['/data', '/one']);
    const paths = layout.files.flat().map(({ path }) => path);
    expect(paths).toContain('/one/PG_18_202506291/5/16390');
    expect(paths).toContain('/data/pg_tblspc/16389/PG_18_202506291/7');
    expect(paths).toContain('/data/global/pg_control.walkeep-restore');
    expect(paths).not.toContain('/data/global/pg_control');
    expect(paths.filter((path) => /postmaster|signal|replslot/.test(path))).toEqual([]);
    expect(layout.links).toEqual([{ path: '/data/pg_tblspc/16388', to: '/one' }]);
    expect(layout.controls).toHaveLength(1);
    expect(layout.mode).toBe(0o700);
  });

  it('is a directory of its own for pg_wal', async () => {
    const { record, index } = await stored();
    const layout = layoutOf(record, index, { ...roots, walDir: '/wal' });
    expect(layout.roots).toContain('/wal');
    expect(layout.links).toContainEqual({ path: '/data/pg_wal', to: '/wal' });
    expect(layout.directories.map(({ path }) => path)).toContain('/wal/archive_status');
    expect(layout.directories.map(({ path }) => path)).not.toContain('/data/pg_wal');
  });

  it('lets the group read where it could', async () => {
    const members = BASE.map((one) => (one.name === 'PG_VERSION' ? { ...one, mode: 0o640 } : one));
    const { record, index } = await stored({
      tars: [{ name: 'base.tar', bytes: tarOf(members) }],
      record: { tablespaces: [] },
    });
    expect(layoutOf(record, index, roots).mode).toBe(0o750);
  });

  it('needs a second one for PolarDB, and a pg_control', async () => {
    const base = BASE.filter(({ name }) => name !== 'global/pg_control');
    const shared = tarOf([{ name: 'global', type: 'directory' }, BASE.at(-1)!]);
    const tars = [
      { name: 'base.tar', bytes: tarOf(base) },
      { name: 'data.tar', bytes: shared },
    ];
    const { record, index } = await stored({ tars, record: { tablespaces: [] } });
    expect(() => layoutOf(record, index, roots)).toThrow(/second directory/);
    const layout = layoutOf(record, index, { ...roots, polarData: '/polar' });
    expect(layout.roots).toEqual(['/data', '/polar']);
    expect(layout.controls).toEqual([
      {
        path: '/polar/global/pg_control',
        until: '/polar/global/pg_control.walkeep-restore',
      },
    ]);
    const without = await stored({ tars: tars.slice(0, 1), record: { tablespaces: [] } });
    expect(() => layoutOf(without.record, without.index, roots)).toThrow(/pg_control/);
  });

  it('is nowhere for a link or a file that no server sends', async () => {
    const wrong = async (name: string, type: 'symlink' | 'file') => {
      const link = type === 'symlink' ? { link: '/etc' } : {};
      const tars = [{ name: 'base.tar', bytes: tarOf([...BASE, { name, type, ...link }]) }];
      const { record, index } = await stored({ tars, record: { tablespaces: [] } });
      return () => layoutOf(record, index, roots);
    };
    expect(await wrong('pg_tblspc/666', 'symlink')).toThrow(/no tablespace/);
    expect(await wrong('pg_xact/0000', 'file')).toThrow(/no directory/);
  });
});

describe('the parts of frames', () => {
  it('are all bytes of all files once, each file made by one', () => {
    for (let seed = 0; seed < 300; seed++) {
      const random = new Random(seed);
      const files: PlacedFile[] = [];
      let end = 0;
      for (let n = 0; n < 1 + random.below(12); n++) {
        const size = random.pick([0, 1, 511, 512, 513, random.below(4000)]);
        end += 512 * (1 + random.below(3));
        files.push({ path: `/${n}`, mode: 0o600, size, offset: end });
        end += Math.ceil(size / 512) * 512;
      }
      end += 1024;
      const frames: Frame[] = [];
      for (let offset = 0; offset < end; ) {
        const length = Math.min(end - offset, 1 + random.below(2500));
        frames.push({ offset, length, volume: 0, at: 0, stored: 0, sha256: '' });
        offset += length;
      }
      const made = new Map<string, number>();
      const have = new Map(files.map(({ path, size }) => [path, new Uint8Array(size)]));
      for (const frame of frames) {
        for (const { path, from, length, at, whole } of partsOf(files, frame)) {
          const file = files.find((one) => one.path === path)!;
          expect(frame.offset + from - at).toBe(
            file.size === 0 ? frame.offset + from : file.offset,
          );
          expect(from + length).toBeLessThanOrEqual(frame.length);
          for (let i = at; i < at + length; i++) have.get(path)![i]! += 1;
          if (whole) made.set(path, (made.get(path) ?? 0) + 1);
        }
      }
      for (const { path } of files)
        expect(
          have.get(path)!.every((n) => n === 1),
          path,
        ).toBe(true);
      for (const [, times] of made) expect(times).toBe(1);
      for (const { path, size } of files) if (size === 0) expect(made.get(path)).toBe(1);
    }
  });
});
