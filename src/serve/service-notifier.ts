import { execFile } from 'node:child_process';

/** What systemd's program is called; Node.js cannot send to a socket of datagrams by itself. */
const PROGRAM = 'systemd-notify';

/** Tells the service manager that began this process how it is, where there is one that asks. */
export class ServiceNotifier {
  readonly #env: NodeJS.ProcessEnv;
  readonly #failed: (why: string) => void;
  #told = false;
  #timer: NodeJS.Timeout | undefined;

  /** @param failed called once, if it cannot be told */
  constructor(env: NodeJS.ProcessEnv, failed: (why: string) => void) {
    this.#env = env;
    this.#failed = failed;
  }

  /** Ready; from now on the watchdog is fed, too. */
  ready(): void {
    this.#send('READY=1', `STATUS=${STATUS}`);
    const { WATCHDOG_USEC, WATCHDOG_PID } = this.#env;
    const period = Number(WATCHDOG_USEC) / 1000;
    if (!(period > 0) || (WATCHDOG_PID !== undefined && WATCHDOG_PID !== `${process.pid}`)) return;
    // From this very loop: one that hangs feeds nothing.
    this.#timer ??= setInterval(() => this.#send('WATCHDOG=1'), period / 2);
  }

  reloading(): void {
    this.#send('STATUS=reading the configuration again');
  }

  stopping(): void {
    clearInterval(this.#timer);
    this.#send('STOPPING=1');
  }

  #send(...states: string[]): void {
    if (!this.#env.NOTIFY_SOCKET) return;
    const args = [`--pid=${process.pid}`, ...states];
    execFile(PROGRAM, args, { env: this.#env, timeout: 5000 }, (error) => {
      if (!error || this.#told) return;
      this.#told = true;
      this.#failed(`${PROGRAM}: ${error.message.split('\n')[0]}`);
    });
  }
}

const STATUS = 'receiving';
