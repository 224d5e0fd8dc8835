import type { FileSystem } from '../../src/files/file-system.js';

/** Remembers which path a descriptor was opened with. */
export function withPaths(
  fs: FileSystem,
  change: (paths: Map<number, string>) => Partial<FileSystem>,
): FileSystem {
  const paths = new Map<number, string>();
  const tracking: FileSystem = {
    ...fs,
    openSync: (path, flags, mode) => {
      const fd = fs.openSync(path, flags, mode);
      paths.set(fd, path);
      return fd;
    },
    open: async (path, flags, mode) => {
      const fd = await fs.open(path, flags, mode);
      paths.set(fd, path);
      return fd;
    },
    renameSync: (from, to) => {
      fs.renameSync(from, to);
      for (const [fd, path] of paths) if (path === from) paths.set(fd, to);
    },
  };
  return { ...tracking, ...change(paths) };
}

export const nothing = (): Promise<void> => Promise.resolve();
