import type { Child, ChildEnd } from '../../../src/serve/child.js';
import type { WorkConfig } from '../../../src/serve/config/config.js';
import type { LaunchShipper } from '../../../src/serve/shipping/child.js';
import type { FromShipper, ShipSnapshot, ShipTask } from '../../../src/serve/shipping/messages.js';
import type { LogEntry } from '../../../src/serve/status.js';

/** A process that ships, which a test plays. */
export interface Played extends Child {
  task: ShipTask;
  pid: number | undefined;
  stopped: boolean;
  killed: boolean;
  say(message: FromShipper): void;
  end(end: ChildEnd): void;
}

export function stage() {
  const children: Played[] = [];
  const log: LogEntry[] = [];
  const launch: LaunchShipper = (task, hear) => {
    let end: (end: ChildEnd) => void = () => {};
    const ended = new Promise<ChildEnd>((resolve) => {
      end = resolve;
    });
    const played: Played = {
      ...{ task, pid: undefined, ended, say: hear, end, stopped: false, killed: false },
      stop() {
        played.stopped = true;
        end({ how: 'exit code 0' });
      },
      kill() {
        played.killed = true;
        end({ how: 'SIGKILL' });
      },
    };
    children.push(played);
    return played;
  };
  return { children, log, launch, tell: (entry: LogEntry) => void log.push(entry) };
}

export const news = (snapshot: Partial<ShipSnapshot>, log: LogEntry[] = []): FromShipper => ({
  kind: 'news',
  snapshot: { state: 'shipping', segments: 0, failures: 0, ...snapshot },
  ...{ log, lost: 0 },
});

/** A server with stores, by their names. */
export function workOf(name: string, stores: Record<string, object>, directory = `/${name}`) {
  const server = {
    ...{ name, connection: 'host=db', directory, ensureSlot: false, synchronous: true },
    compression: { method: 'none' as const },
  };
  const work: WorkConfig = {
    ...{ server, rpo: 30_000, verify: {}, hooks: {} },
    stores: Object.entries(stores).map(([store, more]) => ({
      ...{ name: store, place: `s3://${store}/${name}`, recipients: [] },
      ...more,
    })),
  };
  return work;
}
