import { expect, test } from 'vitest';
import { shapeOf, shortened } from '../../demo/shown.js';
import { drawTerminal, linesOf } from '../../demo/terminal.js';

const OUTPUT = `  0.9 s  $ walkeep restore <A> & "B"

settings
  restore_command = 'x'
  recovery_target_lsn = '0/16D88C0'
walkeep: restored 971 files, 25.9 MB in 0.6 s


  2.4 s   292 commits   23 segments  flushed 0/1FE6FE8  lag 0 kB
${'long '.repeat(50)}end
`;

test('a picture of a terminal gives its lines back, long ones too', () => {
  const lines = shortened(OUTPUT);
  expect(lines).toContain('settings  …');
  expect(lines.join('\n')).not.toContain('restore_command');
  expect(linesOf(drawTerminal('a < b', lines))).toEqual(lines);
});

test('two runs have one shape, another text has another', () => {
  const later = OUTPUT.replace('  0.9 s', ' 10.9 s')
    .replace('25.9 MB in 0.6 s', '1.2 GB in 3 min')
    .replace(/.*commits.*\n/, '');
  expect(shapeOf(shortened(later))).toEqual(shapeOf(shortened(OUTPUT)));
  const other = OUTPUT.replace('restored', 'unpacked');
  expect(shapeOf(shortened(other))).not.toEqual(shapeOf(shortened(OUTPUT)));
});
