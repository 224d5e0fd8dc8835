import { createServer } from 'node:net';
import { expect, it } from 'vitest';
import { freePort } from './server-config.js';

it('gives a port to one test only', async () => {
  const ports: number[] = [];
  while (ports.length < 500) ports.push(await freePort());
  expect(new Set(ports).size).toBe(ports.length);
  // Whoever got it may listen there.
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(ports[0], '127.0.0.1', resolve));
  await new Promise((resolve) => server.close(resolve));
});
