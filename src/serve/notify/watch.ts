import { withoutSecrets } from '../../text.js';
import type { ServerStatus, TroubleStatus } from '../status.js';
import { type Circumstances, type Found, findTroubles, RESTARTS_WITHIN } from './troubles.js';

/** Milliseconds that a trouble has to be gone to be over; twice as long each time that it came back. */
const CALM = 60_000;
const LONGEST_CALM = 900_000;
/** Milliseconds for which it is remembered that something was wrong. */
const MEMORY = 3_600_000;

/** A trouble that counts. */
export interface PresentTrouble extends TroubleStatus {
  /** Of what it is, the same each time. */
  id: string;
  /** Absent: it is of all. */
  server?: string;
}

/** What a look brought. */
export interface Changes {
  /** Also what became worse. */
  begun: PresentTrouble[];
  over: PresentTrouble[];
}

/** Times are of `performance.now()`: durations do not follow a clock that is set. */
interface Case {
  trouble: PresentTrouble;
  isPresent: boolean;
  /** Found at each look since then; undefined: not at the last one. */
  foundSince: number | undefined;
  seenAt: number;
  /** When it began, of late. */
  begins: number[];
}

const SEVERITIES: readonly TroubleStatus['severity'][] = ['critical', 'warning'];
const rank = ({ severity }: TroubleStatus): number => SEVERITIES.indexOf(severity);

/** What is known beside the status. */
export type WatchedCircumstances = Omit<Circumstances, 'restarts'>;

/** Remembers what was wrong, so that what comes and goes is not told each time. */
export class TroubleWatch {
  readonly #cases = new Map<string, Case>();
  readonly #restarts = new Map<string, { count: number; at: number[] }>();

  /** All that counts, the worst first. */
  get present(): PresentTrouble[] {
    return [...this.#cases.values()]
      .filter(({ isPresent }) => isPresent)
      .map(({ trouble }) => trouble)
      .sort((a, b) => rank(a) - rank(b));
  }

  /** @param clock of `performance.now()` */
  look(servers: readonly ServerStatus[], around: WatchedCircumstances, clock: number): Changes {
    for (const server of servers) this.#noteRestarts(server, clock);
    const restarts = (server: string) => this.#restarts.get(server)?.at.length ?? 0;
    const changes: Changes = { begun: [], over: [] };
    const found = findTroubles(servers, { ...around, restarts });
    for (const one of found) this.#note(one, around.now, clock, changes);
    const ids = new Set(found.map(idOf));
    const names = new Set(servers.map(({ name }) => name));
    for (const [id, one] of this.#cases) {
      if (ids.has(id)) continue;
      const { server } = one.trouble;
      if (server !== undefined && !names.has(server)) this.#forget(id, one, changes);
      else this.#calm(id, one, clock, changes);
    }
    for (const name of this.#restarts.keys()) {
      if (!names.has(name)) this.#restarts.delete(name);
    }
    return changes;
  }

  #note({ patience = 0, ...found }: Found, now: number, clock: number, { begun }: Changes): void {
    const id = idOf(found);
    const { since = now, ...rest } = found;
    const text = withoutSecrets(rest.text);
    const trouble = { id, ...rest, text, since: new Date(since).toISOString() };
    const known = this.#cases.get(id);
    if (known?.isPresent) {
      const worse = rank(trouble) < rank(known.trouble);
      known.trouble = { ...trouble, since: known.trouble.since };
      known.seenAt = clock;
      if (worse) begun.push(known.trouble);
      return;
    }
    const foundSince = known?.foundSince ?? clock;
    // Since it was found, whatever it took to count.
    const kept = known?.foundSince === undefined ? trouble.since : known.trouble.since;
    const one: Case = {
      trouble: { ...trouble, since: kept },
      ...{ isPresent: clock - foundSince >= patience, foundSince, seenAt: clock },
      begins: (known?.begins ?? []).filter((at) => clock - at < MEMORY),
    };
    this.#cases.set(id, one);
    if (!one.isPresent) return;
    one.begins.push(clock);
    begun.push(one.trouble);
  }

  /** It was not found. */
  #calm(id: string, one: Case, clock: number, { over }: Changes): void {
    one.foundSince = undefined;
    const away = clock - one.seenAt;
    if (!one.isPresent) {
      if (away >= MEMORY) this.#cases.delete(id);
      return;
    }
    const again = one.begins.length - 1;
    if (away < Math.min(LONGEST_CALM, CALM * 2 ** Math.min(again, 10))) return;
    one.isPresent = false;
    over.push(one.trouble);
  }

  #forget(id: string, { isPresent, trouble }: Case, { over }: Changes): void {
    this.#cases.delete(id);
    if (isPresent) over.push(trouble);
  }

  #noteRestarts({ name, restarts }: ServerStatus, clock: number): void {
    const known = this.#restarts.get(name) ?? { count: restarts, at: [] };
    // With another configuration they are counted anew.
    const more = restarts < known.count ? restarts : restarts - known.count;
    const at = [...known.at, ...Array<number>(Math.min(more, MOST_RESTARTS)).fill(clock)];
    const late = at.filter((one) => clock - one < RESTARTS_WITHIN).slice(-MOST_RESTARTS);
    this.#restarts.set(name, { count: restarts, at: late });
  }
}

/** More of them say nothing new. */
const MOST_RESTARTS = 1000;

function idOf({ server, kind, about }: Found): string {
  return [server ?? '', kind, about].filter((part) => part !== undefined).join(':');
}
