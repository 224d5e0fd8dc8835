import { expect, test } from 'vitest';
import { resolveSettings } from '../../src/connection/conninfo/resolve.js';
import { patient } from '../../src/receive/watchdog.js';

const settings = (conninfo: string) =>
  resolveSettings({ conninfo, fallbackApplicationName: 'walkeep' }, {});

test.each<[string, number, number, number]>([
  // One host is waited for as long as an answer would be.
  ['host=a', 30_000, 0, 60_000],
  ['host=a', 30_000, 5, 60_000],
  ['host=a', 0, 0, 0],
  // Of several one that is gone does not keep from the next.
  ['host=a,b', 30_000, 0, 5000],
  ['host=a,b', 30_000, 2, 20_000],
  ['host=a,b', 30_000, 4, 60_000],
  ['host=a,b', 30_000, 1000, 60_000],
  ['host=a,b', 1000, 0, 2000],
  ['host=a,b', 0, 3, 40_000],
  // What the connection string says holds.
  ['host=a,b connect_timeout=3', 30_000, 4, 3000],
])('"%s", %i ms of silence, after %i failed rounds: %i ms', async (text, silence, rounds, ms) => {
  expect(patient(await settings(text), silence, rounds).connectTimeout).toBe(ms);
});
