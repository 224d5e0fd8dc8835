import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { canonicalArguments, GetoptError, scanArguments } from '../../src/cli/getopt.js';
import { receiveOptions } from '../../src/cli/receive-spec.js';
import { optionValues } from '../../src/cli/yargs.js';
import { UsageError } from '../../src/errors.js';

const specs = receiveOptions('pg_receivewal');
const canonical = (...argv: string[]) => canonicalArguments(scanArguments(argv, specs));

describe('scanArguments', () => {
  it.each<[string[], string[]]>([
    [['-nv'], ['--no-loop', '--verbose']],
    [['-Zgzip:1'], ['--compress=gzip:1']],
    [['-hlocalhost'], ['--host=localhost']],
    [['-s10'], ['--status-interval=10']],
    [['-D/dir'], ['--directory=/dir']],
    [['-D', '/dir'], ['--directory=/dir']],
    [
      ['-nvD', '/dir', '-w'],
      ['--no-loop', '--verbose', '--directory=/dir', '--no-password'],
    ],
    [['-nvD/dir'], ['--no-loop', '--verbose', '--directory=/dir']],
    [['--directory=/dir'], ['--directory=/dir']],
    [['--directory', '/dir'], ['--directory=/dir']],
    [['--dir', '/dir'], ['--directory=/dir']],
    [['--stat=3'], ['--status-interval=3']],
    [['--host='], ['--host=']],
    [['--dbname=a=b c=d'], ['--dbname=a=b c=d']],
    [['-D', '-n'], ['--directory=-n']],
    [['--slot', '--verbose'], ['--slot=--verbose']],
    [['-D', '--'], ['--directory=--']],
    [
      ['a', '-n', 'b'],
      ['--no-loop', '--', 'a', 'b'],
    ],
    [
      ['-n', '--', '-v', 'x'],
      ['--no-loop', '--', '-v', 'x'],
    ],
    [['-'], ['--', '-']],
    [
      ['', '-n'],
      ['--no-loop', '--', ''],
    ],
    [['-?'], ['--help']],
    [['--no-s'], ['--no-sync']],
    [['--password'], ['--password']],
    [
      ['-Dx', '-Dy'],
      ['--directory=x', '--directory=y'],
    ],
  ])('%j is %j', (argv, expected) => {
    expect(canonical(...argv)).toEqual(expected);
  });

  it('lets an argument be left out where something is implied', () => {
    const own = [{ long: 'since', argument: 'X', implied: 'last', group: '', help: '' }];
    const given = (...argv: string[]) => canonicalArguments(scanArguments(argv, own));
    expect(given('--since')).toEqual(['--since=last']);
    expect(given('--since', 'x')).toEqual(['--since=last', '--', 'x']);
    expect(given('--since=full', 'x')).toEqual(['--since=full', '--', 'x']);
    expect(given('--sin=')).toEqual(['--since=']);
  });

  // Texts as /usr/lib/postgresql/15/bin/pg_receivewal printed them (glibc 2.36).
  it.each<[string[], string]>([
    [['-x'], "invalid option -- 'x'"],
    [['-v-'], "invalid option -- '-'"],
    [['-vé'], "invalid option -- 'é'"],
    [['--foo'], "unrecognized option '--foo'"],
    [['--foo=1'], "unrecognized option '--foo=1'"],
    [['-D'], "option requires an argument -- 'D'"],
    [['-nD'], "option requires an argument -- 'D'"],
    [['--directory'], "option '--directory' requires an argument"],
    [['--dir'], "option '--directory' requires an argument"],
    [['--verbose=1'], "option '--verbose' doesn't allow an argument"],
    [['--verb=1'], "option '--verbose' doesn't allow an argument"],
    [
      ['--s=3'],
      "option '--s=3' is ambiguous; possibilities: '--slot' '--status-interval' '--synchronous'",
    ],
    [['-n', '--bogus', '-x'], "unrecognized option '--bogus'"],
  ])('%j fails', (argv, message) => {
    expect(() => canonical(...argv)).toThrow(new GetoptError(message));
  });

  it('reports the first fault from the left, be it of getopt or of a value', () => {
    expect(() => canonical('-s', 'x', '--bogus')).toThrow('invalid value "x"');
    expect(() => canonical('--bogus', '-s', 'x')).toThrow('unrecognized option');
  });

  const word = fc.oneof(
    fc.string(),
    fc.constantFrom('-', '--', '-D', '-nv', '--dir', '--no', '-s', '--slot=x', '-Zgzip', '--='),
    fc.string().map((s) => `--${s}`),
    fc.string().map((s) => `-${s}`),
  );

  it('fails with a UsageError or not at all', () => {
    fc.assert(
      fc.property(fc.array(word), (argv) => {
        try {
          canonical(...argv);
        } catch (error) {
          expect(error).toBeInstanceOf(UsageError);
        }
      }),
    );
  });

  it('leaves its own output as it is', () => {
    fc.assert(
      fc.property(fc.array(word), (argv) => {
        let once: string[];
        try {
          once = canonical(...argv);
        } catch {
          return;
        }
        expect(canonical(...once)).toEqual(once);
      }),
    );
  });
});

describe('optionValues', () => {
  it('brings every value through yargs as it was written, in each spelling', () => {
    const spelling = fc.constantFrom<(v: string) => string[]>(
      (v) => ['-D', v],
      (v) => ['--directory', v],
      (v) => ['--dir', v],
      (v) => [`--directory=${v}`],
      (v) => (v === '' ? ['-D', v] : [`-nD${v}`]),
    );
    const value = fc.oneof(
      fc.string(),
      fc.string({ unit: 'grapheme' }),
      fc.constantFrom('true', 'false', '1', '007', '"a"', "'", '"', '--', '-v', 'a\nb', 'a.b'),
    );
    fc.assert(
      fc.property(spelling, value, fc.array(value), (spell, v, operands) => {
        const scanned = scanArguments([...spell(v), '--', ...operands], specs);
        expect(optionValues(scanned, specs).directory).toBe(v);
        expect(scanned.operands).toEqual(operands);
      }),
    );
  });

  it('takes the last of several, and gives defaults', () => {
    const values = optionValues(scanArguments(['-Da', '-v', '-v', '-Db'], specs), specs);
    expect(values).toEqual({ directory: 'b', verbose: true, 'status-interval': '10' });
  });
});
