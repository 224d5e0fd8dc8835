import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterEach, describe, expect, it } from 'vitest';
import { logTo } from '../../src/cli/serve/log.js';
import type { ControlRequest, ControlResults } from '../../src/serve/control/protocol.js';
import { ControlServer } from '../../src/serve/control/server.js';
import type { ServerStatus } from '../../src/serve/status.js';
import { captureOutput, run } from '../cli/run.js';
import { scratchDir } from '../support/scratch.js';

const statusOf = (name: string, more: Partial<ServerStatus> = {}): ServerStatus => ({
  ...{ name, state: 'streaming', since: new Date().toISOString(), directory: `/${name}` },
  ...{ restarts: 0, rpoSeconds: 0, totals: { segments: 0, connections: 1 } },
  rpoLimitSeconds: 30,
  ...more,
});

const position = {
  ...{ received: '0/5000000', written: '0/5000000', flushed: '0/4000000', serverEnd: '0/5000000' },
  timeline: 1,
};

const open: ControlServer[] = [];
afterEach(async () => {
  for (const server of open.splice(0)) await server.close();
});

/** A control socket that answers so, and what it was asked. */
async function controlled(result: ControlResults[keyof ControlResults]) {
  const dir = scratchDir('ctl');
  const socket = join(dir, 's');
  const asked: ControlRequest[] = [];
  const control = async (request: ControlRequest) => {
    asked.push(request);
    return result;
  };
  open.push(await ControlServer.open(socket, control));
  const file = join(dir, 'walkeep.yaml');
  // Whatever else is wrong with it, it names the socket.
  writeFileSync(file, `version: 9\ncontrol: { socket: ${socket} }\n`);
  return { asked, socket, file };
}

describe('status', () => {
  const answer = (servers: ServerStatus[]) => ({ version: '1', pid: 1, config: '/c', servers });

  it('prints a table, and ends with 0 if all stream', async () => {
    const receiver = { state: 'streaming' as const, segments: 1, connections: 1, position };
    const { asked, file } = await controlled(answer([statusOf('shop', { receiver })]));
    const { code, stdout } = await run('walkeep', 'status', '-c', file);
    expect(code).toBe(0);
    expect(stdout.split('\n')[1]).toMatch(
      /^shop {4}streaming +\S+ s +0\/4000000 +16\.8 MB +0\.0 s +0$/,
    );
    expect(asked).toEqual([{ command: 'status' }]);
  });

  it('ends with 1 and says why if one does not', async () => {
    const ended = { code: 'WK_GAP', message: 'WAL is missing\u001b[2J' };
    const held = statusOf('ledger', { state: 'held', ended, rpoSeconds: 90 });
    const { asked, socket } = await controlled(answer([statusOf('shop'), held]));
    const { code, stdout } = await run('walkeep', 'status', '--socket', socket, 'ledger');
    expect(code).toBe(1);
    expect(stdout).toContain('WAL is missing\\x1b[2J');
    expect(asked).toEqual([{ command: 'status', server: 'ledger' }]);
    const { stdout: json } = await run('walkeep', 'status', '--json', '--socket', socket);
    const lines = json.trim().split('\n');
    expect(lines.map((line) => JSON.parse(line).name)).toEqual(['shop', 'ledger']);
  });

  it('ends with 2 if there is no answer', async () => {
    const { code, stderr } = await run('walkeep', 'status', '--socket', '/nowhere/s');
    expect(code).toBe(2);
    expect(stderr).toContain('no answer from "walkeep serve"');
    expect((await run('walkeep', 'status')).code).toBe(2);
  });
});

describe('ctl', () => {
  it('asks for what it is told', async () => {
    const { asked, socket } = await controlled({});
    for (const args of [
      ['pause', 'a'],
      ['resume', 'a'],
      ['resume', '--accept-gap', 'a'],
    ]) {
      expect((await run('walkeep', 'ctl', '--socket', socket, ...args)).code).toBe(0);
    }
    expect(asked).toEqual([
      { command: 'pause', server: 'a' },
      { command: 'resume', server: 'a', acceptGap: false },
      { command: 'resume', server: 'a', acceptGap: true },
    ]);
  });

  it('refuses what makes no sense', async () => {
    const { asked, socket } = await controlled({});
    const wrong = [
      ...[[], ['stop'], ['pause'], ['resume'], ['pause', 'a', 'b'], ['reload', 'a']],
      ['pause', '--accept-gap', 'a'],
    ];
    for (const args of wrong) {
      expect((await run('walkeep', 'ctl', '--socket', socket, ...args)).code).toBe(1);
    }
    expect(asked).toEqual([]);
  });
});

it('serve refuses a configuration that is not valid, and arguments', async () => {
  const file = join(scratchDir('serve'), 'walkeep.yaml');
  writeFileSync(file, 'version: 1\n');
  const { code, stderr } = await run('walkeep', 'serve', '-c', file);
  expect(code).toBe(1);
  expect(stderr).toBe(`walkeep: error: ${file}:1:1: servers: is missing\n`);
  expect((await run('walkeep', 'serve')).code).toBe(1);
  expect((await run('walkeep', 'serve', '-c', file, 'more')).stderr).toContain('too many');
});

it('logs JSON where there is no terminal, else text, and no secret', () => {
  const entry = {
    ...{ level: 'warning' as const, event: 'disconnect', server: 'shop', code: 'WK_CONNECTION' },
    ...{ message: 'no postgresql://me:geheim@db/\u001b[2J', hint: 'Look.' },
  };
  const piped = captureOutput('walkeep');
  logTo(piped.output)(entry);
  expect(JSON.parse(piped.stderr.text)).toEqual({
    ...entry,
    time: expect.stringMatching(/^\d{4}-\d\d-\d\dT/),
    message: 'no postgresql://me:***@db/\u001b[2J',
  });
  expect(piped.stderr.text).not.toContain('\u001b');
  const seen = captureOutput('walkeep', {}, true);
  logTo(seen.output)(entry);
  expect(seen.stderr.text).toContain(
    'walkeep: warning: shop: no postgresql://me:***@db/\\x1b[2J\n',
  );
  expect(seen.stderr.text).toContain('walkeep: hint: Look.\n');
});
