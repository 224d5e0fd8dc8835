import { execFile } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, symlinkSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { promisify } from 'node:util';
import { expect, it } from 'vitest';
import { packageRoot, scratchDir } from '../support/scratch.js';
import { readText } from './documents.js';

const exec = promisify(execFile);
/** npm could not reach a registry: nothing that the Containerfile is to blame for. */
const OFFLINE = /ENOTCACHED|ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH/;

/** Commands of the RUN lines that npm runs, stage by stage. */
const stages = readText('docs/examples/Containerfile')
  .split(/^FROM .*\n/m)
  .slice(1)
  .map((stage) => {
    const lines = stage.split('\n').filter((line) => !line.startsWith('#'));
    const of = (name: string) =>
      lines
        .filter((line) => line.startsWith(`${name} `))
        .map((line) => line.slice(name.length + 1));
    const npm = of('RUN').flatMap((run) => run.split(' && ').filter((c) => c.startsWith('npm ')));
    return { copies: of('COPY').map((copy) => copy.split(' ')), npm };
  });

it('the Containerfile builds from what it copies, and installs what it built', async (context) => {
  const [build, image] = stages;
  const src = scratchDir('src');
  for (const words of build?.copies ?? []) {
    const to = words.at(-1) as string;
    for (const file of words.slice(0, -1)) {
      const target = to === './' ? join(src, basename(file)) : join(src, to);
      cpSync(join(packageRoot, file), target, { recursive: true });
    }
  }
  // npm ci fetches hundreds of megabytes: the same packages are here already.
  expect(build?.npm[0]).toBe('npm ci --ignore-scripts');
  symlinkSync(join(packageRoot, 'node_modules'), join(src, 'node_modules'));
  const tmp = join(src, 'tmp');
  mkdirSync(tmp);
  const prefix = scratchDir('prefix');
  const env = { ...process.env, npm_config_prefix: prefix, npm_config_fetch_retries: '0' };
  const options = { npm_config_prefer_offline: 'true', npm_config_audit: 'false' };
  const run = (command: string) =>
    exec('sh', ['-ec', command.replaceAll('/tmp', tmp)], {
      ...{ cwd: src, maxBuffer: 1e8, env: { ...env, ...options } },
    });
  for (const command of build?.npm.slice(1) ?? []) await run(command);
  expect(image?.copies).toEqual([['--from=build', '/tmp/walkeep-*.tgz', '/tmp/']]);
  expect(readdirSync(tmp)).toEqual([expect.stringMatching(/^walkeep-.*\.tgz$/)]);
  for (const command of image?.npm ?? []) {
    await run(command).catch((e) => {
      if (OFFLINE.test(e.stderr)) context.skip('the registry of npm packages cannot be reached');
      throw e;
    });
  }
  const walkeep = join(prefix, 'bin', 'walkeep');
  const path = { PATH: `${dirname(process.execPath)}:${process.env.PATH}` };
  const { stdout } = await exec(walkeep, ['config', 'schema'], { env: path });
  expect(JSON.parse(stdout)).toMatchObject({ title: 'walkeep.yaml' });
  // Its receivers are a file of their own.
  const receivers = join(prefix, 'lib/node_modules/walkeep/dist/serve-receiver.cjs');
  expect(existsSync(receivers)).toBe(true);
});
