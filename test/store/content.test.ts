import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { expect, it } from 'vitest';
import { untilAborted } from '../../src/store/content.js';
import { waitFor } from '../support/wait.js';

setFlagsFromString('--expose-gc');
const collect = runInNewContext('gc') as () => void;

it('keeps no piece that was read, while more of them come', async () => {
  const pieces: WeakRef<Uint8Array>[] = [];
  async function* source() {
    for (;;) {
      const piece = new Uint8Array(100_000);
      pieces.push(new WeakRef(piece));
      yield piece;
    }
  }
  const reading = untilAborted(source(), new AbortController().signal);
  for (let i = 0; i < 50; i++) await reading.next();
  await waitFor(() => {
    collect();
    return pieces.filter((piece) => piece.deref()).length <= 3;
  });
  await reading.return();
});

it('ends with the reason of the signal while the source says nothing, and while it was read', async () => {
  const stop = new AbortController();
  const silent = { [Symbol.asyncIterator]: () => ({ next: () => new Promise<never>(() => {}) }) };
  const waiting = untilAborted(silent, stop.signal).next();
  const between = untilAborted(['a', 'b'], stop.signal);
  await between.next();
  const reason = new Error('stop');
  stop.abort(reason);
  await expect(waiting).rejects.toBe(reason);
  await expect(between.next()).rejects.toBe(reason);
});
