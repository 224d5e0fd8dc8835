import { describe, expect, it } from 'vitest';
import { bytesOf, contentOf } from '../../src/store/content.js';
import { openFileStore } from '../../src/store/file/file-store.js';
import type { Created, ObjectStore } from '../../src/store/store.js';
import { Random } from '../simulation/random.js';
import { keys } from './contract.js';
import { SimulatedTree } from './simulated-tree.js';

const DIR = '/store';
const KEY = 'systems/1/wal/00000001/000000010000000000000001';
/** Of one size: nothing but the bytes tells them apart. */
const TEXTS = ['content of the first', 'content of the other'];
/** Power cuts and orders of calls tried at each call. */
const SEEDS = 6;

const writers = (name: string, text: string) => ({
  content: contentOf(Buffer.from(text)),
  options: { meta: { writer: name }, token: name },
});
const RACERS = [writers('one', TEXTS[0]!), writers('two', TEXTS[1]!)];

async function made(tree: SimulatedTree, random: Random): Promise<void> {
  await openFileStore(DIR, { init: true, fs: tree.process(random).fs });
}

/** All that may be of the key in a store that was opened after a crash. */
async function lookAt(store: ObjectStore, answers: (Created | undefined)[]): Promise<void> {
  const winner = answers.findIndex((answer) => answer?.created === true);
  const got = await store.get(KEY);
  // Also who was told that another one has made it may rely on that.
  if (answers.some((answer) => answer !== undefined)) expect(got).toBeDefined();
  expect(await keys(store.list(''))).toEqual(got ? [KEY] : []);
  if (!got) return;
  const text = (await bytesOf(got.body)).toString();
  const maker = TEXTS.indexOf(text);
  // Never half.
  expect(maker).toBeGreaterThanOrEqual(0);
  if (winner >= 0) expect(maker).toBe(winner);
  const { content, options } = RACERS[maker]!;
  // Never another's.
  if (got.sha256 === undefined) expect(got.meta).toEqual({});
  else expect(got).toMatchObject({ sha256: content.sha256, meta: options.meta });
  // Of what was answered for nothing is missing.
  if (winner >= 0) expect(got.sha256).toBe(content.sha256);
  for (const answer of answers) {
    if (answer?.created === false) expect(answer.found.size).toBe(text.length);
  }
}

async function leftovers(tree: SimulatedTree, random: Random): Promise<string[]> {
  const entries = await tree.process(random).fs.readdir(`${DIR}/.walkeep-store/new`);
  return entries.map(({ name }) => name);
}

/** Whether somebody else sees the object, in one way or another. */
async function look(tree: SimulatedTree, random: Random): Promise<boolean> {
  const store = await openFileStore(DIR, {
    fs: tree.process(random).fs,
    isDead: async () => false,
  });
  const way = random.pick(['head', 'get', 'list'] as const);
  if (way === 'list') return (await keys(store.list(''))).length > 0;
  return (await store[way](KEY)) !== undefined;
}

/** @param at the call at which the first racer dies */
async function round(seed: number, at: number, power: boolean): Promise<boolean> {
  const random = new Random(seed);
  const tree = new SimulatedTree();
  await made(tree, random);
  const processes = [
    tree.process(random, at, random.pick(['before', 'after'] as const)),
    tree.process(random),
  ];
  const racing = processes.map(async (process, i) => {
    const create = async () => {
      const store = await openFileStore(DIR, { fs: process.fs, isDead: async () => false });
      return store.create(KEY, RACERS[i]!.content, RACERS[i]!.options);
    };
    return Promise.race([create(), process.death]);
  });
  // After a power cut the second one is not there any more either, wherever it was.
  const first = await racing[0]!;
  if (power && random.chance(0.5)) processes[1]!.kill();
  const second = await racing[1]!;
  const answers = [first, second].map((answer) => (answer === 'died' ? undefined : answer));
  const seen = random.chance(0.5) && (await look(tree, random));
  if (power) tree.cutPower(random);
  const store = await openFileStore(DIR, {
    fs: tree.process(random).fs,
    isDead: async () => true,
  });
  await lookAt(store, answers);
  // Nobody was told of what is gone again.
  if (seen) expect(await store.head(KEY)).toBeDefined();
  // Both say again what they said; one of them has it.
  const repeated = [];
  for (const { content, options } of RACERS)
    repeated.push(await store.create(KEY, content, options));
  await lookAt(store, repeated);
  const agreed = repeated.filter((answer) => answer.created).length;
  expect(agreed).toBeLessThanOrEqual(1);
  if (answers.some((answer) => answer?.created)) {
    expect(repeated.map((a) => a.created)).toEqual(answers.map((a) => a?.created === true));
  }
  expect(await leftovers(tree, random)).toEqual([]);
  return first === 'died';
}

describe('create, of two at once, where one dies at any call', () => {
  for (const power of [false, true]) {
    it(power ? 'and the power goes with it' : 'and the other one goes on', async () => {
      let at = 1;
      for (let died = true; died; at++) {
        died = false;
        for (let seed = 0; seed < SEEDS; seed++) {
          died = (await round(1000 * at + seed, at, power)) || died;
        }
      }
      // As many calls as there are on the way.
      expect(at).toBeGreaterThan(30);
    });
  }
});

describe('a directory that others take for empty', () => {
  it('is there again with what is created in it, also after a power cut', async () => {
    const kept = (name: string) => `lease/one/${name}/0`;
    let again = 0;
    for (let seed = 0; seed < 300; seed++) {
      const random = new Random(seed);
      const tree = new SimulatedTree();
      await made(tree, random);
      const open = async () => {
        const fs = tree.process(random).fs;
        return openFileStore(DIR, { fs, isDead: async () => false });
      };
      const [writer, other, third] = [await open(), await open(), await open()];
      const content = contentOf(Buffer.from('x'));
      const first = 'lease/one/first/0';
      await writer.create(first, content);
      const directory = tree.find(`${DIR}/lease/one`);
      await Promise.all([
        writer.remove([first], { prune: 'lease/one/' }),
        other.remove([first], { prune: 'lease/one/' }),
        third.create(kept('third'), content),
        writer.create(kept('second'), content),
      ]);
      if (tree.find(`${DIR}/lease/one`) !== directory) again += 1;
      await writer.create(kept('last'), content);
      tree.cutPower(random);
      const found = await keys((await open()).list('lease/'));
      expect(found, `${seed}`).toEqual(['last', 'second', 'third'].map(kept));
    }
    expect(again).toBeGreaterThan(20);
  });

  it('goes with all that is empty in it, and stays where something is', async () => {
    const random = new Random(1);
    const tree = new SimulatedTree();
    await made(tree, random);
    const store = await openFileStore(DIR, { fs: tree.process(random).fs });
    const content = contentOf(Buffer.from('x'));
    for (const key of ['backups/a/x/1', 'backups/a/2', 'backups/b/1'])
      await store.create(key, content);
    await store.remove(['backups/a/x/1'], { prune: 'backups/a/' });
    expect(tree.find(`${DIR}/backups/a/x`)).toBeUndefined();
    expect(await keys(store.list(''))).toEqual(['backups/a/2', 'backups/b/1']);
    await store.remove(['backups/a/2'], { prune: 'backups/a/' });
    expect(tree.find(`${DIR}/backups/a`)).toBeUndefined();
    expect(tree.find(`${DIR}/backups`)).toBeDefined();
    await expect(store.remove([], { prune: '../other/' })).rejects.toThrow(/cannot be the key/);
    await expect(store.remove([], { prune: '.walkeep-store/' })).rejects.toThrow(/own/);
  });
});
