import { expect, test } from 'vitest';
import type { ArchiveFacts } from '../../src/check/archive-facts.js';
import { checkPosition, type LagDemands, recoveryPoint } from '../../src/check/check-position.js';
import type { ServerFacts, WalSender } from '../../src/server/server-facts.js';

const SEGMENT = 1 << 20;
const at = (n: number) => BigInt(n) as never;

/** The server at 5000 of a segment, the archive at 4000 unless told otherwise. */
function behind(
  sender: Partial<WalSender> | undefined,
  facts: Partial<ArchiveFacts> = {},
  demands: LagDemands = {},
) {
  const server = {
    state: { timeline: 1, flushLsn: at(5000), segmentSize: SEGMENT },
  } as unknown as ServerFacts;
  const archive = {
    end: { timeline: 1, lsn: at(4000) },
    catalog: {},
    lastWriteAge: 0,
    ...facts,
  } as unknown as ArchiveFacts;
  const walSender = sender && ({ state: 'streaming', ...sender } as WalSender);
  const point = recoveryPoint(server, archive, walSender);
  return {
    point,
    result: checkPosition(server, archive, point, { walSenderTimeout: 60, ...demands }),
  };
}

const ago = (seconds: number) => Date.now() / 1000 - seconds;
const flushed = { writeLsn: at(4000), flushLsn: at(4000), flushLag: 0.001 };

test('the lag of a reply grows with the time since', () => {
  const { point, result } = behind({ ...flushed, repliedAt: ago(30) });
  expect(point?.seconds).toBeCloseTo(30, 0);
  expect(result.status).toBe('ok');
  expect(result.message).toMatch(/at most 30\.\d s/);
});

test('one who was asked and does not answer is a warning', () => {
  const { result } = behind({ ...flushed, repliedAt: ago(45) });
  expect(result).toMatchObject({ status: 'warn' });
  expect(result.message).toMatch(/the receiver has said nothing for 45\.\d s/);
  const idle = behind({ flushLsn: at(5000), writeLsn: at(5000), repliedAt: ago(45) });
  expect(idle.result.status).toBe('ok');
});

test('flushed with each segment only: what is missing came after the last full one', () => {
  const sender = { ...flushed, writeLsn: at(4900), repliedAt: ago(1) };
  expect(behind(sender, { lastSegmentAge: 90_000 }).point?.seconds).toBeCloseTo(90, 0);
  expect(behind(sender).point?.seconds).toBeUndefined();
});

test('of WAL that is caught up on nothing tells the age', () => {
  const sender = { ...flushed, state: 'catchup', repliedAt: ago(0) };
  expect(behind(sender).result.message).toMatch(/an unknown time/);
});

test('without a receiver the last write counts', () => {
  expect(behind(undefined, { lastWriteAge: 7000 }).point?.seconds).toBe(7);
});

/** How a receiver is judged that is 1000 bytes and about 30 seconds behind. */
function judged(demands: LagDemands, sender: Partial<WalSender> = { repliedAt: ago(30) }) {
  const { status, message } = behind({ ...flushed, ...sender }, {}, demands).result;
  return `${status}: ${message.replace(/^.*?(at most|an unknown)/, '$1').replace(/3\d\.\d s/, '30 s')}`;
}

test('limits of bytes and of time, each of its own', () => {
  expect(judged({})).toBe('ok: at most 30 s');
  expect(judged({ warning: { bytes: 1000 } })).toBe('ok: at most 30 s');
  expect(judged({ warning: { bytes: 999 } })).toBe('warn: at most 30 s; it may be 999 B');
  expect(judged({ warning: { age: 600_000 } })).toBe('ok: at most 30 s');
  expect(judged({ warning: { age: 5000 } })).toBe('warn: at most 30 s; it may be 5.0 s');
  expect(judged({ warning: { age: 5000 }, critical: { age: 10_000 } })).toBe(
    'fail: at most 30 s; it may be 10.0 s',
  );
  expect(judged({ critical: { bytes: 1e6, age: 10_000 } })).toBe(
    'fail: at most 30 s; it may be 10.0 s',
  );
});

test('a time that nothing tells is no good time where one is asked for', () => {
  const catchup = { state: 'catchup', repliedAt: ago(0) };
  expect(judged({ warning: { bytes: 1e6 } }, catchup)).toBe('ok: an unknown time');
  expect(judged({ critical: { age: 1e9 } }, catchup)).toBe('warn: an unknown time');
});

test('limits take the place of those in segments', () => {
  const far = { end: { timeline: 1, lsn: at(5000 - 3 * SEGMENT) } } as Partial<ArchiveFacts>;
  const status = (demands: LagDemands) => behind(undefined, far, demands).result.status;
  expect(status({})).toBe('warn');
  expect(status({ warning: { bytes: 4 * SEGMENT } })).toBe('ok');
  expect(status({ warning: { bytes: 4 * SEGMENT }, critical: { bytes: SEGMENT } })).toBe('fail');
});
