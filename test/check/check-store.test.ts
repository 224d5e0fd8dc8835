import { expect, test } from 'vitest';
import { StoreArchive } from '../../src/archive/places/store-archive.js';
import { checkStore } from '../../src/check/check-store.js';
import { StoreAccessError } from '../../src/errors.js';
import { MemoryObjects, MemoryStore } from '../../src/store/memory.js';
import type { Capabilities } from '../../src/store/store.js';
import { memory, shipOnce } from '../ship/shipping.js';
import { sampleArchive } from '../support/archives.js';

/** What is said of a store that was shipped to an hour ago, and can do that. */
async function told(capabilities: Partial<Capabilities> | Error) {
  const then = Date.now() - 3_600_000;
  const objects = new MemoryObjects(() => then);
  const { directory, names } = sampleArchive(3);
  await shipOnce(directory, [memory(objects)], { jobs: 1 });
  const store = Object.assign(new MemoryStore({ objects }), {
    probe: async (): Promise<Capabilities> => {
      if (capabilities instanceof Error) throw capabilities;
      return { conditionalCreate: true, ...capabilities };
    },
  });
  const archive = new StoreArchive(store, undefined);
  return { results: checkStore(await archive.storeFacts()), last: names[1] as string };
}

test('says that it never overwrites, and what else it does', async () => {
  const { results, last } = await told({ versioning: true, lock: false });
  expect(results).toMatchObject([
    {
      check: 'store',
      status: 'ok',
      message: 'the store never overwrites, keeps versions, locks nothing',
    },
    { check: 'newest', status: 'ok', message: expect.stringMatching(`${last} was stored .* ago`) },
  ]);
});

test('warns of one that overwrites', async () => {
  const { results } = await told({ conditionalCreate: false });
  expect(results[0]).toMatchObject({
    status: 'warn',
    message: expect.stringContaining('overwrites'),
    hint: expect.stringContaining('--unfenced'),
  });
});

test('does not know it of one where nothing may be written', async () => {
  const { results } = await told(new StoreAccessError('AccessDenied'));
  expect(results[0]).toMatchObject({ status: 'unknown', message: expect.stringMatching(/Denied/) });
});

test("tells the age by the store's clock", async () => {
  const age = async (clockOffset: number) => (await told({ clockOffset })).results[1]?.message;
  expect(await age(0)).toContain('stored 1 h ago');
  expect(await age(7_200_000)).toContain('stored 3 h ago');
});
