import { describe, expect, it } from 'vitest';
import { GetoptError } from '../../src/cli/getopt.js';
import { jsonLine } from '../../src/cli/json.js';
import { Output } from '../../src/cli/output.js';
import { tableText } from '../../src/cli/table.js';
import { ServerError, StorageError } from '../../src/errors.js';
import { captureOutput } from './run.js';

describe('Output', () => {
  it('prints as PostgreSQL’s programs do', () => {
    const { output, stdout, stderr } = captureOutput();
    output.info('starting');
    output.warning('odd', 'look');
    output.error('broken\n');
    output.print('result');
    expect(stderr.text).toBe(
      'pg_receivewal: starting\npg_receivewal: warning: odd\npg_receivewal: hint: look\n' +
        'pg_receivewal: error: broken\n',
    );
    expect(stdout.text).toBe('result\n');
  });

  it('has its name before every line, but for the tool that PostgreSQL has', () => {
    const message = 'no host answered:\nfirst\nsecond\n';
    const { output, stderr } = captureOutput('walkeep');
    output.error(message);
    output.hint('look\nthere');
    expect(stderr.text).toBe(
      'walkeep: error: no host answered:\nwalkeep: error: first\nwalkeep: error: second\n' +
        'walkeep: hint: look\nwalkeep: hint: there\n',
    );
    const theirs = captureOutput('pg_receivewal');
    theirs.output.error(message);
    expect(theirs.stderr.text).toBe('pg_receivewal: error: no host answered:\nfirst\nsecond\n');
  });

  it('shows detail and hint of an error', () => {
    const { output, stderr } = captureOutput();
    output.report(
      new ServerError('ERROR:  no slot', { sqlstate: '42704', detail: 'gone', hint: 'make one' }),
    );
    expect(stderr.text).toBe(
      'pg_receivewal: error: ERROR:  no slot\npg_receivewal: detail: gone\n' +
        'pg_receivewal: hint: make one\n',
    );
  });

  it('leaves the word error out of getopt’s complaints', () => {
    const { output, stderr } = captureOutput();
    output.report(new GetoptError("invalid option -- 'x'"));
    expect(stderr.text).toBe("pg_receivewal: invalid option -- 'x'\n");
  });

  it.each<[unknown, string]>([
    [new TypeError('x is not a function\n    at y'), 'x is not a function'],
    [new RangeError(''), 'RangeError'],
    ['text', 'text'],
    [undefined, 'undefined'],
  ])('shows a bug in one line: %s', (bug, line) => {
    const { output, stderr } = captureOutput('walkeep');
    output.report(bug);
    expect(stderr.text).toBe(`walkeep: error: ${line}\n`);
  });

  it('prints the stack with its causes for WALKEEP_DEBUG=1', () => {
    const { output, stderr } = captureOutput('walkeep', { WALKEEP_DEBUG: '1' });
    output.report(new StorageError('no room', { cause: new Error('ENOSPC') }));
    expect(stderr.text).toMatch(/^walkeep: error: no room\nStorageError: no room\n {4}at /);
    expect(stderr.text).toMatch(/\ncaused by Error: ENOSPC\n {4}at /);
  });

  it('colours like PG_COLOR says', () => {
    const { output, stderr } = captureOutput('pg_receivewal', {
      PG_COLOR: 'always',
      PG_COLORS: 'error=01;31:note=36',
    });
    output.report(new StorageError('no', { hint: 'h' }));
    expect(stderr.text).toBe(
      'pg_receivewal: \x1b[01;31merror: \x1b[0mno\npg_receivewal: \x1b[36mhint: \x1b[0mh\n',
    );
  });

  it('clears the live line before a message and cuts it to the terminal', () => {
    const { output, stderr } = captureOutput('walkeep', {}, true);
    stderr.columns = 5;
    output.status('0/1234567');
    output.info('done');
    output.info('more');
    expect(stderr.text).toBe('\r\x1b[K0/12\r\x1b[Kwalkeep: done\nwalkeep: more\n');
  });

  it('survives a reader that went away', () => {
    const { output, stderr } = captureOutput();
    output.info('here');
    const epipe = Object.assign(new Error('write EPIPE'), { code: 'EPIPE' });
    expect(() => stderr.emit('error', epipe)).not.toThrow();
    output.info('still here');
  });

  it('asks for a stream only where it is used', () => {
    const asked: string[] = [];
    const { stdout, stderr } = captureOutput();
    const streams = {
      env: {},
      get stdout() {
        asked.push('stdout');
        return stdout;
      },
      get stderr() {
        asked.push('stderr');
        return stderr;
      },
    };
    const output = new Output('walkeep', streams);
    expect(asked).toEqual([]);
    output.print('to one of them');
    expect(asked).toEqual(['stdout']);
  });
});

describe('what a terminal would obey', () => {
  const nasty = '\x1b]0;title\x07 \u009b2J \r over \u202e back \u2028 \x00 end';
  const tamed = '\\x1b]0;title\\x07 \\x9b2J \\r over \\u202e back \\u2028 \\x00 end';

  it('is shown escaped, in every kind of message and in results', () => {
    const { output, stderr, stdout } = captureOutput('walkeep');
    output.info(nasty);
    output.warning(nasty, nasty);
    output.report(new ServerError(nasty, { detail: nasty, hint: nasty }));
    output.print(nasty);
    expect(stderr.text.split('\n').slice(0, -1)).toEqual([
      `walkeep: ${tamed}`,
      `walkeep: warning: ${tamed}`,
      `walkeep: hint: ${tamed}`,
      `walkeep: error: ${tamed}`,
      `walkeep: detail: ${tamed}`,
      `walkeep: hint: ${tamed}`,
    ]);
    expect(stdout.text).toBe(`${tamed}\n`);
  });

  it('stays out of tables with its lines, and is exact in JSON', () => {
    expect(tableText(['A', 'B'], [['x\ny', 'z']])).toBe('A     B\nx\\ny  z');
    expect(JSON.parse(jsonLine({ name: nasty }))).toEqual({ name: nasty });
    expect(jsonLine({ name: nasty })).toMatch(/^[\x20-\x7e]*$/);
  });
});
