import { existsSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { parse as parseYaml } from 'yaml';
import * as z from 'zod';
import { jsonSchema } from '../../src/serve/config/model.js';
import { parseConfig } from '../../src/serve/config/read.js';
import { packageRoot } from '../support/scratch.js';
import { parse } from './command-line.js';
import { DOCUMENTS, links, readText } from './documents.js';
import { manifestsOf } from './manifests.js';
import { commandsOf } from './shell.js';
import { unitOf } from './unit-file.js';

// biome-ignore lint/suspicious/noExplicitAny: an example is what it says
type Any = any;

/** Where the examples have the configuration. */
const CONFIG = '/etc/walkeep/walkeep.yaml';

test('each example is named by a document', () => {
  const linked = DOCUMENTS.flatMap(links).map((link) => link.split('#')[0]);
  for (const name of readdirSync(join(packageRoot, 'docs', 'examples'))) {
    const found = [`examples/${name}`, `docs/examples/${name}`].some((l) => linked.includes(l));
    expect(found, name).toBe(true);
  }
});

type Schema = { properties?: Record<string, Schema>; additionalProperties?: Schema | false };

/** The paths of all keys that a schema knows, `*` for a name that is free. */
function keysOf(schema: Schema, path = ''): string[] {
  const named = Object.entries(schema.properties ?? {});
  const free = typeof schema.additionalProperties === 'object' ? schema.additionalProperties : {};
  const below: [string, Schema][] = named.length > 0 ? named : [['*', free]];
  if (named.length === 0 && schema.additionalProperties === undefined) return [path];
  return below.flatMap(([key, inner]) => keysOf(inner, path === '' ? key : `${path}.${key}`));
}

describe('walkeep.yaml', () => {
  const text = readText('docs/examples/walkeep.yaml');
  const value = parseYaml(text) as Any;

  test('is valid', async () => {
    const { config, faults } = await parseConfig(Buffer.from(text), { LEDGER_HOST: 'db' });
    expect(faults).toEqual([]);
    expect(config?.servers.length).toBeGreaterThan(1);
  });

  test('has every key that there is', () => {
    const has = (at: Any, [key, ...rest]: string[]): boolean => {
      if (key === undefined) return at !== undefined;
      if (typeof at !== 'object' || at === null) return false;
      return key === '*' ? Object.values(at).some((one) => has(one, rest)) : has(at[key], rest);
    };
    const keys = keysOf(jsonSchema() as Schema);
    expect(keys).toContain('servers.*.stores.*.retention.window');
    // What may stand in either place stands in one.
    const missing = keys.filter((key) => {
      const other = /^defaults\./.test(key)
        ? key.replace(/^defaults\./, 'servers.*.')
        : key.replace(/^servers\.\*\./, 'defaults.');
      return !has(value, key.split('.')) && !has(value, other.split('.'));
    });
    expect(missing).toEqual([]);
  });
});

describe('the JSON Schema', () => {
  // What editors make of the schema alone, without the model that it came from.
  const schema = z.fromJSONSchema(jsonSchema() as z.core.JSONSchema.JSONSchema);
  const { configMap } = manifestsOf(readText('docs/examples/kubernetes.yaml'));
  const configs = {
    'walkeep.yaml': readText('docs/examples/walkeep.yaml'),
    'the one of kubernetes.yaml': configMap.data['walkeep.yaml'] as string,
  };

  test.each(Object.entries(configs))('takes %s', (_name, text) => {
    expect(schema.safeParse(parseYaml(text)).error?.issues).toBeUndefined();
  });

  test('refuses a key that is not known, a kind that is wrong and what is missing', () => {
    const good = parseYaml(configs['walkeep.yaml']) as Any;
    for (const [path, wrong] of [
      [['metrics', 'listne'], 'x'],
      [['servers', 'shop', 'synchronous'], 'yes'],
      [['servers', 'shop', 'directory'], undefined],
      [['servers', 'shop', 'backup', 'ful'], '@daily'],
    ] as const) {
      const bad = structuredClone(good);
      const at = path.slice(0, -1).reduce((inner, key) => inner[key], bad);
      at[path.at(-1) as string] = wrong;
      expect(schema.safeParse(bad).success, path.join('.')).toBe(false);
    }
  });
});

describe.each(['walkeep.service', 'walkeep-receive.service'])('%s', (name) => {
  const sections = unitOf(`docs/examples/${name}`);
  const settings = sections.get('Service') ?? [];
  const service = new Map(settings);
  const commandOf = (setting: string) => commandsOf(service.get(setting) as string)[0] ?? [];

  test('has the sections of a unit, and each setting once', () => {
    expect([...sections.keys()]).toEqual(['Unit', 'Service', 'Install']);
    for (const section of sections.values()) {
      expect(new Set(section.map(([key]) => key)).size).toBe(section.length);
    }
  });

  test('starts and reloads what exists', () => {
    for (const setting of ['ExecStart', 'ExecReload'].filter((key) => service.has(key))) {
      const words = commandOf(setting);
      expect(words[0]).toMatch(/^\/.*\/walkeep$/);
      expect(() => parse(['walkeep', ...words.slice(1)])).not.toThrow();
    }
  });

  test('runs as a user with no more than it needs', () => {
    expect(service.get('User')).not.toBe('root');
    expect(service.get('ProtectSystem')).toBe('strict');
    expect(service.get('NoNewPrivileges')).toBe('yes');
    expect(service.get('UMask')).toBe('0077');
    expect(`/var/lib/${service.get('StateDirectory')}`).toMatch(/^\/var\/lib\/walkeep/);
  });
});

describe('walkeep.service', () => {
  const service = new Map(unitOf('docs/examples/walkeep.service').get('Service'));

  test('is told how it is, and lets its receivers end in order', () => {
    expect(service.get('Type')).toBe('notify');
    // What speaks for it is a child.
    expect(service.get('NotifyAccess')).toBe('all');
    expect(service.get('KillMode')).toBe('mixed');
    // A receiver has 30 seconds.
    expect(Number(service.get('TimeoutStopSec'))).toBeGreaterThan(30);
    expect(service.get('OOMPolicy')).toBe('continue');
  });

  test('has a place for the socket and the archives of the examples', () => {
    expect(service.get('RuntimeDirectory')).toBe('walkeep');
    expect(service.get('StateDirectory')).toBe('walkeep');
    expect(service.get('ExecStart')).toContain(` -c ${CONFIG}`);
  });
});

describe('kubernetes.yaml', () => {
  const text = readText('docs/examples/kubernetes.yaml');
  const { configMap, secret, service, set, pod } = manifestsOf(text);
  const [container] = pod.containers;

  test('selects the pods that it makes', () => {
    const { labels } = set.spec.template.metadata;
    expect(set.spec.selector.matchLabels).toEqual(labels);
    expect(service.spec.selector).toEqual(labels);
    expect(set.spec.serviceName).toBe(service.metadata.name);
    expect(pod.containers).toHaveLength(1);
  });

  test('mounts what it has', () => {
    const claims = set.spec.volumeClaimTemplates.map(({ metadata }) => metadata.name);
    const volumes = [...claims, ...pod.volumes.map((one) => one.name)];
    const all = [...pod.containers, ...pod.initContainers];
    const mounted = all.flatMap(({ volumeMounts }) => volumeMounts.map((mount) => mount.name));
    expect(new Set(mounted)).toEqual(new Set(volumes));
    expect(pod.volumes.find((one) => one.configMap)?.configMap?.name).toBe(configMap.metadata.name);
    expect(pod.volumes.find((one) => one.secret)?.secret?.secretName).toBe(secret.metadata.name);
  });

  test('has a configuration that is valid, for what is mounted', async () => {
    expect(container?.args).toEqual(['serve', '-c', CONFIG]);
    expect(() => parse(['walkeep', ...(container?.args ?? [])])).not.toThrow();
    expect(Object.keys(configMap.data)).toEqual(['walkeep.yaml']);
    const { config, faults } = await parseConfig(
      Buffer.from(configMap.data['walkeep.yaml'] as string),
      {},
    );
    expect(faults).toEqual([]);
    const pathOf = (volume: string) =>
      container?.volumeMounts.find((mount) => mount.name === volume)?.mountPath as string;
    const made = pod.initContainers[0]?.command?.filter((word) => word.startsWith('/'));
    expect(config?.servers.map(({ directory }) => directory)).toEqual(made);
    for (const { directory, passwordFile } of config?.servers ?? []) {
      expect(directory.startsWith(`${pathOf('archive')}/`)).toBe(true);
      const [name] = passwordFile?.split(`${pathOf('secrets')}/`).slice(1) ?? [];
      expect(Object.keys(secret.stringData)).toContain(name);
    }
    expect(config?.control?.socket.startsWith(`${pathOf('run')}/`)).toBe(true);
    expect(`${pathOf('config')}/walkeep.yaml`).toBe(CONFIG);
  });

  test('is asked where it answers', async () => {
    const [port] = container?.ports ?? [];
    const { config } = await parseConfig(Buffer.from(configMap.data['walkeep.yaml'] as string), {});
    expect(config?.metrics).toEqual({ host: '0.0.0.0', port: port?.containerPort });
    const probes = [container?.startupProbe, container?.livenessProbe, container?.readinessProbe];
    for (const probe of probes) expect(probe?.httpGet.port).toBe(port?.name);
    expect(probes.map((probe) => probe?.httpGet.path)).toEqual(['/livez', '/livez', '/readyz']);
    expect(service.spec.ports[0]).toMatchObject({
      port: port?.containerPort,
      targetPort: 'metrics',
    });
  });

  test('gives receivers the time that they are given', () => {
    expect(pod.terminationGracePeriodSeconds).toBeGreaterThan(30);
  });

  test.each([
    ['a field that is not known', /replicas: 1/, 'replica: 1'],
    ['a writable root', /readOnlyRootFilesystem: true/, 'readOnlyRootFilesystem: false'],
    ['a key that is there twice', /replicas: 1/, 'replicas: 1\n  replicas: 1'],
    ['a tab', /\n {2}name: walkeep/, '\n\tname: walkeep'],
  ])('would not be taken with %s', (_what, good, bad) => {
    expect(text).toMatch(good);
    expect(() => manifestsOf(text.replace(good, bad))).toThrow();
  });
});

describe('Containerfile', () => {
  const lines = readText('docs/examples/Containerfile')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'));
  const instructions = lines.map((line) => /^([A-Z]+) (.+)$/.exec(line)?.slice(1) ?? []);
  const all = (name: string) =>
    instructions.filter((i) => i[0] === name).map((i) => i[1] as string);

  test('has instructions that exist', () => {
    const known = ['FROM', 'WORKDIR', 'COPY', 'RUN', 'USER', 'VOLUME', 'STOPSIGNAL', 'EXPOSE'];
    for (const [name] of instructions) expect([...known, 'ENTRYPOINT', 'CMD']).toContain(name);
  });

  test('copies files that exist', () => {
    for (const copy of all('COPY')) {
      const words = copy.split(' ');
      if (words[0]?.startsWith('--from')) continue;
      for (const file of words.slice(0, -1)) {
        expect(existsSync(join(packageRoot, file)), file).toBe(true);
      }
    }
  });

  test('starts serve, with a version of Node.js that it supports', () => {
    const words = [...all('ENTRYPOINT'), ...all('CMD')].flatMap((text) => JSON.parse(text));
    expect(words).toEqual(['walkeep', 'serve', '-c', CONFIG]);
    expect(() => parse(words)).not.toThrow();
    for (const image of all('FROM')) {
      expect(Number(/node:(\d+)/.exec(image)?.[1])).toBeGreaterThanOrEqual(20);
    }
  });

  test('is not of root, and writes to volumes only', () => {
    expect(instructions.findLastIndex(([name]) => name === 'RUN')).toBeLessThan(
      instructions.findIndex(([name]) => name === 'USER'),
    );
    expect(all('USER')).toEqual(['node']);
    const volumes = JSON.parse(all('VOLUME')[0] as string) as string[];
    const [made = []] = all('RUN')
      .filter((command) => command.startsWith('install -d'))
      .map((command) => command.split(' ').filter((word) => word.startsWith('/')));
    expect(volumes).toEqual(made);
  });
});
