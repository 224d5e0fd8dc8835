import { spawnSync } from 'node:child_process';
import { existsSync, statSync, writeFileSync } from 'node:fs';
import { connect, Server } from 'node:net';
import { dirname, join } from 'node:path';
import fc from 'fast-check';
import { afterEach, expect, it, vi } from 'vitest';
import { ConfigError } from '../../../src/errors.js';
import { askControl } from '../../../src/serve/control/client.js';
import { LONGEST_REQUEST } from '../../../src/serve/control/protocol.js';
import { type Control, ControlServer } from '../../../src/serve/control/server.js';
import { scratchDir } from '../../support/scratch.js';

const STATUS = { version: '1', pid: 1, config: '/c', servers: [] };
const open: ControlServer[] = [];
afterEach(async () => {
  for (const server of open.splice(0)) await server.close();
});

async function listening(control: Control = async () => STATUS) {
  const path = join(scratchDir('ctl'), 'control');
  const server = await ControlServer.open(path, control);
  open.push(server);
  return { path, server };
}

/** What comes back for a text. */
const exchange = (path: string, text: string): Promise<string> =>
  new Promise((resolve) => {
    let answer = '';
    const socket = connect(path, () => socket.end(text));
    socket.setEncoding('utf8').on('data', (piece) => {
      answer += piece;
    });
    socket.on('error', () => {}).on('close', () => resolve(answer));
  });

it('answers its user, and nobody else gets there', async () => {
  const { path, server } = await listening();
  expect(statSync(path).mode & 0o777).toBe(0o600);
  expect(await askControl(path, { command: 'status' })).toEqual(STATUS);
  await server.close();
  open.length = 0;
  expect(existsSync(path)).toBe(false);
});

it('lends its mask to nothing that is begun meanwhile', async () => {
  const path = join(scratchDir('ctl'), 'control');
  const before = process.umask();
  const seen: number[] = [];
  const { listen } = Server.prototype;
  const spied = vi.spyOn(Server.prototype, 'listen').mockImplementation(function (
    this: Server,
    ...args: unknown[]
  ) {
    queueMicrotask(() => seen.push(process.umask()));
    return Reflect.apply(listen, this, args);
  });
  open.push(await ControlServer.open(path, async () => STATUS));
  spied.mockRestore();
  expect(seen).toEqual([before]);
  expect(statSync(path).mode & 0o777).toBe(0o600);
});

it('brings faults of a configuration to whoever asks', async () => {
  const faults = [{ line: 1, column: 2, at: 'x', message: 'is wrong' }];
  const { path } = await listening(async () => {
    throw new ConfigError('not valid', '/etc/w', faults);
  });
  const error = await askControl(path, { command: 'reload' }).catch((e) => e);
  expect(error).toMatchObject({ code: 'WK_CONFIG', path: '/etc/w', faults });
});

it('refuses what is no request, and answers others after that', async () => {
  const asked: unknown[] = [];
  const { path } = await listening(async (request) => {
    asked.push(request);
    return STATUS;
  });
  const wrong = [
    ...['\n', 'status\n', '{}\n', '[]\n', 'null\n', '5\n', '{"command":"stop"}\n'],
    ...[
      '{"command":"pause"}\n',
      '{"command":"pause","server":5}\n',
      'x'.repeat(LONGEST_REQUEST + 1),
    ],
  ];
  for (const text of wrong) expect(JSON.parse(await exchange(path, text)).ok).toBe(false);
  await fc.assert(
    fc.asyncProperty(fc.string({ unit: 'binary', maxLength: 40 }), async (text) => {
      const answer = await exchange(path, `${text}\n`);
      expect(JSON.parse(answer).ok).toBe(false);
    }),
    { numRuns: 50, seed: 20 },
  );
  expect(asked).toEqual([]);
  expect(await askControl(path, { command: 'status' })).toEqual(STATUS);
});

it('takes the place of a program that was killed, and of no other', async () => {
  const path = join(scratchDir('ctl'), 'control');
  const listen = `require('net').createServer().listen(process.argv[1], () => process.kill(process.pid, 'SIGKILL'))`;
  spawnSync(process.execPath, ['-e', listen, path]);
  expect(statSync(path).isSocket()).toBe(true);
  open.push(await ControlServer.open(path, async () => STATUS));
  expect(await askControl(path, { command: 'status' })).toEqual(STATUS);
  await expect(ControlServer.open(path, async () => STATUS)).rejects.toThrow(
    'another "walkeep serve"',
  );
  const file = join(scratchDir('ctl'), 'file');
  writeFileSync(file, 'of somebody');
  await expect(ControlServer.open(file, async () => STATUS)).rejects.toThrow('could not listen');
  expect(statSync(file).size).toBe(11);
});

it('says that the directory of its socket is not there', async () => {
  const path = join(scratchDir('ctl'), 'none', 'control');
  const error = await ControlServer.open(path, async () => STATUS).catch((e) => e);
  expect(error.message).toBe(`could not listen on "${path}": "${dirname(path)}" does not exist`);
  expect(error.hint).toContain('Make it first');
});

it('says that nobody is there', async () => {
  const error = await askControl('/nowhere/control', { command: 'status' }).catch((e) => e);
  expect(error.message).toContain('no answer from "walkeep serve" on "/nowhere/control"');
});
