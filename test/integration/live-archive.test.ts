import { readdirSync } from 'node:fs';
import { expect, test } from 'vitest';
import { parseLsn } from '../../src/lsn.js';
import { run } from '../cli/run.js';
import { disposer } from '../support/cleanup.js';
import { PostgresServer } from '../support/postgres.js';
import { archiveDirectory, receive, writeWal } from '../support/receiving.js';
import { waitFor } from '../support/wait.js';

const keep = disposer();
/** 100 for a thorough run. */
const ROUNDS = Number(process.env.WALKEEP_ROUNDS ?? 5);

test.each([[[]], [['-Z', 'gzip:9']], [['-Z', 'lz4']]])(
  'every look beside a busy receiver is right: %j',
  { timeout: 60_000 + ROUNDS * 10_000 },
  async (args) => {
    const server = keep(await PostgresServer.create({ major: 17 }));
    const directory = archiveDirectory();
    const receiver = keep(receive(directory, server.conninfo(), ['--synchronous', ...args]));
    await receiver.waitForOutput(/starting log streaming/);
    const answers: unknown[] = [];
    for (let i = 0; i < ROUNDS; i++) {
      // Received, completed and compressed while everybody looks.
      const writing = writeWal(server, 6_000_000);
      try {
        const point = `point ${i}`;
        const [row] = await server.sql(`SELECT pg_create_restore_point('${point}')::text AS lsn`);
        const lsn = parseLsn(row!.lsn as string);
        await waitFor(
          async () => {
            const [peer] = await server.sql('SELECT flush_lsn::text FROM pg_stat_replication');
            return parseLsn((peer?.flush_lsn as string) ?? '0/0') >= lsn;
          },
          { timeoutMs: 60_000 },
        );
        const look = async (command: string, ...more: string[]) => {
          const { code, stdout, stderr } = await run('walkeep', command, ...more, directory);
          return { command, code, found: stdout.includes(point), told: stderr || stdout };
        };
        const found = await look('find', `--restore-point=${point}`);
        const target = await look('find', '--target', `--restore-point=${point}`);
        const verified = await look('verify', '-j1', '-v');
        const listed = await look('list');
        for (const answer of [found, target]) {
          if (answer.code !== 0 || !answer.found) answers.push(answer);
        }
        if (verified.code !== 0) answers.push(verified);
        if (listed.code !== 0 || /missing/.test(listed.told)) answers.push(listed);
      } finally {
        await writing;
      }
    }
    expect(answers).toEqual([]);
    await receiver.stop();
    expect(readdirSync(directory).length).toBeGreaterThan(ROUNDS);
    const { code, stdout } = await run('walkeep', 'verify', '-j1', '--json', directory);
    const lines = stdout.trim().split('\n');
    const findings = lines.map((line) => JSON.parse(line)).filter(({ type }) => type === 'finding');
    // A server writes its WAL by pages: the stop may come while the rest of a record is still there.
    expect({ code, others: findings.filter((one) => one.code !== 'torn-tail') }).toEqual({
      ...{ code: 0, others: [] },
    });
  },
);
