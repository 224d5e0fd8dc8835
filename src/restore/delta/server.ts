import fsp from 'node:fs/promises';
import { basename, join } from 'node:path';
import { SERVER_DIRECTORIES } from './own.js';

/** What was found out of programs at work in a data directory. */
export interface Looked {
  /** Who is at work there, as a sentence; undefined: nobody that can be seen from here. */
  found: string | undefined;
  /** What this machine does not tell, as sentences. */
  unseen: string[];
}

/** PolarDB's and others' are called after it. */
const SERVER_PROGRAM = /postgres|postmaster/;
/** statfs(2): NFS, SMB, CIFS, SMB2, Ceph, FUSE, GFS2, OCFS2, Lustre, 9p. */
const SHARED_FILE_SYSTEMS: ReadonlySet<number> = new Set([
  ...[0x6969, 0x517b, 0xff534d42, 0xfe534d42, 0x00c36400, 0x65735546, 0x01161970, 0x7461636f],
  ...[0x0bd00bd0, 0x01021997],
]);

/** What postmaster.pid says (miscadmin.h, LOCK_FILE_LINE_…). */
interface PidFile {
  pid: number;
  /** Of the shared memory that keeps a second server out. */
  shmId: number | undefined;
}

/**
 * Whether a server is at work in a data directory, also one that lost its postmaster.pid, or one of
 * whose processes some outlived the postmaster. Whoever writes to its files is as bad: pg_rewind, a
 * copy. A server can use none but a directory of its own user, who sees all its processes; it is not
 * seen from within a container that does not have its processes, nor on another machine.
 */
export async function lookForServer(
  dataDir: string,
  tablespaces: readonly string[] = [],
): Promise<Looked> {
  const unseen: string[] = [];
  const looked = (found: string | undefined): Looked => ({ found, unseen });
  const own = await fsp.stat(dataDir).catch(() => undefined);
  if (!own) return looked(undefined);
  const { type } = await fsp.statfs(dataDir);
  if (SHARED_FILE_SYSTEMS.has(type)) {
    unseen.push('it is on a file system that other machines may use: their servers are not seen');
  }
  const pidFile = await readPidFile(dataDir);
  const processes = await processNumbers();
  if (processes === undefined) {
    unseen.push('this system does not tell what processes work in a directory');
    if (pidFile && isAlive(pidFile.pid)) {
      return looked(`postmaster.pid names process ${pidFile.pid}, which runs`);
    }
    return looked(undefined);
  }
  for (const pid of processes) {
    const found = await atWork(pid, { dataDir, id: own, tablespaces });
    if (found) return looked(found);
  }
  // What can be looked at works elsewhere: the number was given anew.
  if (pidFile && isAlive(pidFile.pid) && (await isHidden(pidFile.pid, own.uid))) {
    return looked(
      `postmaster.pid names process ${pidFile.pid}, which runs, and is not ours to see`,
    );
  }
  return looked(await attachedMemory(own.ino, pidFile?.shmId));
}

async function readPidFile(dataDir: string): Promise<PidFile | undefined> {
  const text = await fsp.readFile(join(dataDir, 'postmaster.pid'), 'utf8').catch(() => undefined);
  if (text === undefined) return undefined;
  const lines = text.split('\n');
  // That of a server in single-user mode is negative.
  const pid = Math.abs(Number.parseInt(lines[0] ?? '', 10));
  if (!Number.isSafeInteger(pid) || pid === 0) return undefined;
  const [, shmId] = /^\s*\d+\s+(\d+)\s*$/.exec(lines[6] ?? '') ?? [];
  return { pid, shmId: shmId === undefined ? undefined : Number(shmId) };
}

async function processNumbers(): Promise<number[] | undefined> {
  const names = await fsp.readdir('/proc').catch(() => [] as string[]);
  const numbers = names.filter((name) => /^\d+$/.test(name)).map(Number);
  if (!numbers.includes(process.pid)) return undefined;
  return numbers.filter((pid) => pid !== process.pid);
}

function isAlive(pid: number): boolean {
  if (pid === process.pid || pid === process.ppid) return false;
  try {
    return process.kill(pid, 0);
  } catch (e) {
    return (e as NodeJS.ErrnoException).code === 'EPERM';
  }
}

interface FileId {
  dev: number;
  ino: number;
}

/** By what it is and not by its name, which is another one within a container. */
async function workingDirectory(pid: number): Promise<FileId | 'unknown' | 'gone'> {
  try {
    return await fsp.stat(`/proc/${pid}/cwd`);
  } catch (e) {
    const { code = '' } = e as NodeJS.ErrnoException;
    return ['ENOENT', 'ESRCH'].includes(code) ? 'gone' : 'unknown';
  }
}

/** True for a process of the directory's owner that cannot be looked at. */
async function isHidden(pid: number, owner: number): Promise<boolean> {
  if ((await workingDirectory(pid)) !== 'unknown') return false;
  const process = await fsp.stat(`/proc/${pid}`).catch(() => undefined);
  return process?.uid === owner;
}

/** What a process does in the directory, as a sentence. */
async function atWork(
  pid: number,
  where: { dataDir: string; id: FileId; tablespaces: readonly string[] },
): Promise<string | undefined> {
  const { dataDir, id, tablespaces } = where;
  const at = await workingDirectory(pid);
  if (typeof at === 'string') return undefined;
  const program = basename(await fsp.readlink(`/proc/${pid}/exe`).catch(() => '')).split(' ')[0];
  // A person's shell may be there, too.
  if (at.dev === id.dev && at.ino === id.ino && SERVER_PROGRAM.test(program ?? '')) {
    return `process ${pid} ("${program}") is a server's that works in it`;
  }
  for (const fd of await fsp.readdir(`/proc/${pid}/fd`).catch(() => [] as string[])) {
    const path = await fsp.readlink(`/proc/${pid}/fd/${fd}`).catch(() => '');
    const below = path.startsWith(`${dataDir}/`) ? path.slice(dataDir.length + 1) : undefined;
    const isTablespace = tablespaces.some((root) => path.startsWith(`${root}/PG_`));
    if (isTablespace || SERVER_DIRECTORIES.includes(below?.split('/')[0] ?? '')) {
      return `process ${pid} ("${program}") has "${path}" open`;
    }
  }
  return undefined;
}

/**
 * A server has a piece of System V shared memory, called by the inode of its directory, to which all
 * its processes are attached (port/sysv_shmem.c). Where its processes cannot be looked at this tells.
 */
async function attachedMemory(
  inode: number,
  shmId: number | undefined,
): Promise<string | undefined> {
  const text = await fsp.readFile('/proc/sysvipc/shm', 'utf8').catch(() => '');
  const [header = '', ...lines] = text.split('\n');
  const names = header.trim().split(/\s+/);
  for (const line of lines) {
    const fields = line.trim().split(/\s+/);
    const field = (name: string) => Number(fields[names.indexOf(name)]);
    if (!(field('nattch') > 0)) continue;
    const key = field('key') >>> 0;
    const isNamed = shmId !== undefined && field('shmid') === shmId && field('key') !== 0;
    if (!isNamed && key !== Math.trunc(inode % 2 ** 32) >>> 0) continue;
    // Whoever made it works elsewhere: the inode of another file system's is the same.
    const creator = await workingDirectory(field('cpid'));
    if (typeof creator !== 'string') continue;
    if (creator === 'gone' && !isNamed) continue;
    return `${field('nattch')} processes are attached to the shared memory of a server that worked in it`;
  }
  return undefined;
}
