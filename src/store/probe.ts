import { randomUUID } from 'node:crypto';
import { contentOf } from './content.js';
import type { ObjectStore } from './store.js';

/** Whether a second `create` of a key is refused, tried with an object that is removed again. */
export async function probeStore(
  store: ObjectStore,
  signal?: AbortSignal,
): Promise<{ conditionalCreate: boolean }> {
  const key = `probe/${randomUUID()}`;
  const create = (text: string) => store.create(key, contentOf(Buffer.from(text)), { signal });
  try {
    await create('first');
    return { conditionalCreate: !(await create('second')).created };
  } finally {
    await store.remove([key], { signal });
  }
}
