import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { Service } from '../../src/serve/serve.js';
import type { LogEntry } from '../../src/serve/status.js';
import type { ChildEnd, Launch } from '../../src/serve/supervisor/child.js';
import { scratchDir } from '../support/scratch.js';
import { waitFor } from '../support/wait.js';

it('begins nothing for a reload that comes while all is ending', async () => {
  const dir = scratchDir('service');
  const file = join(dir, 'walkeep.yaml');
  const write = (slot: string) => {
    const shop = { connection: 'host=db user=me', directory: dir, slot };
    writeFileSync(file, JSON.stringify({ version: 1, servers: { shop } }));
  };
  const log: LogEntry[] = [];
  const begun: string[] = [];
  let isStopped = false;
  let end: (how: ChildEnd) => void = () => {};
  const launch: Launch = ({ config }) => {
    begun.push(`${config.slot}`);
    const ended = new Promise<ChildEnd>((resolve) => {
      end = resolve;
    });
    const stop = () => {
      isStopped = true;
    };
    return { pid: undefined, ended, stop, kill: () => {} };
  };
  write('one');
  const service = new Service({ file, tell: (entry) => void log.push(entry), launch });
  await service.start();
  await waitFor(() => begun.length > 0);
  const stopped = service.stop();
  await waitFor(() => isStopped);
  write('two');
  const reload = service.reload().catch((e) => e);
  end({ how: 'exit code 0' });
  expect(await reload).toMatchObject({ code: 'WK_USAGE', message: '"walkeep serve" is ending' });
  await stopped;
  expect(begun).toEqual(['one']);
  expect(log.at(-1)?.event).toBe('stop');
});
