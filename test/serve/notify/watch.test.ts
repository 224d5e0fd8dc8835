import { expect, it } from 'vitest';
import { TroubleWatch } from '../../../src/serve/notify/watch.js';
import type { ServerStatus } from '../../../src/serve/status.js';
import { archiveOf, around, NOW, serverOf } from './statuses.js';

/** Looks once a second at what a test says. */
function watching() {
  const watch = new TroubleWatch();
  let seconds = 0;
  const told: string[] = [];
  const look = (servers: ServerStatus[], times = 1, configIsGood = true) => {
    for (let i = 0; i < times; i += 1) {
      seconds += 1;
      const now = NOW + seconds * 1000;
      const { begun, over } = watch.look(servers, around({ configIsGood, now }), seconds * 1000);
      for (const { id } of begun) told.push(`${seconds} + ${id}`);
      for (const { id } of over) told.push(`${seconds} - ${id}`);
    }
    return told.splice(0);
  };
  return { watch, look };
}

const late = serverOf({ rpoSeconds: 31 });
const well = serverOf();

it('tells that a trouble begins at once, and that it is over when it stays away', () => {
  const { watch, look } = watching();
  expect(look([well], 10)).toEqual([]);
  expect(look([late], 5)).toEqual(['11 + shop:rpo']);
  expect(watch.present).toMatchObject([
    { server: 'shop', kind: 'rpo', since: new Date(NOW + 11_000).toISOString() },
  ]);
  expect(look([well], 100)).toEqual(['75 - shop:rpo']);
  expect(watch.present).toEqual([]);
});

it('tells of what comes and goes once', () => {
  const { look } = watching();
  const told: string[] = [];
  for (let i = 0; i < 60; i += 1) told.push(...look([late], 20), ...look([well], 20));
  expect(told).toEqual(['1 + shop:rpo']);
});

it('takes its time to believe that what came back is over', () => {
  const { look } = watching();
  const over: number[] = [];
  for (let i = 0; i < 5; i += 1) {
    const [begun] = look([late]);
    const at = Number(begun?.split(' ')[0]);
    const [end] = look([well], i < 4 ? 500 : 1000);
    over.push(Number(end?.split(' ')[0]) - at);
  }
  expect(over).toEqual([60, 120, 240, 480, 900]);
  // After long it is new.
  look([well], 3600);
  look([late]);
  expect(look([well], 60)).toHaveLength(1);
});

it('waits for what may be over in a moment', () => {
  const { look } = watching();
  const members = { db2: { covers: null, message: 'away' } };
  const away = serverOf({
    receiver: { state: 'streaming', segments: 0, connections: 1, members },
  });
  expect(look([away], 50)).toEqual([]);
  expect(look([well])).toEqual([]);
  expect(look([away], 61)).toEqual(['112 + shop:slot:db2']);
});

it('tells what became worse', () => {
  const { watch, look } = watching();
  const slot = { readAt: '', name: 's', exists: true };
  const of = (more: object) => serverOf({ archive: archiveOf({ slot: { ...slot, ...more } }) });
  expect(look([of({ retainedBytes: 9, safeBytes: 1 })], 2)).toEqual(['1 + shop:slot']);
  expect(look([of({ walStatus: 'lost' })], 2)).toEqual(['3 + shop:slot']);
  // Not what became better.
  expect(look([of({ retainedBytes: 9, safeBytes: 1 })], 2)).toEqual([]);
  expect(watch.present).toMatchObject([
    { severity: 'warning', since: new Date(NOW + 1000).toISOString() },
  ]);
});

it('counts how often a receiver ended of late', () => {
  const { look } = watching();
  const ended = (restarts: number) => serverOf({ restarts });
  // From before it was looked at.
  expect(look([ended(7)])).toEqual([]);
  expect(look([ended(9)], 300)).toEqual([]);
  expect(look([ended(10)])).toEqual(['302 + shop:receiver']);
  // Two are ten minutes old at 602.
  expect(look([ended(10)], 1000)).toEqual(['661 - shop:receiver']);
  // Another configuration.
  expect(look([ended(2)], 10)).toEqual([]);
  expect(look([ended(3)])).toHaveLength(1);
});

it('tells no password that stands in an error', () => {
  const { watch, look } = watching();
  const ended = { code: 'WK_X', message: 'no host "postgres://me:kEtZeR99@db/x"' };
  look([serverOf({ state: 'held', ended })]);
  expect(watch.present).toMatchObject([{ kind: 'receiver' }]);
  expect(JSON.stringify(watch.present)).not.toContain('kEtZeR99');
});

it('has done with a server that is not there any more', () => {
  const { watch, look } = watching();
  expect(look([late], 3, false)).toEqual(['1 + shop:rpo', '1 + :reload']);
  expect(look([], 1, false)).toEqual(['4 - shop:rpo']);
  expect(watch.present).toMatchObject([{ kind: 'reload' }]);
});
