import { execFile, spawn, spawnSync } from 'node:child_process';
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';
import { askControl } from '../../src/serve/control/client.js';
import { isRunning } from '../support/processes.js';
import { killAtEnd, packageRoot, scratchDir } from '../support/scratch.js';
import { waitFor } from '../support/wait.js';
import { readText } from './documents.js';
import { commandsOf } from './shell.js';
import { unitOf } from './unit-file.js';

const exec = promisify(execFile);
const has = (program: string): boolean => spawnSync(program, ['--version']).status === 0;

/** A unit with its program where this machine has it, and below a directory of the test's own. */
function placed(name: string) {
  const dir = scratchDir('unit');
  for (const sub of ['etc', 'run', 'lib', 'bin']) mkdirSync(join(dir, sub));
  symlinkSync(join(packageRoot, 'bin', 'walkeep'), join(dir, 'bin', 'walkeep'));
  const here = (text: string) =>
    text
      .replaceAll('/usr/local/bin/walkeep', join(dir, 'bin', 'walkeep'))
      .replaceAll('/etc/walkeep/', join(dir, 'etc', '/'))
      .replaceAll('/run/walkeep/', join(dir, 'run', '/'))
      .replaceAll('/var/lib/walkeep/', join(dir, 'lib', '/'));
  const file = `docs/examples/${name}`;
  return { dir, here, file, service: new Map(unitOf(file).get('Service')) };
}

const ANALYZE = has('systemd-analyze');
it.skipIf(!ANALYZE).each(['walkeep.service', 'walkeep-receive.service'])(
  'systemd-analyze finds nothing wrong with %s',
  async (name) => {
    const { dir, here, file } = placed(name);
    const unit = join(dir, name);
    // systemd looks for the user, whom only an installation makes.
    const text = here(readText(file)).replaceAll(/^(User|Group)=.*$/gm, '$1=root');
    writeFileSync(unit, text);
    const { stderr, stdout } = await exec('systemd-analyze', ['verify', '--man=no', unit]);
    expect({ stderr, stdout }).toEqual({ stderr: '', stdout: '' });
  },
);

/** Prints what comes, a datagram a line. */
const LISTENER = `
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
print('bound', flush=True)
while True: print(repr(s.recv(4096)), flush=True)
`;

const TOLD = has('systemd-notify') && has('python3');
it.skipIf(!TOLD)(
  'the service starts, is ready, feeds its watchdog, reloads and stops',
  async () => {
    const { dir, here, service } = placed('walkeep.service');
    const socket = join(dir, 'notify');
    const listener = spawn('python3', ['-c', LISTENER, socket]);
    killAtEnd(listener);
    let heard = '';
    listener.stdout.setEncoding('utf8').on('data', (text) => {
      heard += text;
    });
    await waitFor(() => heard.includes('bound'));
    // A server that answers nothing: the service is ready all the same.
    const silent = createServer().listen(0, '127.0.0.1');
    await waitFor(() => silent.listening);
    const { port } = silent.address() as { port: number };
    mkdirSync(join(dir, 'lib', 'shop'));
    writeFileSync(join(dir, 'etc', 'shop'), 'geheim\n', { mode: 0o600 });
    const config = (server: string) => `version: 1
control: { socket: ${here('/run/walkeep/control')} }
servers:
  ${server}:
    connection: host=127.0.0.1 port=${port} user=replicator
    password_file: ${here('/etc/walkeep/shop')}
    directory: ${here('/var/lib/walkeep/shop')}
`;
    const file = here('/etc/walkeep/walkeep.yaml');
    writeFileSync(file, config('shop'));
    const { PATH } = process.env;
    const env = {
      PATH: `${dirname(process.execPath)}:${PATH}`,
      // As systemd gives them for these settings; the seconds of the watchdog are too long to wait.
      ...{ NOTIFY_SOCKET: socket, WATCHDOG_USEC: `${Number(service.get('WatchdogSec')) * 10_000}` },
    };
    const command = (setting: string) => commandsOf(here(service.get(setting) as string))[0] ?? [];
    const [program = '', ...args] = command('ExecStart');
    const child = spawn(program, args, { env, stdio: ['ignore', 'ignore', 'pipe'] });
    killAtEnd(child);
    let log = '';
    child.stderr.setEncoding('utf8').on('data', (text) => {
      log += text;
    });
    const exit = new Promise<number | null>((resolve) => child.once('close', resolve));
    try {
      await waitFor(() => heard.includes('READY=1'));
      // systemd sees this process: the script before it is gone.
      expect(heard).toContain(`MAINPID=${child.pid}`);
      await waitFor(() => heard.split('WATCHDOG=1').length > 3);
      const asked = () => askControl(here('/run/walkeep/control'), { command: 'status' });
      const [before] = (await asked()).servers;
      const [reload = '', ...words] = command('ExecReload');
      writeFileSync(file, `${config('shop')}    slto: x\n`);
      // systemctl reload tells that it failed, and the journal why.
      const failed = await exec(reload, words, { env }).catch((e) => e);
      expect(failed).toMatchObject({
        code: 1,
        stdout: expect.stringContaining('unknown key "slto"'),
      });
      writeFileSync(file, config('other'));
      const { stdout } = await exec(reload, words, { env });
      expect(stdout).toBe('started: other\nstopped: shop\n');
      expect(isRunning(before?.pid as number)).toBe(false);
      const [after] = (await asked()).servers;
      child.kill('SIGTERM');
      expect(await exit).toBe(0);
      await waitFor(() => heard.includes('STOPPING=1'));
      expect(isRunning(after?.pid as number)).toBe(false);
      expect(log).not.toContain('"event":"notify"');
      expect(log).not.toContain('geheim');
    } finally {
      child.kill('SIGKILL');
      listener.kill('SIGKILL');
      silent.close();
    }
  },
);
