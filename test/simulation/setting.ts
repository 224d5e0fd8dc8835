import type { CompressionOption } from '../../src/receive/options.js';
import { Random } from './random.js';

/** What a seed's receivers are run with, and what goes on around them. */
export interface Setting {
  /** Each start chooses how full segments are compressed; false: they never are. */
  compresses: boolean;
  /** Complete files are moved away now and then, as Barman does. */
  moves: boolean;
  /** `unreadable`: on a server of 14, which cannot tell where a slot stands. */
  slot: 'readable' | 'unreadable' | 'none';
  /** Bytes of WAL come in bulk, and processes live long enough to fill several segments. */
  busy: boolean;
}

const PLAIN: Setting = { compresses: false, moves: false, slot: 'readable', busy: false };
const METHODS: readonly CompressionOption[] = [
  { method: 'none' },
  { method: 'gzip', level: 1 },
  { method: 'gzip', level: 1 },
  { method: 'lz4' },
];

/** Its numbers are its own: those of a plain seed are what they were without settings. */
export function settingOf(seed: number): { setting: Setting; random: Random } {
  const random = new Random(seed ^ 0x5e771265);
  if (random.chance(0.4)) return { setting: PLAIN, random };
  const compresses = random.chance(0.75);
  const moves = random.chance(0.7);
  const slot = random.pick(['readable', 'unreadable', 'none'] as const);
  return { setting: { compresses, moves, slot, busy: true }, random };
}

/** The codec of one process. */
export function compressionFor(setting: Setting, random: Random): CompressionOption {
  return setting.compresses ? random.pick(METHODS) : { method: 'none' };
}
