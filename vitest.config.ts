import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    // One process a file: a server or a signal handler left behind cannot reach another file.
    pool: 'forks',
    maxWorkers: 2,
    retry: 0,
    projects: [
      {
        extends: true,
        test: {
          name: 'unit',
          include: ['test/**/*.test.ts'],
          exclude: ['test/integration/**'],
          // Many start processes; a busy machine takes its time.
          testTimeout: 180_000,
        },
      },
      {
        extends: true,
        test: {
          name: 'integration',
          include: ['test/integration/**/*.test.ts'],
          testTimeout: 180_000,
          hookTimeout: 180_000,
        },
      },
    ],
  },
});
