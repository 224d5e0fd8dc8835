import { ABANDONED } from './abandoned.js';
import type { StoredBackup } from './catalog.js';
import { chainOf } from './chain.js';
import { backupKey, CLAIM, RECORD } from './keys.js';
import type { RunningLease } from './lease.js';
import type { JudgedBackup } from './retention.js';

/** A backup of a place, with what can be told of it without reading what it holds. */
export interface PlacedBackup extends JudgedBackup {
  found: StoredBackup;
  /** Why it is damaged. */
  problem?: string;
  /** What it is based on, the newest first, the full one last. Empty of a full one. */
  chain: StoredRecord[];
  /** The same as `problem` where that is not of itself, but of what it is based on. */
  broken?: string;
}

type StoredRecord = NonNullable<StoredBackup['record']>;

/** When, and beside whom, backups are looked at. */
export interface JudgedAt {
  leases: readonly RunningLease[];
  /** By the clock of the place. */
  now: Date;
  /** Those that nobody works on any more, see `abandonedOf`. */
  abandoned?: ReadonlySet<string>;
}

export function judgeBackups(
  backups: readonly StoredBackup[],
  { leases, now, abandoned = new Set() }: JudgedAt,
): PlacedBackup[] {
  const held = new Set(leases.map((lease) => lease.id));
  const isOpen = ({ id }: StoredBackup, stored: Date): boolean => {
    const idle = Math.abs(now.getTime() - stored.getTime());
    return held.has(id) || (idle <= ABANDONED && !abandoned.has(id));
  };
  const judged = new Map(backups.map((found) => [found.id, judge(found, isOpen)]));
  const whole = new Map<string, StoredRecord>();
  for (const { id, state, found } of judged.values()) {
    if (state === 'complete' && found.record) whole.set(id, found.record);
  }
  for (const one of judged.values()) {
    if (!one.found.record) continue;
    const found = chainOf(one.found.record, (id) => whole.get(id));
    if ('chain' in found) one.chain = found.chain.slice(1);
    else {
      one.broken = found.broken;
      one.problem ??= found.broken;
      if (one.state === 'complete') one.state = 'damaged';
    }
  }
  return [...judged.values()];
}

function judge(
  found: StoredBackup,
  isOpen: (found: StoredBackup, stored: Date) => boolean,
): PlacedBackup {
  const { id, kept, record, problem, objects } = found;
  const key = RECORD;
  const own = objects.find((object) => object.key.endsWith(`/${id}/${key}`));
  const times = objects.map((object) => object.modified.getTime());
  const stored = own?.modified ?? new Date(Math.max(...times));
  const base = { id, kept, stored, found, chain: [], ...(record ? { record } : {}) };
  if (problem) return { ...base, state: 'damaged', problem: problem.message };
  if (!record) return { ...base, state: isOpen(found, stored) ? 'running' : 'leftover' };
  const lacking = lackingObject(found, own?.key ?? '');
  return lacking === undefined
    ? { ...base, state: 'complete' }
    : { ...base, state: 'damaged', problem: lacking };
}

/** An object that its record names and that is not there as it should be. */
function lackingObject({ id, record, objects }: StoredBackup, own: string): string | undefined {
  const prefix = own.slice(0, own.length - backupKey('', id, RECORD).length);
  const sizes = new Map(objects.map(({ key, size }) => [key, size]));
  for (const { name, size } of record?.objects ?? []) {
    // Without what says who took it, it can be restored all the same; `verify` tells.
    if (name === CLAIM) continue;
    const key = backupKey(prefix, id, name);
    const is = sizes.get(key);
    if (is === undefined) return `"${key}" is not there`;
    if (is !== size) return `"${key}" has ${is} bytes instead of ${size}`;
  }
  return undefined;
}
