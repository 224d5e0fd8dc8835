import type { Deliver } from './format.js';

/**
 * What `produce` delivers, one step at a time: a chunk is valid until the next is asked for. Who
 * asks for no more makes `deliver` say so. Returns what `produce` does; throws what it throws.
 */
export async function* pulled<T>(
  produce: (deliver: Deliver) => Promise<T>,
): AsyncGenerator<Uint8Array, T> {
  let ready: Uint8Array | undefined;
  let goOn: (stop: boolean) => void = () => {};
  let wake = (): void => {};
  let over = false;
  const produced = produce(
    (chunk) =>
      new Promise((resolve) => {
        ready = chunk;
        goOn = resolve;
        wake();
      }),
  ).finally(() => {
    over = true;
    wake();
  });
  // Whoever asks for the next chunk hears of it.
  produced.catch(() => {});
  try {
    for (;;) {
      if (!ready && !over) {
        await new Promise<void>((resolve) => {
          wake = resolve;
        });
      }
      if (!ready) return await produced;
      const chunk = ready;
      ready = undefined;
      yield chunk;
      goOn(false);
    }
  } finally {
    goOn(true);
    await produced.catch(() => {});
  }
}
