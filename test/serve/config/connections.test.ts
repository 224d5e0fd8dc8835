import { chmodSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import type { ServerConfig } from '../../../src/serve/config/config.js';
import { serverSettings } from '../../../src/serve/config/connections.js';
import { scratchDir } from '../../support/scratch.js';

const TARGET = { host: 'pg1', port: 5432 };
const HOME = { HOME: scratchDir('home') };

const configOf = (more: Partial<ServerConfig>): ServerConfig => ({
  ...{ name: 'shop', connection: 'host=pg1,pg2 user=me', directory: '/shop', slot: 'walkeep' },
  ...{ ensureSlot: false, synchronous: true, compression: { method: 'none' as const } },
  ...more,
});

it('connects as walkeep, and to members by SQL', async () => {
  const config = configOf({ members: { slots: 'external' } });
  const { settings, members } = await serverSettings(config, HOME);
  expect(settings).toMatchObject({
    applicationName: 'walkeep',
    user: 'me',
    database: 'replication',
  });
  expect(members).toMatchObject({ user: 'me', database: 'postgres', targets: settings.targets });
});

it('takes the members that are named, each with its port', async () => {
  const hosts = ['db1', 'db2:5433', '[::1]', '[fe80::1]:5434', '/run/postgresql'];
  const config = configOf({ members: { hosts, slots: 'walkeep' } });
  const { members } = await serverSettings(config, HOME);
  expect(members?.targets.map(({ host, port }) => [host, port])).toEqual([
    ...[
      ['db1', 5432],
      ['db2', 5433],
      ['::1', 5432],
      ['fe80::1', 5434],
      ['/run/postgresql', 5432],
    ],
  ]);
});

it('takes the password of its file at each connection, and none of the environment', async () => {
  const passwordFile = join(scratchDir('secret'), 'password');
  writeFileSync(passwordFile, 'one\n', { mode: 0o600 });
  const config = configOf({ passwordFile, members: { slots: 'walkeep' } });
  const env = { ...HOME, PGPASSWORD: 'of another' };
  const { settings, members } = await serverSettings(config, env);
  for (const { password, passwordFromFile } of [settings, members ?? settings]) {
    expect(password).toBeUndefined();
    writeFileSync(passwordFile, 'two\n');
    expect(passwordFromFile?.(TARGET)).toBe('two');
    chmodSync(passwordFile, 0o644);
    expect(() => passwordFromFile?.(TARGET)).toThrow('may be read or written by others');
    chmodSync(passwordFile, 0o600);
  }
});
