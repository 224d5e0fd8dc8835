import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { parseConninfo } from '../../../src/connection/conninfo/conninfo.js';
import { KEYWORDS } from '../../../src/connection/conninfo/keywords.js';
import { ConninfoError } from '../../../src/errors.js';

const parsed = (text: string) => Object.fromEntries(parseConninfo(text));

function errorOf(text: string): ConninfoError {
  try {
    parseConninfo(text);
  } catch (error) {
    expect(error).toBeInstanceOf(ConninfoError);
    return error as ConninfoError;
  }
  throw new Error(`accepted: ${text}`);
}

describe('keyword = value', () => {
  it.each<[string, Record<string, string>]>([
    ['', {}],
    [' \t\n\v\f\r', {}],
    ['host=h', { host: 'h' }],
    ['host = h port\t=\n5433 ', { host: 'h', port: '5433' }],
    ["user='a b' dbname='it'", { user: 'a b', dbname: 'it' }],
    [String.raw`user='it\'s' password='back\\slash'`, { user: "it's", password: 'back\\slash' }],
    [String.raw`user=a\ b\=c\'d`, { user: "a b=c'd" }],
    ['user=a\\', { user: 'a' }],
    ["host='' user=x", { host: '', user: 'x' }],
    ['host= user=x', { host: 'user=x' }],
    ['host=', { host: '' }],
    ["options='-c geqo=off'", { options: '-c geqo=off' }],
    ['user=a=b', { user: 'a=b' }],
    ["user=a'b", { user: "a'b" }],
    ["user='a'host=h", { user: 'a', host: 'h' }],
    ['user=a user=b', { user: 'b' }],
    ['user=ünïcödé', { user: 'ünïcödé' }],
    // Only ASCII blanks separate.
    ['user=a\u00a0b', { user: 'a\u00a0b' }],
    ['requiressl=1', { sslmode: 'require' }],
    ['requiressl=0', { sslmode: 'prefer' }],
    ['sslmode=disable requiressl=1', { sslmode: 'require' }],
  ])('%j', (text, expected) => {
    expect(parsed(text)).toEqual(expected);
  });

  it.each([
    ['foo', 'missing "=" after "foo" in connection info string'],
    ['host h', 'missing "=" after "host" in connection info string'],
    ['host=a b', 'missing "=" after "b" in connection info string'],
    ['postgre://', 'missing "=" after "postgre://" in connection info string'],
    // A doubled quote is no escape: the string ends there.
    ["dbname='it''s'", 'missing "=" after "\'s\'" in connection info string'],
    ["host='a", 'unterminated quoted string in connection info string'],
    ["host='a\\'", 'unterminated quoted string in connection info string'],
    ["host='a\\", 'unterminated quoted string in connection info string'],
    ['hots=a', 'invalid connection option "hots"'],
    ['=a', 'invalid connection option ""'],
    ['HOST=a', 'invalid connection option "HOST"'],
    // Unknown to libpq since 14.
    ['tty=a', 'invalid connection option "tty"'],
    ['authtype=a', 'invalid connection option "authtype"'],
    ['constructor=a', 'invalid connection option "constructor"'],
    ['host=a\0b', 'connection string contains a NUL character'],
  ])('%j is refused', (text, message) => {
    expect(errorOf(text).message).toBe(message);
  });
});

// Inputs and outcomes of libpq's own src/interfaces/libpq/t/001_uri.pl, and a few more.
describe('URI', () => {
  it.each<[string, Record<string, string>]>([
    [
      'postgresql://uri-user:secret@host:12345/db',
      { user: 'uri-user', password: 'secret', host: 'host', port: '12345', dbname: 'db' },
    ],
    [
      'postgresql://uri-user@host:12345/db',
      { user: 'uri-user', host: 'host', port: '12345', dbname: 'db' },
    ],
    ['postgresql://uri-user@host/db', { user: 'uri-user', host: 'host', dbname: 'db' }],
    ['postgresql://host:12345/db', { host: 'host', port: '12345', dbname: 'db' }],
    ['postgresql://host/db', { host: 'host', dbname: 'db' }],
    ['postgresql://uri-user@host:12345/', { user: 'uri-user', host: 'host', port: '12345' }],
    ['postgresql://uri-user@host/', { user: 'uri-user', host: 'host' }],
    ['postgresql://uri-user@', { user: 'uri-user' }],
    ['postgresql://host:12345', { host: 'host', port: '12345' }],
    ['postgresql://host/', { host: 'host' }],
    ['postgresql://', {}],
    ['postgresql://?hostaddr=127.0.0.1', { hostaddr: '127.0.0.1' }],
    ['postgresql://example.com?hostaddr=63.1.2.4', { host: 'example.com', hostaddr: '63.1.2.4' }],
    ['postgresql://%68ost/', { host: 'host' }],
    [
      'postgresql://host/db?user=uri-user&port=12345',
      { user: 'uri-user', host: 'host', port: '12345', dbname: 'db' },
    ],
    [
      'postgresql://host/db?u%73er=someotheruser&port=12345',
      { user: 'someotheruser', host: 'host', port: '12345', dbname: 'db' },
    ],
    ['postgresql://host:12345?user=u', { user: 'u', host: 'host', port: '12345' }],
    ['postgresql://host?', { host: 'host' }],
    ['postgresql://host?user=u&', { host: 'host', user: 'u' }],
    ['postgresql://[::1]:12345/db', { host: '::1', port: '12345', dbname: 'db' }],
    ['postgresql://[2001:db8::1234]/', { host: '2001:db8::1234' }],
    ['postgresql://[200z:db8::1234]/', { host: '200z:db8::1234' }],
    ['postgresql://[::1]?user=u', { host: '::1', user: 'u' }],
    ['postgres:///db', { dbname: 'db' }],
    ['postgres://uri-user@/db', { user: 'uri-user', dbname: 'db' }],
    ['postgres://?host=/path/to/socket/dir', { host: '/path/to/socket/dir' }],
    ['postgres://@host', { host: 'host' }],
    ['postgres://host:/', { host: 'host' }],
    ['postgres://:12345/', { port: '12345' }],
    ['postgres://otheruser@/?host=/no/such', { user: 'otheruser', host: '/no/such' }],
    ['postgres://otheruser@:12345?host=/s', { user: 'otheruser', port: '12345', host: '/s' }],
    ['postgres://%2Fvar%2Flib%2Fpostgresql/db', { host: '/var/lib/postgresql', dbname: 'db' }],
    ['postgres://a,b:5433,[::1]:5434/d', { host: 'a,b,::1', port: ',5433,5434', dbname: 'd' }],
    ['postgres://a:1,b:2?sslmode=require', { host: 'a,b', port: '1,2', sslmode: 'require' }],
    ['postgres://h?ssl=true', { host: 'h', sslmode: 'require' }],
    ['postgres://h?requiressl=1', { host: 'h', sslmode: 'require' }],
    ['postgres://u:p%40s%3As%2F@h', { user: 'u', password: 'p@s:s/', host: 'h' }],
    ['postgres://u:p?q#r:s@h', { user: 'u', password: 'p?q#r:s', host: 'h' }],
    ['postgres://%C3%BC@h', { user: 'ü', host: 'h' }],
    ['postgres:// h /  d  ', { host: 'h', dbname: 'd' }],
    ['postgres://h/a@b?user=c@d', { host: 'h', dbname: 'a@b', user: 'c@d' }],
    ['postgres://u@@abstract/d', { user: 'u', host: '@abstract', dbname: 'd' }],
  ])('%s', (uri, expected) => {
    expect(parsed(uri)).toEqual(expected);
  });

  it.each([
    ['postgresql://host/db?u%7aer=x&port=1', 'invalid URI query parameter: "uzer"'],
    ['postgresql://host?uzer=', 'invalid URI query parameter: "uzer"'],
    ['postgresql://host?ssl=false', 'invalid URI query parameter: "ssl"'],
    [
      'postgres://[::1',
      'end of string reached when looking for matching "]" in IPv6 host address in URI: "postgres://[::1"',
    ],
    ['postgres://[]', 'IPv6 host address may not be empty in URI: "postgres://[]"'],
    [
      'postgres://[::1]z',
      'unexpected character "z" at position 17 in URI (expected ":" or "/"): "postgres://[::1]z"',
    ],
    ['postgresql://host?zzz', 'missing key/value separator "=" in URI query parameter: "zzz"'],
    [
      'postgresql://host?value1&value2',
      'missing key/value separator "=" in URI query parameter: "value1"',
    ],
    [
      'postgresql://host?user=a&&port=1',
      'missing key/value separator "=" in URI query parameter: ""',
    ],
    [
      'postgresql://host?key=key=value',
      'extra key/value separator "=" in URI query parameter: "key"',
    ],
    ['postgres://host?dbname=%XXfoo', 'invalid percent-encoded token: "%XXfoo"'],
    ['postgresql://a%00b', 'forbidden value %00 in percent-encoded value: "a%00b"'],
    ['postgresql://%zz', 'invalid percent-encoded token: "%zz"'],
    ['postgresql://%1', 'invalid percent-encoded token: "%1"'],
    ['postgresql://%', 'invalid percent-encoded token: "%"'],
    ['postgresql://%ff', 'percent-encoded value is not UTF-8: "%ff"'],
    [
      'postgres://a b',
      'unexpected spaces found in "a b", use percent-encoded spaces (%20) instead',
    ],
  ])('%s is refused', (uri, message) => {
    expect(errorOf(uri).message).toBe(message);
  });
});

describe('secrets', () => {
  it.each([
    'password=hush hunter2',
    'password=hush hunter2=1',
    "password='hush'hunter2",
    'sslpassword=hush hunter2',
    'oauth_client_secret=hush hunter2',
    "password='hunter2",
    'postgresql:/u:hunter2@h/d',
    'postgresql+x://u:hunter2@h/d?sslmode=require',
    'postgres://u:hunter2%zz@h',
    'postgres://u:hunter2%00@h',
    'postgres://u:hunter2 hunter2@h',
    'postgres://u:hunter2@[::1',
    'postgres://u:hunter2@[]',
    'postgres://u:hunter2@[::1]x',
    'postgres://[::1?password=hunter2',
    'postgres://h?password=hunter2%zz',
    'postgres://h?password=hush&hunter2',
    'postgres://h?password=hush&hunter2=x',
    'postgres://h?password=hush&hunter2%zz=x',
    'postgres://h?password=hunter2=x',
    'postgres://u:hush@hunter2@h/d',
    'postgres://u:hush@hunter2%zz@h/d',
    'postgres://u:hunter2/x@h/d',
    'postgres://u:hunter2%zz/x@h/d',
  ])('%s: the error shows none', (text) => {
    const error = errorOf(text);
    expect(`${error.message} ${error.hint} ${error.detail} ${error.stack}`).not.toContain(
      'hunter2',
    );
  });

  it('hints at percent-encoding when a URI password looks unencoded', () => {
    const error = errorOf('postgres://u:p@ss@host/d');
    expect(error.message).toBe('unexpected "@" in URI: "postgres://u:***@host/d"');
    expect(error.hint).toContain('%40');
  });
});

describe('properties', () => {
  const pieces = fc.constantFrom(
    ...[
      ...KEYWORDS.keys(),
      '=',
      ' ',
      "'",
      '\\',
      '&',
      '?',
      '@',
      ':',
      '/',
      ',',
      '[',
      ']',
      '%',
      '%41',
    ],
  );
  const text = fc.oneof(
    fc.string({ unit: 'binary' }),
    fc.array(pieces).map((p) => p.join('')),
  );

  it('any text is parsed or refused with ConninfoError', () => {
    fc.assert(
      fc.property(fc.constantFrom('', 'postgres://', 'postgresql://'), text, (prefix, rest) => {
        try {
          for (const name of parseConninfo(prefix + rest).keys()) {
            expect(KEYWORDS.has(name)).toBe(true);
          }
        } catch (error) {
          expect(error).toBeInstanceOf(ConninfoError);
        }
      }),
      { numRuns: 2000 },
    );
  });

  const values = fc.dictionary(
    fc.constantFrom(...KEYWORDS.keys()),
    fc.string({ unit: 'grapheme' }).filter((s) => !s.includes('\0')),
  );

  it('quoted values come back', () => {
    fc.assert(
      fc.property(values, (expected) => {
        const conninfo = Object.entries(expected)
          .map(([name, value]) => `${name}='${value.replace(/['\\]/g, '\\$&')}'`)
          .join(' ');
        expect(parsed(conninfo)).toEqual({ ...expected });
      }),
    );
  });

  it('values escaped one by one come back', () => {
    fc.assert(
      fc.property(values, (expected) => {
        const conninfo = Object.entries(expected)
          .filter(([, value]) => value !== '')
          .map(([name, value]) => `${name}=${value.replace(/[\s\S]/g, '\\$&')}`)
          .join('\n');
        for (const [name, value] of parseConninfo(conninfo)) expect(value).toBe(expected[name]);
      }),
    );
  });

  it('percent-encoded values come back', () => {
    fc.assert(
      fc.property(values, (expected) => {
        const query = Object.entries(expected)
          .map(([name, value]) => `${name}=${encodeURIComponent(value)}`)
          .join('&');
        expect(parsed(`postgres://?${query}`)).toEqual({ ...expected });
      }),
    );
  });
});
