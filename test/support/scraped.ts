import type { disposer } from './cleanup.js';
import { freePort } from './server-config.js';
import { type ServerEntry, Serving } from './serving.js';

/** A server as commits can wait for its receiver. */
export const entryOf = (
  port: string | number,
  directory: string,
  host = '127.0.0.1',
): ServerEntry => ({
  connection: `host=${host} port=${port} user=postgres target_session_attrs=read-write`,
  ...{ directory, slot: 'walkeep', ensure_slot: true, synchronous: true },
});

/** A running serve, and what it answers to whoever scrapes it. */
export async function scraped(
  keep: ReturnType<typeof disposer>,
  servers: Record<string, ServerEntry>,
) {
  const port = await freePort();
  const metrics = { listen: `127.0.0.1:${port}` };
  const serving = keep(await Serving.start(servers, { metrics }));
  const get = async (path: string) => {
    const response = await fetch(`http://127.0.0.1:${port}${path}`);
    return { status: response.status, text: await response.text() };
  };
  const metric = async (name: string, server: string): Promise<number> => {
    const { text } = await get('/metrics');
    const start = `walkeep_${name}{server="${server}"} `;
    const line = text.split('\n').find((one) => one.startsWith(start));
    return Number(line?.slice(start.length));
  };
  return { serving, get, metric };
}
