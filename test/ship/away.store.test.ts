import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { decodeBytes } from '../../src/codec/stages.js';
import { type Lsn, parseLsn } from '../../src/lsn.js';
import { segmentFileName, segmentOf } from '../../src/wal/file-name.js';
import { bytesOf, environmentOf, openStore } from '../store/s3/stores.js';
import { disposer } from '../support/cleanup.js';
import { runCli } from '../support/cli.js';
import { FaultProxy } from '../support/fault-proxy.js';
import { PostgresServer } from '../support/postgres.js';
import { archiveDirectory, content, receive, waitEqual, writeWal } from '../support/receiving.js';
import { sharedRgw } from '../support/rgw-setup.js';
import { delay, waitFor } from '../support/wait.js';

const rgw = sharedRgw();
const keep = disposer();
/** All of it: `WALKEEP_AWAY=300` seconds of 10 MB/s; the server, its archive and the store take 10 GB. */
const SECONDS = Number(process.env.WALKEEP_AWAY ?? 0);
const BYTES_PER_SECOND = 10e6;
const UNITS = { B: 1, KiB: 1024, MiB: 1024 ** 2, GiB: 1024 ** 3 };
const HOW_OFTEN_TOLD_MS = 30_000;

const complete = (directory: string) =>
  readdirSync(directory).filter((name) => /^[0-9A-F]{24}$/.test(name));

describe.skipIf(!rgw)('receive --store while the store is away', () => {
  const timeout = 600_000 + 5000 * SECONDS;
  it('receives on, tells the lag to a segment, and ships all when it is back', {
    timeout,
  }, async () => {
    const server = keep(
      await PostgresServer.create({
        major: 18,
        archive: true,
        segmentSizeMb: SECONDS > 0 ? 16 : 1,
      }),
    );
    const bucket = await rgw!.createBucket();
    const proxy = keep(await FaultProxy.listen({ target: rgw!.facts.http }));
    const directory = archiveDirectory();
    const env = environmentOf(rgw!.owner);
    const place = `s3://${bucket}?endpoint=${proxy.url}`;
    const args = ['-v', '--store', place];
    const run = keep(receive(directory, server.conninfo(), args, { env }));
    await run.waitForOutput(/starting log streaming/);
    const { segmentSize } = server;

    /** What `check` says of the place. */
    const told = async (): Promise<{ at: Lsn; message: string }> => {
      const check = keep(
        runCli(['check', '--json', '-D', directory, '-d', server.conninfo(), '-w']),
      );
      await check.exit;
      const message = check.stdout.split('\n').find((line) => line.includes(`${place}: up to`));
      const at = /up to ([0-9A-F]+\/[0-9A-F]+)/.exec(message ?? '')?.[1];
      if (message === undefined || at === undefined) throw new Error(check.stdout);
      return { at: parseLsn(at), message };
    };
    /** How far the place is, told within one segment of what the server has made. */
    const isTold = async (behind: boolean) => {
      const { at, message } = await told();
      const [, number = 0, unit = 'MiB'] = /behind by ([\d.]+) ((?:[KMG]i)?B)/.exec(message) ?? [];
      const lag = Number(number) * UNITS[unit as keyof typeof UNITS];
      // What is told is rounded to a tenth.
      const rounded = 0.06 * UNITS[unit as keyof typeof UNITS];
      expect(lag > 0).toBe(behind);
      const missing = Number((await server.currentLsn()) - at) - lag;
      expect(missing).toBeGreaterThanOrEqual(-rounded);
      expect(missing).toBeLessThanOrEqual(segmentSize + rounded);
      return true;
    };

    await writeWal(server, 3 * segmentSize);
    await waitFor(() => isTold(false), { what: 'the first segments to be shipped' });

    proxy.away = true;
    proxy.cut();
    const before = run.stderr;
    const left = await server.currentLsn();
    for (let i = 0; i < 12; i++) await writeWal(server, 2_000_000);
    let longestTold = 0;
    for (let [began, toldAt] = [Date.now(), Date.now()]; Date.now() - began < SECONDS * 1000; ) {
      const due = ((Date.now() - began) / 1000) * BYTES_PER_SECOND;
      const behind = due - Number((await server.currentLsn()) - left);
      if (behind > 0) await writeWal(server, Math.floor(Math.min(behind, 20e6)));
      else await delay(50);
      if (Date.now() - toldAt < HOW_OFTEN_TOLD_MS) continue;
      toldAt = Date.now();
      await waitFor(() => isTold(true), { what: 'the lag to be told' });
      longestTold = Math.max(longestTold, Date.now() - toldAt);
    }
    await waitEqual(directory, server);
    await waitFor(() => isTold(true), { what: 'the lag to be told' });
    expect(run.stderr.slice(before.length)).not.toMatch(/starting log streaming/);

    // It is back, behind a narrow line.
    proxy.options = { ...proxy.options, bytesPerSecond: 50_000_000 };
    const queued = Number((await server.currentLsn()) - left);
    const back = performance.now();
    proxy.away = false;
    const drained = { what: 'the queue to be drained', timeoutMs: 120_000 + 1000 * SECONDS };
    await waitFor(() => isTold(false), { ...drained, intervalMs: SECONDS > 0 ? 1000 : 50 });
    if (SECONDS > 0) {
      const seconds = (performance.now() - back) / 1000;
      const speed = queued / 1e6 / seconds;
      process.stderr.write(`${JSON.stringify({ queued, seconds, speed, longestTold })}\n`);
    }
    const direct = openStore(rgw!, bucket);
    const first = segmentOf(await server.currentLsn(), segmentSize) - 1n;
    expect(complete(directory)).toContain(segmentFileName(1, first, segmentSize));
    const keys: string[] = [];
    for await (const { key } of direct.list('systems/')) keys.push(key);
    for (const name of complete(directory)) {
      const key = keys.find((one) => one.endsWith(`/wal/00000001/${name}`));
      const stored = await bytesOf(direct, key ?? name);
      const { content: bytes } = await decodeBytes(stored as Buffer, { name });
      expect(content(join(directory, name)).equals(bytes), name).toBe(true);
    }
    await direct.close();
  });
});
