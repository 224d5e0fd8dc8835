import { defineConfig } from 'vitest/config';

/** Tests that start real servers, or all there is of walkeep against one. */
const SERVER = ['test/integration/**/*.test.ts'];
/** Tests that start processes of their own: the command, tools, other readers of a file. */
const PROCESS = ['test/**/*.process.test.ts'];
/** Tests of stores that need a service: sshd, or an object store of its own. */
const STORE = ['test/**/*.store.test.ts'];
/** Minutes of simulated crashes. */
const SIMULATION = ['test/simulation/**/*.test.ts'];

const project = (name: string, include: string[], rest: object = {}) => ({
  extends: true as const,
  test: {
    name,
    include,
    // A busy machine takes its time; what hangs is found all the same.
    testTimeout: 180_000,
    hookTimeout: 180_000,
    ...rest,
  },
});

export default defineConfig({
  test: {
    // One process a file: a server or a signal handler left behind cannot reach another file.
    pool: 'forks',
    maxWorkers: 2,
    retry: 0,
    reporters: ['default', './test/support/skips.ts'],
    projects: [
      project('pure', ['test/**/*.test.ts'], {
        exclude: [...SERVER, ...PROCESS, ...STORE, ...SIMULATION],
      }),
      project('simulation', SIMULATION),
      project('process', PROCESS),
      project('store', STORE, { globalSetup: ['test/support/rgw-setup.ts'] }),
      project('server', SERVER),
    ],
  },
});
