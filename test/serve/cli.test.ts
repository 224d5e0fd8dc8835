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
    // It has neither stores nor jobs.
    const one = await run('walkeep', 'status', '-c', file, 'shop');
    expect(one.stdout.split('\n').slice(2)).toEqual(['']);
  });

  it('ends with 1 and says why if one does not', async () => {
    const ended = { code: 'WK_GAP', message: 'WAL is missing\u001b[2J' };
    // What was wrong with a connection before does not hold it.
    const error = { code: 'WK_CONNECTION', message: 'refused' };
    const receiver = { state: 'disconnected' as const, segments: 0, connections: 1, error };
    const held = statusOf('ledger', { state: 'held', ended, receiver, rpoSeconds: 90 });
    const { asked, socket } = await controlled(answer([statusOf('shop'), held]));
    const { code, stdout } = await run('walkeep', 'status', '--socket', socket, 'ledger');
    expect(code).toBe(1);
    expect(stdout).toContain('WAL is missing\\x1b[2J');
    expect(asked).toEqual([{ command: 'status', server: 'ledger' }]);
    const { stdout: json } = await run('walkeep', 'status', '--json', '--socket', socket);
    const lines = json.trim().split('\n');
    expect(lines.map((line) => JSON.parse(line).name)).toEqual(['shop', 'ledger']);
  });

  it('shows jobs, in brief and each', async () => {
    const last = {
      ...{ startedAt: '2026-01-01T00:00:00Z', endedAt: '2026-01-01T01:00:00Z' },
      ...{ outcome: 'bad' as const, by: 'schedule' as const, findings: 3 },
    };
    const job = {
      job: 'verify_full' as const,
      place: 'directory',
      state: 'waiting' as const,
      last,
    };
    const shop = statusOf('shop', { jobs: [{ ...job, next: '2099-01-04T04:00:00.000Z' }] });
    const { socket } = await controlled(answer([shop]));
    const all = await run('walkeep', 'status', '--socket', socket);
    expect(all.stdout).toMatch(/JOBS[\s\S]*1 bad/);
    expect(all.stdout).not.toContain('verify_full');
    const one = await run('walkeep', 'status', '--socket', socket, 'shop');
    expect(one.stdout).toMatch(
      /verify_full +directory +waiting +bad +\d+ days +01-04 04:00 +3 findings/,
    );
    expect(Math.max(...one.stdout.split('\n').map(({ length }) => length))).toBeLessThanOrEqual(80);
  });

  it('says how stores are, each of them where one server is named', async () => {
    const since = '2026-01-01T00:00:00.000Z';
    const totals = { segments: 1, failures: 0 };
    const store = { state: 'shipping' as const, since, rpoSeconds: 0, totals };
    const error = { code: 'WK_STORE_UNCERTAIN', message: 'no answer\u001b[2J' };
    const behind = { state: 'away' as const, rpoSeconds: 90, error, queueBytes: 33_554_432 };
    const stores = [
      { ...store, name: 'minio', place: 's3://wal', shippedLsn: '0/4000000', queueBytes: 0 },
      { ...store, ...behind, name: 'vault', place: 'ssh://vault/srv' },
    ];
    const { socket } = await controlled(answer([statusOf('shop', { stores })]));
    const all = await run('walkeep', 'status', '--socket', socket);
    expect(all.stdout).toMatch(/STORES.*\n.* 1 away/);
    expect(all.stdout).not.toContain('minio');
    const { stdout } = await run('walkeep', 'status', '--socket', socket, 'shop');
    expect(stdout).toMatch(/^minio +shipping +.+0\/4000000 +0 B +0\.0 s$/m);
    expect(stdout).toMatch(/^vault +away +.+33\.6 MB +1 min +no answer\\x1b\[2J$/m);
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

  it('begins jobs, and waits for them', async () => {
    const asked: ControlRequest[] = [];
    const socket = join(scratchDir('ctl'), 's');
    const verify = { id: 7, job: 'verify_full', place: 'directory' };
    const ends = [
      { ...verify, state: 'running' as const },
      { ...verify, state: 'ended' as const, outcome: 'bad' as const, code: 1 },
      { ...verify, state: 'ended' as const, outcome: 'failed' as const, message: 'no hook' },
    ];
    const control = async (request: ControlRequest) => {
      asked.push(request);
      if (request.command === 'run') return { runs: [{ ...verify, state: 'queued' as const }] };
      return { runs: request.command === 'cancel' ? [] : [ends.shift() as (typeof ends)[0]] };
    };
    open.push(await ControlServer.open(socket, control));
    const ctl = (...args: string[]) => run('walkeep', 'ctl', '--socket', socket, ...args);
    expect(await ctl('verify', '--full', 'a')).toMatchObject({
      ...{ code: 0, stdout: 'verify_full (directory): queued\n' },
    });
    expect(await ctl('verify', '--full', '--wait', 'a')).toMatchObject({
      ...{ code: 1, stdout: 'verify_full (directory): bad\n' },
    });
    expect(await ctl('rehearse', '--wait', 'a')).toMatchObject({ code: 2 });
    expect((await ctl('backup', '--type', 'differential', 'a')).code).toBe(0);
    expect(await ctl('cancel', 'a')).toMatchObject({ code: 0, stdout: 'nothing runs or waits\n' });
    expect(asked.filter(({ command }) => command !== 'runs')).toEqual([
      { command: 'run', server: 'a', request: { job: 'verify', full: true } },
      { command: 'run', server: 'a', request: { job: 'verify', full: true } },
      { command: 'run', server: 'a', request: { job: 'rehearse' } },
      { command: 'run', server: 'a', request: { job: 'backup', type: 'differential' } },
      { command: 'cancel', server: 'a' },
    ]);
  });

  it('refuses what makes no sense', async () => {
    const { asked, socket } = await controlled({});
    const wrong = [
      ...[[], ['stop'], ['pause'], ['resume'], ['pause', 'a', 'b'], ['reload', 'a']],
      ['pause', '--accept-gap', 'a'],
      ...[['verify'], ['backup', '--type', 'half', 'a'], ['verify', '--type', 'full', 'a']],
      ...[['pause', '--wait', 'a'], ['backup', '--full', 'a'], ['cancel']],
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
