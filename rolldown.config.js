import { defineConfig } from 'rolldown';

/**
 * The commands that PostgreSQL starts once a segment, and the receiver, for which a failover may be
 * waiting, each in one CommonJS file: to find and read modules one by one takes longer than to run
 * them. What only helps or explains stays outside.
 */
const COMMANDS = ['fetch', 'push', 'receive'];

/** Leaves a module beside main.js outside, under its path as seen from the one file. */
const outside = (command) => ({
  name: 'outside',
  resolveId(source) {
    const helps = /^\.\/(yargs|help)\.js$/.test(source);
    const another = source.startsWith('./commands/') && source !== `./commands/${command}.js`;
    return helps || another ? { id: `./cli/${source.slice(2)}`, external: true } : null;
  },
});

export default defineConfig(
  COMMANDS.map((command) => ({
    input: 'dist/cli/main.js',
    platform: 'node',
    external: [/^crc-32/, /^pg-protocol/],
    plugins: [outside(command)],
    output: { file: `dist/${command}.cjs`, format: 'cjs', codeSplitting: false },
  })),
);
