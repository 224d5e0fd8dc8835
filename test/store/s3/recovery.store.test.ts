import { execFile } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { describe, expect, it } from 'vitest';
import { contentOf } from '../../../src/store/content.js';
import { blocksOf } from '../../docs/documents.js';
import { commandsOf } from '../../docs/shell.js';
import { sharedRgw } from '../../support/rgw-setup.js';
import { scratchDir } from '../../support/scratch.js';
import { findTool } from '../../support/tools.js';
import { environmentOf, openStore } from './stores.js';

const run = promisify(execFile);
const rgw = sharedRgw();

describe.skipIf(!rgw)('what docs/stores.md tells who has no walkeep', () => {
  for (const tool of ['curl', 'aws']) {
    const missing = [tool, 'age', 'age-keygen', 'zstd'].filter((name) => !findTool(name));
    it.skipIf(missing.length > 0)(`gets a segment back with ${tool}, age and zstd`, async () => {
      if (!rgw) return;
      const [block] = blocksOf('docs/stores.md').filter(({ info }) => info === `recovery=${tool}`);
      const command = block?.text ?? '';
      const name = commandsOf(command).at(-1)?.at(-1) as string;
      const key = /systems\/\d+\/wal\/\w+\/\w+/.exec(command)?.[0] as string;

      const dir = scratchDir('recovery');
      const segment = Buffer.concat([randomBytes(100_000), Buffer.alloc(900_000)]);
      writeFileSync(join(dir, 'segment'), segment);
      await run('sh', ['-c', 'age-keygen -o shop.key && age-keygen -y shop.key > to'], {
        cwd: dir,
      });
      await run('sh', ['-c', 'zstd -q -c segment | age -R to > object'], { cwd: dir });

      const bucket = await rgw.createBucket();
      await using store = openStore(rgw, bucket);
      await store.create(`shop/${key}`, contentOf(readFileSync(join(dir, 'object'))));
      mkdirSync(join(dir, '.aws'));
      await run(
        'sh',
        [
          '-ec',
          command.replace('shop-wal', bucket).replace('https://s3.example.com', rgw.facts.http),
        ],
        {
          cwd: dir,
          env: {
            ...{ PATH: process.env.PATH, HOME: dir, AWS_DEFAULT_REGION: 'us-east-1' },
            ...environmentOf(rgw.owner),
            AWS_ENDPOINT_URL_S3: rgw.facts.http,
          },
        },
      );
      expect(readFileSync(join(dir, name)).equals(segment)).toBe(true);
    });
  }
});
