import { defineConfig } from 'rolldown';

/**
 * The commands that PostgreSQL starts once a segment, the receiver, for which a failover may be
 * waiting, and the shipper, each in one CommonJS file: to find and read modules one by one takes longer
 * than to run them, and more memory. What only helps or explains stays outside.
 */
const COMMANDS = ['fetch', 'push', 'receive', 'ship'];

/** Leaves a module beside main.js outside, under its path as seen from the one file. */
const outside = (command) => ({
  name: 'outside',
  resolveId(source) {
    const helps = /^\.\/(yargs|help)\.js$/.test(source);
    const another = source.startsWith('./commands/') && source !== `./commands/${command}.js`;
    return helps || another ? { id: `./cli/${source.slice(2)}`, external: true } : null;
  },
});

/**
 * One file requires all that any of its modules may need before it does anything. Node's own modules
 * take milliseconds each, and most commands need few of them: each is loaded at its first use.
 */
const nodeModulesOnDemand = {
  name: 'node-modules-on-demand',
  renderChunk(code) {
    const required =
      /^let (node_\w+) = require\("node:([\w/]+)"\);\n(?:\1 = __toESM\(\1, 1\);\n)?/gm;
    const names = [];
    const head = code.replace(required, (text, name, module) => {
      names.push(name);
      const loaded = `require("node:${module}")`;
      const value = text.includes('__toESM') ? `__toESM(${loaded}, 1)` : loaded;
      return `let ${name}$loaded;\nconst ${name} = () => (${name}$loaded ??= ${value});\n`;
    });
    return names.reduce((text, name) => {
      // In brackets: "new name().Class" would make an object of the function.
      const used = text.replaceAll(new RegExp(`(?<![\\w$.])${name}(?=\\.)`, 'g'), `(${name}())`);
      const other = new RegExp(
        `(?<![\\w$.(]|const )${name}(?![\\w$])|\\(${name}(?![\\w$]|\\(\\)\\)\\.)`,
      );
      if (other.test(used)) throw new Error(`"${name}" is used in a way that is not known`);
      return used;
    }, head);
  },
};

// Half of the text is half of what Node.js has to parse at each start of a restore_command.
const single = (input, name, plugins = []) => ({
  input,
  platform: 'node',
  external: [/^crc-32/, /^pg-protocol/, /^@bokuweb\//, /^age-encryption/, /^@mongodb-js\//],
  plugins: [...plugins, nodeModulesOnDemand],
  output: {
    file: `dist/${name}.cjs`,
    format: 'cjs',
    codeSplitting: false,
    comments: false,
    minify: true,
  },
});

export default defineConfig([
  ...COMMANDS.map((command) => single('dist/cli/main.js', command, [outside(command)])),
  // Commits wait while "serve" begins one again.
  single('dist/serve/receiver/worker.js', 'serve-receiver'),
  single('dist/serve/shipping/worker.js', 'serve-shipper'),
]);
