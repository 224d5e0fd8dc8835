import { spawn, spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { ServiceNotifier } from '../../src/serve/service-notifier.js';
import { killAtEnd, scratchDir } from '../support/scratch.js';
import { waitFor } from '../support/wait.js';

const has = (program: string): boolean => spawnSync(program, ['--version']).status === 0;
const TOOLS = has('systemd-notify') && has('python3');

/** Prints what comes, a datagram a line. */
const LISTENER = `
import socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
print('bound', flush=True)
while True: print(repr(s.recv(4096)), flush=True)
`;

it.skipIf(!TOOLS)('tells a service manager when it is ready, alive and stopping', async () => {
  const socket = join(scratchDir('notify'), 's');
  const listener = spawn('python3', ['-c', LISTENER, socket]);
  killAtEnd(listener);
  let heard = '';
  listener.stdout.setEncoding('utf8').on('data', (text) => {
    heard += text;
  });
  await waitFor(() => heard.includes('bound'));
  const failures: string[] = [];
  const { PATH } = process.env;
  const env = { PATH, NOTIFY_SOCKET: socket, WATCHDOG_USEC: '400000' };
  const notifier = new ServiceNotifier(env, (why) => failures.push(why));
  notifier.ready();
  await waitFor(() => heard.includes('READY=1'));
  await waitFor(() => heard.split('WATCHDOG=1').length > 3);
  notifier.stopping();
  await waitFor(() => heard.includes('STOPPING=1'));
  expect(heard).toContain(`MAINPID=${process.pid}`);
  expect(failures).toEqual([]);
  listener.kill('SIGKILL');
});

it('says once that a service manager cannot be told, and nothing where there is none', async () => {
  const failures: string[] = [];
  const failed = (why: string) => void failures.push(why);
  new ServiceNotifier({ PATH: '' }, failed).ready();
  const notifier = new ServiceNotifier({ PATH: '/nowhere', NOTIFY_SOCKET: '/nowhere/s' }, failed);
  notifier.ready();
  await waitFor(() => failures.length > 0);
  notifier.stopping();
  notifier.ready();
  expect(failures[0]).toMatch(/^systemd-notify: /);
});
