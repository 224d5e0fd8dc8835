/**
 * How long a receiver takes from the arrival of one commit's WAL to its status reply with a flush
 * position that covers it: a scripted walsender on a unix-like loopback socket sends 200 bytes at
 * a fixed rate. No PostgreSQL in the way, so this is the receiver and the disk alone.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { backend, ScriptedServer } from '../test/support/scripted-server.js';
import { waitFor } from '../test/support/wait.js';
import { type Contender, pgReceivewal, Running, walkeep } from './receivers.js';
import { print, ratioText, saveResult, scratchRoot } from './report.js';
import { median, quantile } from './statistics.js';

const MESSAGES = Number(process.env.WALKEEP_BENCH_MESSAGES ?? 2000);
const ROUNDS = Number(process.env.WALKEEP_BENCH_ROUNDS ?? 5);
/** Milliseconds between an acknowledgement and the next message. */
const GAP = 0.3;
const SIZE = 200;

async function measure(
  contender: Contender,
): Promise<{ latencies: number[]; cpuPerMessage: number }> {
  const directory = mkdtempSync(join(scratchRoot(), 'ack-'));
  const start = 0x1000000n;
  const latencies: number[] = [];
  let done = false;
  let cpuBefore = 0;
  let running: Running | undefined;
  const server = await ScriptedServer.listen(async (conn) => {
    await conn.accept('15.0');
    const identity = { flushLsn: start, segmentSizeMb: 16 };
    const request = await conn.serve(identity);
    conn.socket.setNoDelay(true);
    conn.send(backend.copyBoth());
    let position = request.lsn as bigint;
    let sentAt = 0;
    let buffered = Buffer.alloc(0);
    const send = () => {
      const frame = backend.xlogData(position, Buffer.alloc(SIZE, 0x5a), position + BigInt(SIZE));
      position += BigInt(SIZE);
      sentAt = performance.now();
      conn.socket.write(frame);
    };
    conn.socket.removeAllListeners('data');
    await new Promise<void>((resolve) => {
      conn.socket.on('data', (data: Buffer) => {
        const now = performance.now();
        buffered = Buffer.concat([buffered, data]);
        while (buffered.length >= 39 && buffered[5] === 0x72) {
          const flush = buffered.readBigUInt64BE(14);
          buffered = buffered.subarray(39);
          if (sentAt === 0 || flush < position) continue;
          latencies.push((now - sentAt) * 1000);
          sentAt = 0;
          if (latencies.length === MESSAGES) return resolve();
          if (latencies.length === 200) cpuBefore = running?.look() ?? 0;
          const next = now + GAP;
          const wait = () => (performance.now() >= next ? send() : setImmediate(wait));
          wait();
        }
      });
      send();
    });
    done = true;
  });
  const args = ['-D', directory, '--synchronous', '-n', '-s', '0', '-d', server.conninfo()];
  running = new Running(contender, args);
  await waitFor(() => done, { what: 'the acknowledgements', timeoutMs: 60_000 });
  const cpu = running.look() - cpuBefore;
  running.child.kill('SIGKILL');
  await running.finish();
  await server.close();
  rmSync(directory, { recursive: true });
  return { latencies: latencies.slice(200), cpuPerMessage: (cpu / (MESSAGES - 200)) * 1e6 };
}

const contenders = [walkeep, pgReceivewal()].filter((c) => c !== undefined);
const rows = new Map<string, { p50: number[]; p99: number[]; cpu: number[] }>();
for (let round = 0; round < ROUNDS; round += 1) {
  for (const c of contenders) {
    const { latencies, cpuPerMessage } = await measure(c);
    const row = rows.get(c.name) ?? { p50: [], p99: [], cpu: [] };
    row.p50.push(median(latencies));
    row.p99.push(quantile(latencies, 0.99));
    row.cpu.push(cpuPerMessage);
    rows.set(c.name, row);
  }
}
print(
  'Acknowledgement latency, one 200-byte commit at a time (medians over rounds)',
  ['receiver', 'p50 µs', 'p99 µs', 'CPU µs/commit'],
  [...rows].map(([name, r]) => [
    name,
    median(r.p50).toFixed(0),
    median(r.p99).toFixed(0),
    median(r.cpu).toFixed(0),
  ]),
);
const [ours, theirs] = [rows.get('walkeep'), rows.get('pg_receivewal')];
if (ours && theirs) {
  process.stdout.write(`speed ratio to pg_receivewal at p50: ${ratioText(theirs.p50, ours.p50)}\n`);
}
saveResult('ack-latency', Object.fromEntries(rows));
process.exit(0);
