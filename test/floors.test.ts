import { readdirSync, readFileSync } from 'node:fs';
import { dirname, join, normalize, sep } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect, it } from 'vitest';

/**
 * The house, top floor first. A room is a folder with all below it, or a file. Each imports from
 * floors below its own and from its own room; the rooms of one floor do not know each other.
 */
const FLOORS: readonly (readonly string[])[] = [
  ['index.ts', 'cli'],
  ['library', 'rehearse', 'serve'],
  ['restore', 'expire', 'backups'],
  ['receive'],
  ['verify', 'find', 'fetch', 'push', 'cleanup', 'check', 'list', 'ship', 'key', 'backup'],
  ['archive'],
  ['store'],
  ['server'],
  ['connection'],
  ['codec'],
  ['files'],
  ['wal.ts'],
  ['protocol', 'wal', 'base'],
  ['options.ts', 'lsn.ts', 'threads.ts'],
  ['errors.ts'],
  [
    ...['wasm', 'text.ts', 'words.ts', 'units.ts', 'delay.ts', 'free-memory.ts', 'package.ts'],
    'beside.ts',
  ],
];
/**
 * In these rooms an inner folder does not know what lies around it, nor its neighbours, but for those
 * that are named.
 */
const NESTED: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>> = {
  connection: {},
  receive: { 'receive/start': ['receive/target'] },
};

const MOST_LINES = 450;
const MOST_FILES = 25;
const SOURCE = fileURLToPath(new URL('../src/', import.meta.url));

const files = readdirSync(SOURCE, { recursive: true, encoding: 'utf8' })
  .filter((name) => name.endsWith('.ts'))
  .map((name) => name.split(sep).join('/'))
  .sort();
const texts = new Map(files.map((name) => [name, readFileSync(join(SOURCE, name), 'utf8')]));
const imports = new Map(files.map((name) => [name, importsOf(name)]));

/** Also of types: who needs a type knows the room that it is in. */
function importsOf(name: string): string[] {
  const found = (texts.get(name) ?? '').matchAll(
    /(?:\bfrom|\bimport\(|\bnew URL\()\s*'(\.[^']+)'/g,
  );
  return [...found].map((match) =>
    normalize(join(dirname(name), match[1] as string))
      .split(sep)
      .join('/')
      .replace(/\.js$/, '.ts'),
  );
}

function place(name: string): { floor: number; room: string } {
  const room = name.split('/')[0] as string;
  return { floor: FLOORS.findIndex((rooms) => rooms.includes(room)), room };
}

it('has a floor for every file', () => {
  expect(files.filter((name) => place(name).floor < 0)).toEqual([]);
});

it('imports only what is there', () => {
  const missing = [...imports].flatMap(([from, all]) =>
    all.filter((to) => !texts.has(to)).map((to) => `${from} -> ${to}`),
  );
  expect(missing).toEqual([]);
});

it('imports strictly downwards, and nothing from the next room', () => {
  const wrong = [...imports].flatMap(([from, all]) => {
    const here = place(from);
    return all
      .filter((to) => {
        const there = place(to);
        return there.room !== here.room && there.floor <= here.floor;
      })
      .map((to) => `${from} -> ${to}`);
  });
  expect(wrong).toEqual([]);
});

it('keeps inner folders free of what lies around them', () => {
  const wrong = [...imports].flatMap(([from, all]) => {
    const room = place(from).room;
    const inner = dirname(from);
    const known = NESTED[room];
    if (!known || inner === room) return [];
    return all
      .filter((to) => place(to).room === room)
      .filter((to) => dirname(to) !== inner && !known[inner]?.includes(dirname(to)))
      .map((to) => `${from} -> ${to}`);
  });
  expect(wrong).toEqual([]);
});

it('has no circle', () => {
  const circles: string[] = [];
  const done = new Set<string>();
  const visit = (name: string, path: readonly string[]): void => {
    const at = path.indexOf(name);
    if (at >= 0) circles.push([...path.slice(at), name].join(' -> '));
    if (at >= 0 || done.has(name)) return;
    for (const next of imports.get(name) ?? []) visit(next, [...path, name]);
    done.add(name);
  };
  for (const name of files) visit(name, []);
  expect(circles).toEqual([]);
});

it('has files that are read in one sitting, and folders that are seen at a glance', () => {
  const long = files.filter((name) => (texts.get(name) ?? '').split('\n').length - 1 > MOST_LINES);
  const perFolder = new Map<string, number>();
  for (const name of files) perFolder.set(dirname(name), (perFolder.get(dirname(name)) ?? 0) + 1);
  const full = [...perFolder].filter(([, count]) => count > MOST_FILES);
  expect({ long, full }).toEqual({ long: [], full: [] });
});
