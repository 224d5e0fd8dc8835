import type { ErrorReport, JobName, JobOutcome, LogEntry } from '../status.js';

type Said = (level: LogEntry['level'], message: string, more?: Partial<LogEntry>) => void;
type Json = Record<string, unknown>;

/** Findings of a verification that are told each. */
const MOST_FINDINGS = 20;

/** Reads what a command prints with `--json`. */
export class ResultReader {
  readonly #kind: string;
  readonly #tell: Said;
  /** It said that it came to its end. */
  #isComplete = false;
  #findings: number | undefined;
  #problem: ErrorReport | undefined;
  #told = 0;
  /** Of the findings: somebody has looked at it, and an alarm for weeks would hide the next one. */
  #accepted = 0;

  constructor(job: JobName, tell: Said) {
    this.#kind = job.split('_')[0] as string;
    this.#tell = tell;
  }

  /** A line of its stdout. */
  take(line: string): void {
    let json: Json;
    try {
      json = JSON.parse(line);
    } catch {
      this.#tell('info', line);
      return;
    }
    if (typeof json !== 'object' || json === null) return;
    if (this.#kind === 'verify') this.#verify(json);
    else if (this.#kind === 'backup') this.#backup(json);
    else if (this.#kind === 'expire') this.#expire(json);
    else this.#rehearse(json);
  }

  #verify({ type, severity, code, file, message, hint, ...rest }: Json): void {
    if (type === 'summary') {
      this.#isComplete = true;
      this.#findings = Number(rest.errors) + Number(rest.warnings) - this.#accepted;
      const more = this.#findings - this.#told;
      if (more > 0) this.#tell('warning', `${more} findings more are not told here`);
    } else if (type === 'finding' && severity === 'warning' && code === 'accepted-gap') {
      this.#accepted += 1;
      this.#tell('info', `${message} (${code})`);
    } else if (type === 'finding' && severity !== 'info' && this.#told < MOST_FINDINGS) {
      this.#told += 1;
      const text = typeof file === 'string' ? `${file}: ${message}` : `${message}`;
      const level = severity === 'error' ? 'error' : 'warning';
      this.#tell(level, `${text} (${code})`, typeof hint === 'string' ? { hint } : {});
    }
  }

  #backup({ type, id, size, message, code, hint }: Json): void {
    if (type === 'warning') {
      const more = typeof hint === 'string' ? { hint } : {};
      this.#tell('warning', `${message}`, { code: `${code}`, ...more });
    }
    if (type !== 'backup') return;
    this.#isComplete = true;
    this.#tell('info', `took backup ${id}, ${size} bytes`);
  }

  #expire({ type, id, timeline, from, to, nothing }: Json): void {
    if (type === 'expire') {
      this.#isComplete = true;
      if (typeof nothing === 'string') this.#tell('info', `nothing is removed: ${nothing}`);
    } else if (type === 'removed-backup') this.#tell('info', `removed backup ${id}`);
    else if (type === 'removed-wal') {
      this.#tell('info', `removed WAL ${from} to ${to} of timeline ${timeline}`);
    }
  }

  #rehearse({ outcome, problem, findings }: Json): void {
    if (typeof outcome !== 'string') return;
    this.#isComplete = true;
    if (Array.isArray(findings)) this.#findings = findings.length;
    const { code, message, hint, detail } = (problem ?? {}) as Partial<ErrorReport>;
    if (code === undefined || message === undefined) return;
    this.#problem = {
      ...{ code, message },
      ...(hint === undefined ? {} : { hint }),
      ...(detail === undefined ? {} : { detail }),
    };
  }

  /** What an exit code says, which is an answer only of a command that came to its end. */
  outcome(code: number | undefined): {
    outcome: JobOutcome;
    findings?: number;
    error?: ErrorReport;
  } {
    const looks = this.#kind === 'verify' || this.#kind === 'rehearse';
    const findings = this.#findings === undefined ? {} : { findings: this.#findings };
    const error = this.#problem ? { error: this.#problem } : {};
    if (!this.#isComplete || code === undefined) return { outcome: 'failed', ...error };
    // 3 of expire: done, but for what a lock of the store holds.
    const isDone = code === 0 || (code === 3 && this.#kind === 'expire');
    const isKnown = code === 1 && this.#accepted > 0 && this.#findings === 0;
    if (isDone || isKnown) return { outcome: 'good', ...findings };
    return { outcome: looks && code === 1 ? 'bad' : 'failed', ...findings, ...error };
  }
}
