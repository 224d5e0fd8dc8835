import { spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import type { Container, Pod } from '../docs/manifests.js';
import { copyPackage } from './package-copy.js';
import { killAtEnd, scratchDir } from './scratch.js';

/** Whether this process may give another one a file system of its own. */
export const CAN_MAKE_PODS =
  process.getuid?.() === 0 &&
  spawnSync('unshare', ['--mount', 'sh', '-c', 'mount -t tmpfs none /mnt && chroot / true'])
    .status === 0;

/**
 * Makes a root file system in $1 of this machine's programs and what lies in $2, with $3 as image, and
 * mounts the rest (pairs of directory and path, "-" before a path: read-only). Only those can be written.
 */
const ENTER = `
set -e
root=$1 etc=$2 image=$3 node=$4
shift 4
mount -t tmpfs none "$root"
cd "$root"
mkdir usr proc dev tmp opt run var
cp -a "$etc" etc
for name in bin lib lib64 sbin; do
  if [ -L /$name ]; then cp -a /$name $name; elif [ -d /$name ]; then
    mkdir $name; mount --bind /$name $name; mount -o remount,ro,bind $name
  fi
done
for name in usr dev; do mount --rbind /$name $name; done
mount -o remount,ro,bind usr
mount -t proc proc proc 2>/dev/null || mount --rbind /proc proc
mkdir -p opt/walkeep opt/node
mount --bind "$image" opt/walkeep
mount -o remount,ro,bind opt/walkeep
touch opt/node/node
mount --bind "$node" opt/node/node
ln -s ../walkeep/bin/walkeep opt/node/walkeep
while [ "$1" != -- ]; do
  path=\${2#-}
  mkdir -p "./$path"
  mount --bind "$1" "./$path"
  [ "$path" = "$2" ] || mount -o remount,ro,bind "./$path"
  shift 2
done
shift
mount -o remount,ro "$root"
user=$1 group=$2
shift 2
PATH=/opt/node:/usr/bin:/bin:/usr/sbin:/sbin
export PATH
exec chroot "$root" /usr/bin/setpriv --reuid "$user" --regid "$group" --groups "$group" \\
  --no-new-privs --bounding-set=-all --inh-caps=-all -- "$@"
`;

/** What a container runs as, and how it ends. */
export interface PodProcess {
  pid: number;
  output(): string;
  exit: Promise<number | null>;
  kill(signal: NodeJS.Signals): void;
}

/**
 * A pod as a kubelet makes it, as far as files, users and rights go: volumes of ConfigMaps and Secrets
 * behind a symbolic link that is swapped, groups and modes of `fsGroup`, a root that is read-only.
 */
export class PodSandbox {
  readonly #pod: Pod;
  readonly #image = copyPackage();
  readonly #dir = scratchDir('pod');
  readonly #etc = scratchDir('etc');
  readonly #volumes = new Map<string, string>();

  constructor(pod: Pod, claims: readonly string[]) {
    this.#pod = pod;
    const { runAsUser: user, runAsGroup: group } = pod.securityContext;
    writeFileSync(join(this.#etc, 'passwd'), `node:x:${user}:${group}::/home/node:/bin/sh\n`);
    writeFileSync(join(this.#etc, 'hosts'), '127.0.0.1 localhost\n');
    for (const path of [this.#etc, this.#dir]) chmodSync(path, 0o755);
    for (const name of claims) this.#make(name, 0o2775);
    for (const volume of pod.volumes) this.#make(volume.name, volume.emptyDir ? 0o2777 : 0o2755);
  }

  #make(name: string, mode: number): void {
    const path = join(this.#dir, name);
    mkdirSync(path);
    chownSync(path, 0, this.#pod.securityContext.fsGroup);
    chmodSync(path, mode);
    this.#volumes.set(name, path);
  }

  /** Where the files of a volume are. */
  volume(name: string): string {
    return this.#volumes.get(name) as string;
  }

  /** Makes the files of a ConfigMap or Secret these, at once: as a kubelet does. */
  project(name: string, files: Readonly<Record<string, string>>): void {
    const volume = this.volume(name);
    const { fsGroup } = this.#pod.securityContext;
    const secret = this.#pod.volumes.find((one) => one.name === name)?.secret;
    const data = mkdtempSync(join(volume, '..2026_'));
    chownSync(data, 0, fsGroup);
    chmodSync(data, 0o2755);
    for (const [key, text] of Object.entries(files)) {
      const path = join(data, key);
      writeFileSync(path, text);
      chownSync(path, 0, fsGroup);
      // The group of fsGroup may read whatever the manifest says.
      chmodSync(path, (secret?.defaultMode ?? 0o644) | 0o440);
      const link = join(volume, key);
      rmSync(link, { force: true });
      symlinkSync(join('..data', key), link);
    }
    symlinkSync(data.slice(volume.length + 1), join(volume, '..data_tmp'));
    renameSync(join(volume, '..data_tmp'), join(volume, '..data'));
  }

  /** Runs a command as a container of the pod would. */
  run({ volumeMounts }: Container, command: readonly string[]): PodProcess {
    const { runAsUser, runAsGroup } = this.#pod.securityContext;
    const mounts = volumeMounts.flatMap(({ name, mountPath, readOnly }) => [
      this.volume(name),
      `${readOnly ? '-' : ''}${mountPath}`,
    ]);
    const root = join(this.#dir, 'root');
    mkdirSync(root, { recursive: true });
    const args = [root, this.#etc, this.#image, process.execPath, ...mounts];
    const user = ['--', `${runAsUser}`, `${runAsGroup}`];
    return started('unshare', [
      ...['--mount', '--propagation', 'private', 'sh', '-c', ENTER, 'enter'],
      ...[...args, ...user, ...command],
    ]);
  }

  /** Runs a command beside a process of the pod, as `kubectl exec` does. */
  exec({ pid }: PodProcess, command: readonly string[]): PodProcess {
    const { runAsUser, runAsGroup } = this.#pod.securityContext;
    return started('nsenter', [
      ...['--target', `${pid}`, '--mount', '--root', '--wd'],
      ...['--setuid', `${runAsUser}`, '--setgid', `${runAsGroup}`],
      ...['/usr/bin/env', 'PATH=/opt/node:/usr/bin:/bin', ...command],
    ]);
  }
}

function started(program: string, args: readonly string[]): PodProcess {
  const child = spawn(program, args, { stdio: ['ignore', 'pipe', 'pipe'], env: BARE, cwd: '/' });
  killAtEnd(child);
  let text = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding('utf8').on('data', (piece) => {
      text += piece;
    });
  }
  return {
    pid: child.pid as number,
    output: () => text,
    exit: new Promise((resolve) => child.once('close', resolve)),
    kill: (signal) => void child.kill(signal),
  };
}

const BARE = { PATH: process.env.PATH };
