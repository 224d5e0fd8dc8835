import { constants } from 'node:fs';
import type { FileSystem } from '../../src/files/file-system.js';
import { MUTATIONS_OF_COMPRESSION } from './mutations-compression.js';
import { nothing, withPaths } from './with-paths.js';
import type { Mutation } from './world.js';

const LEDGER = /\.walkeep-ledger$/;
const isLedger = (path: string) => LEDGER.test(path);
const isSpare = (path: string) => path.endsWith('.walkeep-spare');
const isSegment = (path: string) => /[0-9A-F]{24}$/.test(path);
const isPartial = (path: string) => /[0-9A-F]{24}\.partial$/.test(path);

/** A call that is put off until after the next rename, and reported as done at once. */
function afterRename(fs: FileSystem, isPutOff: (path: string) => boolean): FileSystem {
  const putOff: (() => Promise<unknown>)[] = [];
  return withPaths(fs, (paths) => {
    const later = (fd: number, act: () => Promise<unknown>) => {
      if (!isPutOff(paths.get(fd) ?? '')) return false;
      putOff.push(act);
      return true;
    };
    return {
      writev: async (fd, buffers, position) => {
        const copies = buffers.map((b) => Uint8Array.from(b));
        const length = buffers.reduce((sum, b) => sum + b.length, 0);
        const isPut =
          isLedger(paths.get(fd) ?? '') && later(fd, () => fs.writev(fd, copies, position));
        return isPut ? length : fs.writev(fd, buffers, position);
      },
      fdatasync: (fd) => (later(fd, () => fs.fdatasync(fd)) ? nothing() : fs.fdatasync(fd)),
      renameSync: (from, to) => {
        fs.renameSync(from, to);
        if (!isSegment(to)) return;
        for (const act of putOff.splice(0)) act().catch(() => undefined);
      },
    };
  });
}

/** Bugs that the simulation has to find, by what was done wrong. */
export const MUTATIONS: Record<string, Mutation> = {
  ...MUTATIONS_OF_COMPRESSION,
  'skip the fsync of the directory': {
    fs: (fs) =>
      withPaths(fs, (paths) => ({
        fsyncSync: (fd) => {
          if (paths.get(fd) !== '/archive') fs.fsyncSync(fd);
        },
        fsync: (fd) => (paths.get(fd) === '/archive' ? nothing() : fs.fsync(fd)),
      })),
  },
  'damaged WAL is not refused': { verify: 'off' },
  'acknowledge before the sync': { flush: ({ write }) => write },
  'skip the sync of commits': {
    fs: (fs) => ({ ...fs, fdatasyncSync: () => undefined }),
  },
  'write commits directly, but not durably': {
    fs: (fs) => ({
      ...fs,
      openSync: (path, flags, mode) => fs.openSync(path, flags & ~constants.O_DSYNC, mode),
    }),
  },
  'skip the sync of full segments': {
    fs: (fs) =>
      withPaths(fs, (paths) => ({
        fdatasync: (fd) => (isLedger(paths.get(fd) ?? '') ? fs.fdatasync(fd) : nothing()),
      })),
  },
  'sync only the segment that is open': {
    fs: (fs) => {
      let newest = -1;
      return withPaths(fs, (paths) => ({
        writevSync: (fd, buffers, position) => {
          newest = fd;
          return fs.writevSync(fd, buffers, position);
        },
        fdatasyncSync: (fd) => {
          if (fd === newest) fs.fdatasyncSync(fd);
        },
        fdatasync: (fd) =>
          fd === newest || isLedger(paths.get(fd) ?? '') ? fs.fdatasync(fd) : nothing(),
      }));
    },
  },
  'rename before the fsync': { fs: (fs) => afterRename(fs, (path) => !isLedger(path)) },
  'write the ledger after the rename': { fs: (fs) => afterRename(fs, isLedger) },
  'do not sync the ledger': {
    fs: (fs) =>
      withPaths(fs, (paths) => ({
        fdatasync: (fd) => (isLedger(paths.get(fd) ?? '') ? nothing() : fs.fdatasync(fd)),
      })),
  },
  'do not sync a new ledger before its rename': {
    fs: (fs) =>
      withPaths(fs, (paths) => ({
        fsync: (fd) => (paths.get(fd)?.endsWith('.tmp') ? nothing() : fs.fsync(fd)),
      })),
  },
  'retry a failed fsync and believe it': {
    fs: (fs) => ({
      ...fs,
      fdatasyncSync: (fd) => {
        try {
          fs.fdatasyncSync(fd);
        } catch {
          fs.fdatasyncSync(fd);
        }
      },
      fdatasync: (fd) => fs.fdatasync(fd).catch(() => fs.fdatasync(fd)),
    }),
  },
  'ignore a failed fsync': {
    fs: (fs) => ({ ...fs, fdatasync: (fd) => fs.fdatasync(fd).catch(() => undefined) }),
  },
  'keep positions over a reconnect': {
    flush: ({ flush }, kept) => {
      if (flush > kept.flush) kept.flush = flush;
      return kept.flush;
    },
  },
  'truncate an acknowledged partial': {
    fs: (fs) => ({
      ...fs,
      openSync: (path, flags, mode) => {
        const size = isPartial(path) ? fs.sizeSync(path) : undefined;
        const fd = fs.openSync(path, flags, mode);
        if (size !== undefined) {
          fs.ftruncateSync(fd, 0);
          fs.ftruncateSync(fd, size);
        }
        return fd;
      },
    }),
  },
  'start a new partial instead of going on': {
    fs: (fs) => ({
      ...fs,
      sizeSync: (path) => {
        const size = fs.sizeSync(path);
        if (size === undefined || !isPartial(path)) return size;
        fs.unlinkSync(path);
        return undefined;
      },
    }),
  },
  'take a short write for a whole one': {
    fs: (fs) => ({
      ...fs,
      writevSync: (fd, buffers, position) => {
        fs.writevSync(fd, buffers, position);
        return buffers.reduce((sum, b) => sum + b.length, 0);
      },
    }),
  },
  'name a new file before its size is durable': {
    fs: (fs) =>
      withPaths(fs, (paths) => ({
        fsyncSync: (fd) => {
          if (!paths.get(fd)?.endsWith('.walkeep-new')) fs.fsyncSync(fd);
        },
      })),
  },
  'skip the sync of the zero fill': {
    fs: (fs) =>
      withPaths(fs, (paths) => ({
        fdatasync: (fd) => (isSpare(paths.get(fd) ?? '') ? nothing() : fs.fdatasync(fd)),
      })),
  },
  'use the zero fill before it is done': {
    fs: (fs) => {
      const putOff: (() => Promise<unknown>)[] = [];
      return withPaths(fs, (paths) => ({
        writev: async (fd, buffers, position) => {
          if (!isSpare(paths.get(fd) ?? '')) return fs.writev(fd, buffers, position);
          putOff.push(() => fs.writev(fd, buffers, position));
          return buffers.reduce((sum, b) => sum + b.length, 0);
        },
        renameSync: (from, to) => {
          fs.renameSync(from, to);
          for (const act of putOff.splice(0)) act().catch(() => undefined);
        },
      }));
    },
  },
};
