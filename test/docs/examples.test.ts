import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, test } from 'vitest';
import { packageRoot } from '../support/scratch.js';
import { parse } from './command-line.js';
import { readText } from './documents.js';
import { commandsOf } from './shell.js';
import { parseYaml } from './yaml.js';

// biome-ignore lint/suspicious/noExplicitAny: manifests are what they say
type Any = any;

describe('walkeep.service', () => {
  const sections = new Map<string, [string, string][]>();
  let current: [string, string][] = [];
  for (const line of readText('docs/examples/walkeep.service').split('\n')) {
    const heading = /^\[(\w+)\]$/.exec(line)?.[1];
    const setting = /^([A-Z]\w+)=(.+)$/.exec(line);
    if (heading) {
      current = [];
      sections.set(heading, current);
    } else if (setting) current.push([setting[1] as string, setting[2] as string]);
    else if (line !== '' && !line.startsWith('#')) throw new Error(`no line of a unit: ${line}`);
  }
  const service = new Map(sections.get('Service'));

  test('has the sections of a unit', () => {
    expect([...sections.keys()]).toEqual(['Unit', 'Service', 'Install']);
    expect(service.size).toBe(sections.get('Service')?.length);
  });

  test('starts a receiver that exists', () => {
    const [words = []] = commandsOf(service.get('ExecStart') as string);
    expect(words[0]).toMatch(/^\/.*\/walkeep$/);
    expect(() => parse(['walkeep', ...words.slice(1)])).not.toThrow();
    expect(words).toContain(`/var/lib/${service.get('StateDirectory')}`);
  });
});

describe('kubernetes.yaml', () => {
  const [secret, set, ...more] = parseYaml(readText('docs/examples/kubernetes.yaml')) as Any[];
  const { spec } = set.spec.template;

  test('holds a secret and a stateful set of one', () => {
    expect(more).toEqual([]);
    expect(secret).toMatchObject({ apiVersion: 'v1', kind: 'Secret' });
    expect(set).toMatchObject({ apiVersion: 'apps/v1', kind: 'StatefulSet' });
    expect(set.spec.replicas).toBe('1');
    expect(set.spec.selector.matchLabels).toEqual(set.spec.template.metadata.labels);
  });

  test('mounts what it has', () => {
    const claims = set.spec.volumeClaimTemplates.map((claim: Any) => claim.metadata.name);
    const volumes = [...claims, ...spec.volumes.map((volume: Any) => volume.name)];
    const containers = [...spec.containers, ...spec.initContainers];
    const mounts = containers.flatMap((c: Any) => c.volumeMounts);
    for (const { name } of mounts) expect(volumes).toContain(name);
    expect(new Set(mounts.map((m: Any) => m.name))).toEqual(new Set(volumes));
    const [fromSecret] = spec.volumes.filter((v: Any) => v.secret);
    expect(fromSecret.secret.secretName).toBe(secret.metadata.name);
    expect(Object.keys(secret.stringData)).toEqual(['pgpass']);
  });

  test('starts a receiver that exists, with the password file that it prepares', () => {
    const [container] = spec.containers;
    expect(() => parse(['walkeep', ...container.args])).not.toThrow();
    const [prepare] = spec.initContainers;
    const [, , script] = prepare.command;
    const commands = commandsOf(script);
    expect(commands.map((words) => words[0])).toEqual(['mkdir', 'install']);
    expect(container.args).toContain(`--directory=${commands[0]?.at(-1)}`);
    expect(commands[1]?.at(-1)).toBe(container.env[0].value);
  });
});

describe('the YAML reader of these tests', () => {
  test.each([
    'a: {b: c}',
    'a: &x b',
    '\ta: b',
    'a: b\n   c: d',
    'a: b\na: c',
    'a:\nb: c',
    '- a\nb',
  ])('refuses %j', (text) => expect(() => parseYaml(text)).toThrow());
});

describe('Containerfile', () => {
  const lines = readText('docs/examples/Containerfile')
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#'));
  const instructions = lines.map((line) => /^([A-Z]+) (.+)$/.exec(line)?.slice(1) ?? []);
  const all = (name: string) =>
    instructions.filter((i) => i[0] === name).map((i) => i[1] as string);

  test('has instructions that exist', () => {
    const known = ['FROM', 'WORKDIR', 'COPY', 'RUN', 'USER', 'VOLUME', 'STOPSIGNAL'];
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

  test('starts walkeep with a version of Node.js that it supports', () => {
    expect(JSON.parse(all('ENTRYPOINT')[0] as string)).toEqual(['walkeep']);
    for (const image of all('FROM')) {
      expect(Number(/node:(\d+)/.exec(image)?.[1])).toBeGreaterThanOrEqual(20);
    }
  });
});
