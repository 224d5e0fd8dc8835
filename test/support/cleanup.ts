import { afterEach } from 'vitest';

/** Ends what a test file's tests have started: after each test, last one first. */
export function disposer(): <T extends AsyncDisposable>(resource: T) => T {
  const open: AsyncDisposable[] = [];
  afterEach(async () => {
    for (const one of open.splice(0).reverse()) await one[Symbol.asyncDispose]();
  });
  return (resource) => {
    open.push(resource);
    return resource;
  };
}
