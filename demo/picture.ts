/** `npm run demo:picture`: runs the demo, and draws what it said into docs/pictures/demo.svg. */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../test/support/scratch.js';
import { shortened } from './shown.js';
import { drawTerminal } from './terminal.js';

const demo = join(packageRoot, '.build', 'demo', 'demo.js');
const output = execFileSync(process.execPath, [demo], { encoding: 'utf8' });
const lines = ['$ npm run demo', ...shortened(output)];
writeFileSync(
  join(packageRoot, 'docs', 'pictures', 'demo.svg'),
  drawTerminal('npm run demo: a dropped table and a lost primary are brought back', lines),
);
process.exit();
