import { constants } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import type { FileSystem } from '../../src/files/file-system.js';
import { nothing, withPaths } from './with-paths.js';
import type { Mutation } from './world.js';

/** A segment being compressed, and a partial that is. */
const isStage = (path: string) => /\.walkeep-[0-9A-F]{24}\.(gz|lz4)$/.test(path);
const isPartialStage = (path: string) =>
  /\.[\w-]*[0-9A-F]{24}\.(gz|lz4)\.partial(\.tmp)?$/.test(path);
const isCompressedPartial = (path: string) => /(^|\/)[0-9A-F]{24}\.(gz|lz4)\.partial$/.test(path);
const isPartial = (path: string) => /\/[0-9A-F]{24}\.partial$/.test(path);

/** The plain partial of the segment that a file of any form is of. */
function plainOf(path: string): string {
  const name = /[0-9A-F]{24}/.exec(basename(path))?.[0] ?? '';
  return join(dirname(path), `${name}.partial`);
}

/** Without a sync of the files that `skips` says. */
const unsynced = (skips: (path: string) => boolean): Mutation => ({
  fs: (fs) =>
    withPaths(fs, (paths) => ({
      fsync: (fd) => (skips(paths.get(fd) ?? '') ? nothing() : fs.fsync(fd)),
    })),
});

/** What a file that is not there any more is asked for has been done. */
const gone = (e: NodeJS.ErrnoException): void => {
  if (e.code !== 'ENOENT') throw e;
};

/** Removes the plain file as soon as a compressed one is synced. */
const plainGoesFirst = (isIts: (path: string) => boolean): Mutation => ({
  fs: (fs) =>
    withPaths(fs, (paths) => ({
      fsync: async (fd) => {
        await fs.fsync(fd);
        const path = paths.get(fd) ?? '';
        if (isIts(path)) await fs.unlink(plainOf(path)).catch(gone);
      },
      unlink: (path) => (isPartial(path) ? fs.unlink(path).catch(gone) : fs.unlink(path)),
    })),
});

/** Bugs around compressed files: mostly a position, or a name, taken for the content of a file. */
export const MUTATIONS_OF_COMPRESSION: Record<string, Mutation> = {
  'compress only what this stream wrote of a partial': {
    fs: (fs) => {
      const written = new Map<string, number>();
      return withPaths(fs, (paths) => {
        const note = (fd: number, end: number) => {
          const path = paths.get(fd) ?? '';
          written.set(path, Math.max(written.get(path) ?? 0, end));
        };
        return {
          openSync: (path, flags, mode) => {
            const fd = fs.openSync(path, flags, mode);
            paths.set(fd, path);
            // By a stream that begins.
            if (isPartial(path) && flags & constants.O_CREAT) written.delete(path);
            return fd;
          },
          writevSync: (fd, buffers, position) => {
            const n = fs.writevSync(fd, buffers, position);
            note(fd, position + n);
            return n;
          },
          writev: async (fd, buffers, position) => {
            const n = await fs.writev(fd, buffers, position);
            note(fd, position + n);
            return n;
          },
          read: async (fd, buffer, length, position) => {
            const n = await fs.read(fd, buffer, length, position);
            const path = paths.get(fd) ?? '';
            const end = written.get(path);
            const compresses = [...paths.values()].some(
              (p) => isPartialStage(p) && plainOf(p) === path,
            );
            if (compresses && end !== undefined) buffer.fill(0, Math.max(0, end - position), n);
            return n;
          },
          close: async (fd) => {
            await fs.close(fd);
            paths.delete(fd);
          },
        };
      });
    },
  },
  'bring only half of a compressed partial into the plain one': {
    fs: (fs) =>
      withPaths(fs, (paths) => ({
        writev: async (fd, buffers, position) => {
          if (!paths.get(fd)?.endsWith('.seed')) return fs.writev(fd, buffers, position);
          const all = Buffer.concat(buffers);
          await fs.writev(fd, [all.subarray(0, all.length / 2)], position);
          return all.length;
        },
      })),
  },
  'a compressed partial wins over a longer plain one': {
    fs: (fs) => ({
      ...fs,
      readdir: async (path) => {
        const entries = await fs.readdir(path);
        const plain = entries
          .filter(({ name }) => isCompressedPartial(name))
          .map(({ name }) => basename(plainOf(name)));
        for (const name of plain) await fs.unlink(join(path, name)).catch(gone);
        return entries.filter(({ name }) => !plain.includes(name));
      },
    }),
  },
  'drop the partial of another codec': {
    fs: (fs) => ({
      ...fs,
      readdir: async (path) => {
        const entries = await fs.readdir(path);
        return entries.filter(({ name }) => !isCompressedPartial(name));
      },
      renameSync: (from, to) => {
        fs.renameSync(from, to);
        if (!isPartial(to)) return;
        for (const form of ['gz', 'lz4']) {
          const other = to.replace(/partial$/, `${form}.partial`);
          if (fs.sizeSync(other) !== undefined) fs.unlinkSync(other);
        }
      },
    }),
  },
  'do not sync a compressed segment before its rename': unsynced(isStage),
  'do not sync a compressed partial before its rename': unsynced(isPartialStage),
  'remove the plain partial before the compressed segment has its name': plainGoesFirst(isStage),
  'remove the plain partial before the compressed one has its name': plainGoesFirst(isPartialStage),
  'take what a crash left of a compression for the whole': {
    fs: (fs) => ({
      ...fs,
      unlink: (path) =>
        isStage(path)
          ? fs.rename(path, join(dirname(path), basename(path).replace('.walkeep-', '')))
          : fs.unlink(path),
    }),
  },
  'do not note complete segments in the ledger': {
    fs: (fs: FileSystem) =>
      withPaths(fs, (paths) => ({
        writev: async (fd, buffers, position) => {
          const isLedger = paths.get(fd)?.endsWith('.walkeep-ledger');
          const all = isLedger ? Buffer.concat(buffers).toString() : '';
          return all.includes('"complete"') ? all.length : fs.writev(fd, buffers, position);
        },
      })),
  },
};
