import { existsSync, readFileSync } from 'node:fs';
import { join, relative } from 'node:path';
import { expect, test } from 'vitest';
import { disposer } from '../support/cleanup.js';
import { CliRun } from '../support/cli.js';
import { packageRoot, scratchDir } from '../support/scratch.js';
import { backend, ScriptedServer } from '../support/scripted-server.js';
import { tellOfThreads } from '../support/threads.js';

const keep = disposer();
const START = 0x3000000n;
const SEGMENT = 1024 * 1024;

// In one file with all else the receiver would not find the thread's, and would compress between
// two reads of the socket, with commits waiting: slower, and nothing would say so.
test.each(['walkeep', 'pg_receivewal'] as const)('%s compresses in a thread', async (program) => {
  const root = scratchDir('threads');
  const out = join(root, 'threads');
  const server = keep(
    await ScriptedServer.listen(async (c) => {
      await c.startStream({ segmentSizeMb: 1 });
      for (let at = 0; at <= SEGMENT; at += SEGMENT / 8) {
        c.send(backend.xlogData(START + BigInt(at), Buffer.alloc(SEGMENT / 8, 1)));
      }
      await c.endStream(backend.commandComplete('COPY 0'), backend.readyForQuery());
      await c.nextOf('X');
      c.close();
    }),
  );
  const run = keep(
    new CliRun(
      [
        ...(program === 'walkeep' ? ['receive', '--verify=off'] : []),
        ...['-D', root, '-n', '-Z', 'lz4', '-E', '0/3100000'],
        ...['-d', server.conninfo({ sslmode: 'disable' })],
      ],
      { program, env: { NODE_OPTIONS: tellOfThreads(out) } },
    ),
  );
  expect({ ...(await run.exit), stderr: run.stderr }).toMatchObject({ code: 0 });
  expect(existsSync(join(root, '000000010000000000000030.lz4'))).toBe(true);
  expect(relative(packageRoot, readFileSync(out, 'utf8'))).toBe('dist/codec/worker.js');
});
