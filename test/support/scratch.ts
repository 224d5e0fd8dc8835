import { type ChildProcess, spawn } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

/** The directory of package.json, from the sources as well as from compiled copies of them. */
export const packageRoot = (() => {
  let dir = dirname(fileURLToPath(import.meta.url));
  while (!existsSync(join(dir, 'package.json'))) dir = dirname(dir);
  return dir;
})();

const isRoot = process.getuid?.() === 0;

/** Whom servers run as: PostgreSQL refuses root and any uid without a passwd entry. */
export const serverUser: { uid?: number; gid?: number } = isRoot ? { uid: 65534, gid: 65534 } : {};

/** Gives a path to the servers' user. */
export function giveToServer(path: string): void {
  if (isRoot) chownSync(path, 65534, 65534);
}

/**
 * Outlives this process by a moment, however it ends (SIGKILL too: the pipe closes), kills what
 * is still running and removes the files. A server's children each have their own process group.
 */
const WATCHDOG = `
cat >/dev/null
for f in "$1"/pids/*; do
  [ -e "$f" ] || continue
  pid=\${f##*/}
  children=$(cat /proc/$pid/task/*/children 2>/dev/null)
  kill -9 -$pid $pid $children 2>/dev/null
done
for i in 1 2 3 4 5; do rm -rf "$1" 2>/dev/null && break; sleep 0.2; done
`;

let root: string | undefined;

function scratchRoot(): string {
  if (root) return root;
  // Short: a unix socket path has at most 107 bytes.
  root = mkdtempSync(join(tmpdir(), 'wk-'));
  // The servers' user passes through to its own directories.
  chmodSync(root, 0o711);
  mkdirSync(join(root, 'pids'));
  const watchdog = spawn('sh', ['-c', WATCHDOG, 'watchdog', root], {
    stdio: ['pipe', 'ignore', 'ignore'],
    detached: true,
  });
  watchdog.unref();
  (watchdog.stdin as unknown as { unref(): void }).unref();
  return root;
}

/** A new directory, removed when this process ends. `forServer` gives it to the servers' user. */
export function scratchDir(prefix = 'd', options: { forServer?: boolean } = {}): string {
  const dir = mkdtempSync(join(scratchRoot(), `${prefix}-`));
  if (options.forServer) giveToServer(dir);
  return dir;
}

/**
 * Removes a scratch directory now instead of at the end. The far side of a connection that was cut
 * may still make a file in it: Node's own retries do not list a directory again, so all is retried.
 */
export function removeScratch(dir: string): void {
  for (let tries = 20; ; tries -= 1) {
    try {
      rmSync(dir, { recursive: true, force: true });
      return;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOTEMPTY' || tries === 0) throw error;
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 100);
    }
  }
}

/** Has the watchdog kill a child that is still running when this process ends. */
export function killAtEnd(child: ChildProcess): void {
  if (child.pid === undefined) return;
  const file = join(scratchRoot(), 'pids', String(child.pid));
  writeFileSync(file, '');
  child.once('exit', () => rmSync(file, { force: true }));
}
