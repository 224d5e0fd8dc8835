import { chmod, open, rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { join } from 'node:path';

/** A listening socket whose existence says that this process is alive. */
export interface HeldSocket {
  close(): Promise<void>;
}

/**
 * Listens on a unix socket, without keeping the process running for it.
 * @throws the errno error of bind or listen, EADDRINUSE if another process holds it
 */
function hold(path: string): Promise<HeldSocket> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.destroy());
    server.once('error', reject);
    // `exclusive` keeps a node:cluster worker from holding it through its primary.
    server.listen({ path, exclusive: true }, () => {
      server.unref();
      resolve({ close: () => new Promise((done) => server.close(() => done())) });
    });
  });
}

/**
 * Takes the abstract unix socket of this name: it ends with the process, whatever happens, and
 * guards also when the lock file was removed by hand. Processes of other network namespaces do not
 * see it. 'taken' if another process has it, undefined where there is no such thing.
 */
export async function holdAbstractSocket(name: string): Promise<HeldSocket | 'taken' | undefined> {
  if (process.platform !== 'linux') return undefined;
  try {
    return await hold(`\0${name}`);
  } catch (e) {
    return (e as NodeJS.ErrnoException).code === 'EADDRINUSE' ? 'taken' : undefined;
  }
}

/**
 * A name of a file in `dir` that fits into sockaddr_un (108 bytes) however long `dir` is. Valid
 * until `close`.
 */
async function shortPath(dir: string, name: string) {
  const handle = await open(dir, 'r');
  return { path: `/proc/self/fd/${handle.fd}/${name}`, close: () => handle.close() };
}

/**
 * Listens on a socket file in the directory: unlike a PID it can be asked across containers of one
 * machine. Undefined where that is not possible (not Linux, or the file system has no sockets).
 */
export async function holdSocketFile(dir: string, name: string): Promise<HeldSocket | undefined> {
  if (process.platform !== 'linux') return undefined;
  const short = await shortPath(dir, name);
  try {
    const socket = await hold(short.path);
    // bind(2) leaves its mode to the umask. All that others could do is ask whether we live.
    await chmod(short.path, 0o600).catch(() => {});
    const close = async () => {
      await socket.close();
      // Node removes a socket's file by the path it was bound to, which is no more.
      await rm(join(dir, name), { force: true });
    };
    return { close };
  } catch {
    // A file system without sockets may have made a plain file of it. The name is ours alone.
    await rm(join(dir, name), { force: true }).catch(() => {});
    return undefined;
  } finally {
    await short.close();
  }
}

/** Whether a process still listens on a socket file; undefined if there is no telling. */
export async function isSocketHeld(dir: string, name: string): Promise<boolean | undefined> {
  if (process.platform !== 'linux') return undefined;
  const short = await shortPath(dir, name);
  try {
    return await new Promise((resolve) => {
      const socket = connect(short.path);
      socket.once('connect', () => {
        socket.destroy();
        resolve(true);
      });
      socket.once('error', (e: NodeJS.ErrnoException) =>
        resolve(e.code === 'ECONNREFUSED' ? false : undefined),
      );
    });
  } finally {
    await short.close();
  }
}
