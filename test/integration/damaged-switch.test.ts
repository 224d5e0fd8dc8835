import { expect, test } from 'vitest';
import { readLedger } from '../../src/archive/ledger.js';
import { disposer } from '../support/cleanup.js';
import { archiveDirectory, PROGRAMS, receive, unverified } from '../support/receiving.js';
import { backend, type Identity, ScriptedServer } from '../support/scripted-server.js';

const keep = disposer();
const START = 0x3000000n;
const FORK = START + 0x100000n + 1000n;

const hex = (lsn: bigint) => `0/${lsn.toString(16).toUpperCase()}`;
const identity: Identity = {
  ...{ segmentSizeMb: 1, flushLsn: START, slot: { restartLsn: START, restartTimeline: 1 } },
  histories: { 2: `1\t${hex(FORK)}\tno recovery target specified\n` },
};

// One bit of the answer that nothing protects on its way.
test.each(
  PROGRAMS.flatMap((program) => [
    [program, 'startpos', '2', hex(FORK & ~0x100000n)] as const,
    [program, 'timeline', '3', hex(FORK)] as const,
  ]),
)('%s believes no %s that the history does not confirm', async (program, _what, tli, at) => {
  const server = keep(
    await ScriptedServer.listen(async (c, index) => {
      const { lsn: start, timeline } = await c.startStream(identity);
      expect(timeline).toBe(1);
      for (let lsn: bigint = start; lsn < FORK; lsn += 100_000n) {
        const length = Number(FORK - lsn < 100_000n ? FORK - lsn : 100_000n);
        c.send(backend.xlogData(lsn, Buffer.alloc(length, 7)));
      }
      await c.waitStatus((r) => r.flush === FORK);
      const damaged = { next_tli: tli, next_tli_startpos: at };
      const right = { next_tli: '2', next_tli_startpos: hex(FORK) };
      await c.endStream(backend.resultSet(index === 0 ? damaged : right));
      // The first one is left here, and its next command may never come.
      await c.serve(identity).catch((error) => {
        if (index > 0) throw error;
      });
      if (index > 0) c.send(backend.copyBoth());
    }),
  );
  const directory = archiveDirectory();
  const args = ['-S', 's', '--synchronous', ...unverified(program)];
  const run = keep(receive(directory, server.conninfo({ sslmode: 'disable' }), args, { program }));
  await run.waitForOutput(/switched to timeline 2 at/);
  const lineage = (await readLedger(directory))?.lineage;
  expect(lineage?.map((l) => [l.timeline, l.start])).toEqual([
    [1, START],
    [2, START + 0x100000n],
  ]);
  expect(run.stderr).toMatch(
    tli === '2' ? /error: .*at 0\/30003E8 .*whose history says otherwise/ : /error: .*no answer to/,
  );
});
