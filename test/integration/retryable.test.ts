import { expect, test } from 'vitest';
import { type StreamWalOptions, streamWal, WalkeepError } from '../../src/index.js';
import type { Lsn } from '../../src/lsn.js';
import { disposer } from '../support/cleanup.js';
import { MAJORS, PostgresServer } from '../support/postgres.js';

const keep = disposer();
const sink = { write: () => {}, flush: () => {} };

/** A loop that tries again while `retryable` is true must come to an end. */
test.each(MAJORS)('what only a person can help is not retryable, major %i', async (major) => {
  const hba = ['host all,replication plain 127.0.0.1/32 trust'];
  const server = keep(await PostgresServer.create({ major, hba }));
  await server.sql('CREATE ROLE plain LOGIN');
  const flush = (await server.currentLsn()) as bigint;
  const segment = (flush & ~0xfffffn) as Lsn;
  const of = (options: Partial<StreamWalOptions>, user?: string) =>
    streamWal(
      { connection: server.conninfo(user === undefined ? {} : { user }), ...options },
      sink,
    ).then(
      () => undefined,
      (error) => error,
    );
  const ahead = (segment + 0x10000000n) as Lsn;
  for (const [what, error] of [
    ['slot', await of({ slot: 'missing' })],
    ['slot, at a position', await of({ slot: 'missing', startLsn: segment })],
    ['right', await of({}, 'plain')],
    ['role', await of({}, 'nobody')],
    ['timeline', await of({ startLsn: segment, timeline: 7, verify: 'off' })],
    ['timeline, verified', await of({ startLsn: segment, timeline: 7 })],
    ['position ahead', await of({ startLsn: ahead })],
  ] as const) {
    expect(error, what).toBeInstanceOf(WalkeepError);
    expect([what, error.retryable, error.message]).toEqual([what, false, error.message]);
  }
});
