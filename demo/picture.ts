/**
 * `npm run demo:picture`: runs the demo, and draws what it said into docs/pictures/demo.svg. With
 * `-- FILE` it draws a run whose output is in that file.
 */
import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { packageRoot } from '../test/support/scratch.js';
import { shortened } from './shown.js';
import { drawTerminal } from './terminal.js';

const demo = join(packageRoot, '.build', 'demo', 'demo.js');
const [, , file] = process.argv;
const output = file
  ? readFileSync(file, 'utf8')
  : execFileSync(process.execPath, [demo], { encoding: 'utf8' });
const lines = ['$ npm run demo', ...shortened(output)];
writeFileSync(
  join(packageRoot, 'docs', 'pictures', 'demo.svg'),
  drawTerminal('npm run demo: a dropped table and a lost primary are brought back', lines),
);
process.exit();
