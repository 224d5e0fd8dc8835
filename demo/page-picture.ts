/**
 * `npm run page:picture`: draws docs/pictures/page.png, the status page of a real `walkeep serve` that
 * receives from two real servers, one of which lost WAL on the way. Takes some minutes, for there is
 * something to see in a bar only where time has gone by. Needs Chromium.
 */
import { mkdirSync } from 'node:fs';
import { join } from 'node:path';
import { launchBrowser } from '../test/support/browser.js';
import { PostgresServer } from '../test/support/postgres.js';
import { archiveDirectory } from '../test/support/receiving.js';
import { packageRoot } from '../test/support/scratch.js';
import { freePort } from '../test/support/server-config.js';
import { Serving } from '../test/support/serving.js';
import { delay, waitFor } from '../test/support/wait.js';

const SECOND = 1000;
const [, , target = join(packageRoot, 'docs', 'pictures', 'page.png')] = process.argv;

const [shop, ledger] = await Promise.all([
  PostgresServer.create({ major: 18, fresh: true }),
  PostgresServer.create({ major: 18, fresh: true }),
]);
const entry = (server: PostgresServer) => ({
  connection: `host=127.0.0.1 port=${server.port} user=postgres`,
  directory: archiveDirectory(),
  ...{ slot: 'walkeep', ensure_slot: true, synchronous: true },
  verify: { quick: '* * * * *' },
  backup: { full: '30 1 * * sun', incremental: '30 1 * * mon-sat' },
});
const listen = `127.0.0.1:${await freePort()}`;
const serving = await Serving.start(
  { shop: entry(shop), ledger: entry(ledger) },
  { web: { listen } },
);
let ending = false;
const commits = [shop, ledger].map(async (server) => {
  await server.sql('CREATE TABLE orders (id int, placed timestamptz DEFAULT now())');
  await server.sql('ALTER SYSTEM SET summarize_wal = on');
  await server.sql('SELECT pg_reload_conf()');
  for (let id = 0; !ending; id += 1) {
    await server.sql(`INSERT INTO orders VALUES (${id})`);
    await delay(100);
  }
});
/** Takes a backup, and waits until the page knows it. */
async function backup(name: string, type: string): Promise<void> {
  const { code, stdout, stderr } = await serving.ctl('backup', name, '--type', type, '--wait');
  if (code !== 0) throw new Error(`${stdout}${stderr}`);
  const count = taken.get(name) ?? 0;
  taken.set(name, count + 1);
  await waitFor(async () => {
    const { archive } = await serving.status(name);
    return (archive?.backups.filter(({ state }) => state === 'complete').length ?? 0) > count;
  });
}
const taken = new Map<string, number>();

for (const name of ['shop', 'ledger']) await serving.waitState(name, 'streaming');
await delay(20 * SECOND);
await Promise.all(['shop', 'ledger'].map((name) => backup(name, 'full')));
await delay(50 * SECOND);
// As it goes where nobody watches: the slot is dropped while nothing is received.
await serving.ctl('pause', 'ledger');
await ledger.configure({ wal_keep_size: '0' });
await waitFor(() => ledger.sql(`SELECT pg_drop_replication_slot('walkeep')`));
for (let i = 0; i < 3; i += 1) {
  await delay(5 * SECOND);
  await ledger.switchWal();
}
for (let i = 0; i < 2; i += 1) await ledger.sql('CHECKPOINT');
await serving.ctl('resume', 'ledger');
await serving.waitState('ledger', 'held');
await serving.ctl('resume', 'ledger', '--accept-gap');
await serving.waitState('ledger', 'streaming');
await delay(20 * SECOND);
await Promise.all([backup('ledger', 'full'), backup('shop', 'incremental')]);
await delay(30 * SECOND);

const browser = await launchBrowser();
const page = await browser.newPage({
  viewport: { width: 1120, height: 400 },
  colorScheme: 'light',
});
await page.goto(`http://${listen}`);
await waitFor(async () => (await page.locator('.seg.gap').count()) > 0);
mkdirSync(join(target, '..'), { recursive: true });
await page.screenshot({ path: target, fullPage: true });
await browser.close();
ending = true;
await Promise.all(commits);
await serving.run.stop();
await Promise.all([shop.destroy(), ledger.destroy()]);
process.exit();
