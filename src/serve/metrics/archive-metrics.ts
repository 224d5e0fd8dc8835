import { Gauge, type Registry } from 'prom-client';
import type { ArchiveStatus, ServerStatus } from '../status.js';

type Numbers = (
  archive: ArchiveStatus,
) => readonly [labels: Record<string, string>, value: number][];

const seconds = (time: string): number => Date.parse(time) / 1000;
/** Nothing of what was not read, or is not known. */
const one = (value: number | undefined): [Record<string, string>, number][] =>
  value === undefined || !Number.isFinite(value) ? [] : [[{}, value]];
const timeOf = (time: string | undefined) => one(time === undefined ? undefined : seconds(time));

const GAUGES: Readonly<
  Record<string, readonly [help: string, labels: readonly string[], of: Numbers]>
> = {
  archive_read_timestamp_seconds: [
    'When what the archive holds was looked at last, seconds since 1970',
    [],
    ({ readAt }) => timeOf(readAt),
  ],
  archive_segments: [
    'Segments in the archive',
    [],
    ({ readAt, segments }) => one(readAt === undefined ? undefined : segments),
  ],
  archive_free_bytes: [
    'Bytes free on the file system of the archive',
    [],
    ({ freeBytes }) => one(freeBytes),
  ],
  gaps: [
    'Stretches of WAL that are missing, those that somebody accepted apart',
    ['accepted'],
    ({ readAt, gaps, more }) => {
      if (readAt === undefined) return [];
      const accepted = gaps.filter((gap) => gap.accepted).length;
      return [
        [{ accepted: 'true' }, accepted + (more?.acceptedGaps ?? 0)],
        [{ accepted: 'false' }, gaps.length - accepted + (more?.gaps ?? 0)],
      ];
    },
  ],
  first_recoverable_timestamp_seconds: [
    'The first moment that can be restored to, seconds since 1970',
    [],
    ({ windows }) => timeOf(windows[0]?.from),
  ],
  last_recoverable_timestamp_seconds: [
    'The last moment that can be restored to, seconds since 1970',
    [],
    ({ windows }) => timeOf(windows.at(-1)?.to),
  ],
  backup_last_success_timestamp_seconds: [
    'When the newest backup that can be restored ended, seconds since 1970',
    ['type', 'place'],
    ({ backups }) => {
      const newest = new Map<string, [Record<string, string>, number]>();
      for (const { type, place, state, endedAt } of backups) {
        const at = endedAt === undefined ? Number.NaN : seconds(endedAt);
        const key = `${type} ${place}`;
        const before = newest.get(key)?.[1] ?? Number.NEGATIVE_INFINITY;
        if (state === 'complete' && at > before) newest.set(key, [{ type, place }, at]);
      }
      return [...newest.values()];
    },
  ],
  slot_up: [
    '1 if the slot is there and keeps the WAL that it is for, 0 if not; nothing if not known',
    [],
    ({ slot }) =>
      slot && !slot.error ? one(slot.exists && slot.walStatus !== 'lost' ? 1 : 0) : [],
  ],
  slot_retained_bytes: [
    'WAL that the server keeps for the slot',
    [],
    ({ slot }) => one(slot?.retainedBytes),
  ],
  slot_safe_bytes: [
    'WAL that may yet be written before the server lets go of what the slot needs; nothing: no limit',
    [],
    ({ slot }) => one(slot?.safeBytes),
  ],
};

/** What archives hold and servers keep for them, as it was looked at last. */
export function archiveMetrics(registry: Registry, servers: () => ServerStatus[]): void {
  for (const [name, [help, labels, of]] of Object.entries(GAUGES)) {
    new Gauge({
      ...{ name: `walkeep_${name}`, help, labelNames: ['server', ...labels] },
      registers: [registry],
      collect() {
        this.reset();
        for (const { name: server, archive } of servers()) {
          for (const [own, value] of archive ? of(archive) : [])
            this.set({ server, ...own }, value);
        }
      },
    });
  }
}
