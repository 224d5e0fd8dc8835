import { defineConfig } from 'rolldown';

/**
 * The commands that PostgreSQL starts once a segment, each in one CommonJS file: to find and read
 * modules one by one takes longer than to run them. What only helps or explains stays outside.
 */
export default defineConfig(
  ['fetch', 'push'].map((command) => ({
    input: 'dist/cli/main.js',
    platform: 'node',
    external: [/^crc-32/, /\/cli\/(yargs|help)\.js$/, new RegExp(`/commands/(?!${command}\\.js$)`)],
    output: { file: `dist/${command}.cjs`, format: 'cjs', codeSplitting: false },
  })),
);
