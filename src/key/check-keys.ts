import {
  type ArchiveOptions,
  identitiesOf,
  isStore,
  openArchive,
} from '../archive/places/open-archive.js';
import { nameOf, StoreArchive } from '../archive/places/store-archive.js';
import { pathOf } from '../archive/places/store-segment.js';
import { systemPrefix } from '../archive/store-keys.js';
import type { Identities } from '../codec/age/identities.js';
import { detectCodec, encryptionOf } from '../codec/stages.js';
import { ArchiveAccessError, CorruptObjectError, StorageError, UsageError } from '../errors.js';
import { openStore } from '../store/open.js';
import { readWhole } from '../store/read-whole.js';
import type { ObjectStore } from '../store/store.js';
import { parseStoredName, unreadableFormOf } from '../wal/file-name.js';

export interface CheckKeysOptions extends ArchiveOptions {
  /** Objects looked at beside the ends of timelines and what is unfinished. Default 16. */
  sample?: number | undefined;
  /** Look at every object. */
  all?: boolean | undefined;
  signal?: AbortSignal | undefined;
}

/** Who can read one object, by its first bytes. */
export interface ObjectKeys {
  key: string;
  /** What it is called in an archive. */
  name: string;
  encrypted: boolean;
  /** How many it is encrypted for. */
  recipients: number;
  /** Those of the identities that open it, by their public keys. */
  openedBy: string[];
  /** Why nobody can read it. */
  problem?: string;
}

export interface KeyCheck {
  /** Public keys of the identities that were tried. */
  identities: readonly string[];
  /** What was looked at, by name; undefined for a flat directory, where nothing is encrypted. */
  objects: ObjectKeys[] | undefined;
  /** All objects of WAL that are there. */
  total: number;
}

const SAMPLE = 16;
/** The header for a handful of recipients. */
const FIRST = 16 * 1024;
/** No header is longer. */
const MOST = 256 * 1024;
/** Objects asked for at a time. */
const AT_ONCE = 8;

/**
 * Which identities open what an archive holds. Of each object only the beginning is read.
 * @throws UsageError without an identity; EncryptedError if one cannot be had; StorageError where there
 *   is no WAL; what the place throws if it cannot be asked
 */
export async function checkKeys(place: string, options: CheckKeysOptions): Promise<KeyCheck> {
  const identities = await identitiesOf(options)();
  if (!identities) {
    throw new UsageError('no identity is given', {
      hint: 'Give one with --identity or --identity-command.',
    });
  }
  if (!isStore(place)) {
    await requireWal(place);
    return { identities: identities.recipients, objects: undefined, total: 0 };
  }
  const store = await openStore(place);
  try {
    return await checkStore(store, identities, options);
  } finally {
    await store.close();
  }
}

/** True if somebody with these identities can read it. */
export function isOpen({ problem, encrypted, openedBy }: ObjectKeys): boolean {
  return problem === undefined && (!encrypted || openedBy.length > 0);
}

/** @throws StorageError unless a flat directory has WAL, all in forms that are not encrypted */
async function requireWal(place: string): Promise<void> {
  const archive = await openArchive(place);
  const names = (await archive.list()).map(({ name }) => name);
  const unread = names.find((name) => unreadableFormOf(name) !== undefined);
  if (unread !== undefined) {
    throw new ArchiveAccessError(`"${unread}" is in a form that cannot be read`, {
      path: archive.place,
      hint: 'walkeep encrypts nothing in a flat directory: see what it is, and move it away.',
    });
  }
  if (!names.some((name) => parseStoredName(name)?.kind === 'segment')) throw noWal(archive.place);
}

function noWal(place: string): StorageError {
  return new StorageError(`"${place}" holds no WAL`, { path: place });
}

/** `checkKeys` of a store that is open. */
export async function checkStore(
  store: ObjectStore,
  identities: Identities,
  options: CheckKeysOptions = {},
): Promise<KeyCheck> {
  const cluster = await new StoreArchive(store, options.systemId).cluster();
  if (!cluster) throw noWal(store.place);
  const found: Found[] = [];
  const prefix = systemPrefix(cluster.systemId);
  for (const kind of ['wal/', 'partial/']) {
    for await (const { key } of store.list(prefix + kind, { signal: options.signal })) {
      const name = nameOf(key.slice(prefix.length));
      if (name !== undefined) found.push({ key, name });
    }
  }
  // The keys of one partial are in order already, and stay so.
  found.sort((a, b) => (a.name < b.name ? -1 : Number(a.name > b.name)));
  const chosen = options.all ? found : choose(found, options.sample ?? SAMPLE);
  const objects = await inTurns(chosen, (one) => look(store, one, identities, options.signal));
  if (objects.length === 0) throw noWal(store.place);
  return { identities: identities.recipients, objects, total: found.length };
}

interface Found {
  key: string;
  name: string;
}

/** The ends of each timeline, what is unfinished, and so many more, evenly apart. */
function choose(found: readonly Found[], sample: number): Found[] {
  const chosen = new Set<Found>();
  const whole = found.filter(({ name }) => !name.endsWith('.partial'));
  const timelineOf = (one: Found | undefined) => one?.name.slice(0, 8);
  for (const [i, one] of whole.entries()) {
    const isEnd = [whole[i - 1], whole[i + 1]].some((o) => timelineOf(o) !== timelineOf(one));
    if (isEnd) chosen.add(one);
  }
  // The last key of a partial has all that the others have.
  for (const [i, one] of found.entries()) {
    if (one.name.endsWith('.partial') && found[i + 1]?.name !== one.name) chosen.add(one);
  }
  const rest = whole.filter((one) => !chosen.has(one));
  const wanted = Math.min(sample, rest.length);
  for (let i = 0; i < wanted; i++) {
    chosen.add(rest[Math.floor(((i + 0.5) * rest.length) / wanted)] as Found);
  }
  return found.filter((one) => chosen.has(one));
}

/** Undefined if it was removed meanwhile. */
async function look(
  store: ObjectStore,
  { key, name }: Found,
  identities: Identities,
  signal: AbortSignal | undefined,
): Promise<ObjectKeys | undefined> {
  const facts: ObjectKeys = { key, name, encrypted: false, recipients: 0, openedBy: [] };
  try {
    const first = await bytesAt(store, key, { start: 0, end: FIRST }, signal);
    if (!first) return undefined;
    const codec = detectCodec(first);
    if (codec === undefined) return { ...facts, problem: 'begins with nothing that is known' };
    if (codec !== 'age') return facts;
    facts.encrypted = true;
    const stored = async function* (): AsyncGenerator<Uint8Array> {
      yield first;
      if (first.length < FIRST) return;
      const more = await bytesAt(store, key, { start: FIRST, end: MOST }, signal);
      if (more) yield more;
    };
    return { ...facts, ...(await encryptionOf(stored(), identities, pathOf(store, key))) };
  } catch (e) {
    if (!(e instanceof CorruptObjectError)) throw e;
    return { ...facts, problem: 'cut short or damaged at its beginning' };
  }
}

function bytesAt(
  store: ObjectStore,
  key: string,
  range: { start: number; end: number },
  signal: AbortSignal | undefined,
): Promise<Uint8Array | undefined> {
  return readWhole(store, key, (bytes) => bytes, { range, signal });
}

/** The answers in the order of the questions, of which some are asked at a time. */
async function inTurns<Q, A>(
  questions: readonly Q[],
  ask: (question: Q) => Promise<A | undefined>,
): Promise<A[]> {
  const answers: A[] = [];
  for (let i = 0; i < questions.length; i += AT_ONCE) {
    for (const answer of await Promise.all(questions.slice(i, i + AT_ONCE).map(ask))) {
      if (answer !== undefined) answers.push(answer);
    }
  }
  return answers;
}
