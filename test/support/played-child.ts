import type { Child, ChildEnd } from '../../src/serve/child.js';
import type { LogEntry } from '../../src/serve/status.js';

/** A process of serve that a test plays. */
export interface PlayedChild<Start, Message> extends Child {
  /** What it was begun with. */
  start: Start;
  pid: number | undefined;
  stopped: boolean;
  killed: boolean;
  say(message: Message): void;
  end(end: ChildEnd): void;
}

/** Processes in the order in which they were begun, and the log. */
export function playedStage<Start, Message>() {
  const children: PlayedChild<Start, Message>[] = [];
  const log: LogEntry[] = [];
  const launch = (start: Start, hear: (message: Message) => void): Child => {
    let end: (end: ChildEnd) => void = () => {};
    const ended = new Promise<ChildEnd>((resolve) => {
      end = resolve;
    });
    const played: PlayedChild<Start, Message> = {
      ...{ start, pid: undefined, ended, say: hear, end, stopped: false, killed: false },
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
