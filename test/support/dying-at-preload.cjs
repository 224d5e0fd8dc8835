// Loaded by a run that is to die at a certain call, see dying-at.ts.
'use strict';
const fs = require('node:fs');
const { when, call, path } = JSON.parse(process.env.WALKEEP_TEST_DIES);
const named = new RegExp(path);

const die = () => process.kill(process.pid, 'SIGKILL');
const isMeant = (args) =>
  args.slice(0, 2).some((one) => typeof one === 'string' && named.test(one));

function dying(original, isPromised) {
  return function (...args) {
    if (!isMeant(args)) return original.apply(this, args);
    if (when === 'before') die();
    if (isPromised) return original.apply(this, args).then(die);
    const result = original.apply(this, args);
    die();
    return result;
  };
}

fs[`${call}Sync`] = dying(fs[`${call}Sync`], false);
fs.promises[call] = dying(fs.promises[call], true);
require('node:module').syncBuiltinESMExports();
