import { describe, expect, it } from 'vitest';
import { checkOthers } from '../../src/check/check-others.js';
import type { Lsn } from '../../src/lsn.js';
import type { ServerFacts, SqlFacts, WalSender } from '../../src/server/server-facts.js';

const MB = 1024 * 1024;
const FLUSHED = BigInt(100 * MB);

function server(names: string): ServerFacts {
  const settings = { synchronous_standby_names: names };
  return { settings, state: { flushLsn: FLUSHED, segmentSize: MB } } as unknown as ServerFacts;
}

const sender = (name: string | undefined, behind?: number, state = 'streaming') =>
  ({
    applicationName: name,
    state,
    flushLsn: behind === undefined ? undefined : ((FLUSHED - BigInt(behind)) as Lsn),
  }) as WalSender;

const look = (names: string, ...walSenders: WalSender[]) =>
  checkOthers(server(names), { walSenders } as SqlFacts, 'a').map(
    ({ status, message }) => `${status}: ${message}`,
  );

describe('the other standbys of synchronous_standby_names', () => {
  it('are fine a little behind', () => {
    expect(look('ANY 1 (a, b)', sender('a', 0), sender('B', 1000))).toEqual([
      'ok: "b" is 1000 B behind',
    ]);
  });

  it('are told of where they are away or far behind', () => {
    const found = look('ANY 1 (a, b, c)', sender('a', 0), sender('b', 3 * MB));
    expect(found[0]).toMatch(/^warn: "b" is 3.0 MiB behind: commits are confirmed without it/);
    expect(found[1]).toMatch(/^warn: "c" is not connected: commits are confirmed without it/);
    expect(look('FIRST 1 (a, b)', sender('b', 0, 'startup'))[0]).toMatch(/^warn: "b" is not con/);
  });

  it('are not looked at where commits wait for all, or not for us', () => {
    for (const names of ['', 'a', '*', 'ANY 2 (a, b)', 'FIRST 2 (a, b)', 'ANY 1 (b, c)']) {
      expect(look(names)).toEqual([]);
    }
  });

  it('are unknown where this user may not see them', () => {
    expect(look('ANY 1 (a, b)', sender('b'))).toEqual(['unknown: how far "b" is cannot be seen']);
    expect(look('ANY 1 (a, b)', sender(undefined))).toEqual([]);
    expect(checkOthers(server('ANY 1 (a, b)'), undefined, 'a')).toEqual([]);
  });
});
