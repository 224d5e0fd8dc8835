import { isUtf8 } from 'node:buffer';
import { ConninfoError } from '../../errors.js';
import { type KeywordValues, withoutCredentials } from './keyword-values.js';
import { KEYWORDS } from './keywords.js';

const PREFIXES = ['postgresql://', 'postgres://'];
const QUOTE_HINT =
  'In a URI write "%" as %25, "@" as %40, "/" as %2F, ":" as %3A and "&" as %26 where they are part of a user name or password.';

/** Length of the scheme that makes a connection string a URI, 0 when it is none. */
export function uriPrefixLength(text: string): number {
  return PREFIXES.find((prefix) => text.startsWith(prefix))?.length ?? 0;
}

/**
 * Reads `postgresql://[user[:password]@][host][:port][,…][/dbname][?name=value[&…]]` into
 * `values` (PostgreSQL docs, "Connection URIs"; conninfo_uri_parse_options in fe-connect.c).
 */
export function parseUri(uri: string, values: KeywordValues): void {
  let at = uriPrefixLength(uri);

  // A path before any "@" means that there are no credentials.
  const credentialsEnd = firstOf(uri, at, '@/');
  const credentials = uri[credentialsEnd] === '@' ? uri.slice(at, credentialsEnd) : undefined;
  if (credentials !== undefined) {
    at = credentialsEnd + 1;
    const colon = credentials.indexOf(':');
    const user = colon < 0 ? credentials : credentials.slice(0, colon);
    const password = colon < 0 ? '' : credentials.slice(colon + 1);
    if (user !== '') values.store('user', decode(user));
    if (password !== '') values.store('password', decode(password, 'secret'));
  }

  const hosts: string[] = [];
  const ports: string[] = [];
  for (;;) {
    const [host, hostEnd] = uri[at] === '[' ? bracketed(uri, at) : upTo(uri, at, ':/?,');
    const [port, portEnd] = uri[hostEnd] === ':' ? upTo(uri, hostEnd + 1, '/?,') : ['', hostEnd];
    refuseMisplacedPassword(uri, host, port, portEnd);
    hosts.push(host);
    ports.push(port);
    at = portEnd;
    if (uri[at] !== ',') break;
    at++;
  }
  const hostList = hosts.join(',');
  const portList = ports.join(',');
  if (hostList !== '') values.store('host', decode(hostList));
  if (portList !== '') values.store('port', decode(portList));

  if (uri[at] === '/') {
    const [dbname, dbnameEnd] = upTo(uri, at + 1, '?');
    // An empty name would shadow what is set elsewhere.
    if (dbname !== '') values.store('dbname', decode(dbname));
    at = dbnameEnd;
  }
  if (uri[at] === '?') parseQuery(uri.slice(at + 1), values);
}

function parseQuery(query: string, values: KeywordValues): void {
  const parameters = query.split('&');
  // One "&" may end the query.
  if (parameters.at(-1) === '') parameters.pop();
  for (const parameter of parameters) {
    const [rawName = '', rawValue, extra] = parameter.split('=');
    if (rawValue === undefined || extra !== undefined) {
      throw new ConninfoError(
        `${extra === undefined ? 'missing' : 'extra'} key/value separator "=" in URI query parameter: "${values.shown(rawName)}"`,
      );
    }
    let name = decode(rawName, values.shown(rawName) === rawName ? undefined : 'secret');
    let value = decode(rawValue, KEYWORDS.get(name)?.secret && 'secret');
    // JDBC's spelling.
    if (name === 'ssl' && value === 'true') {
      name = 'sslmode';
      value = 'require';
    }
    if (!values.store(name, value)) {
      throw new ConninfoError(`invalid URI query parameter: "${values.shown(name)}"`);
    }
  }
}

function firstOf(text: string, from: number, stops: string): number {
  let at = from;
  while (at < text.length && !stops.includes(text[at]!)) at++;
  return at;
}

/** The text from `from` up to the first of `stops`, and where that is. */
function upTo(text: string, from: number, stops: string): [string, number] {
  const end = firstOf(text, from, stops);
  return [text.slice(from, end), end];
}

/** An IPv6 address in brackets that opens at `from`, and where it ends. */
function bracketed(uri: string, from: number): [string, number] {
  const close = uri.indexOf(']', from + 1);
  if (close < 0) {
    throw new ConninfoError(
      `end of string reached when looking for matching "]" in IPv6 host address in URI: "${shownUri(uri)}"`,
    );
  }
  if (close === from + 1) {
    throw new ConninfoError(`IPv6 host address may not be empty in URI: "${shownUri(uri)}"`);
  }
  const next = uri[close + 1];
  if (next !== undefined && !':/?,'.includes(next)) {
    throw new ConninfoError(
      `unexpected character "${next}" at position ${close + 2} in URI (expected ":" or "/"): "${shownUri(uri)}"`,
    );
  }
  return [uri.slice(from + 1, close), close + 1];
}

/**
 * libpq takes the rest of a password with a bare "@" for the host, and one with a bare "/" for
 * port and database, and fails later with a message that shows it. Neither can ever connect.
 */
function refuseMisplacedPassword(uri: string, host: string, port: string, end: number): void {
  const hostIsNone = host.lastIndexOf('@') > 0;
  const portIsNone = !/^[ \d]*$/.test(port) && `${port}${uri.slice(end)}`.includes('@');
  if (hostIsNone || portIsNone) {
    throw new ConninfoError(`unexpected "@" in URI: "${shownUri(uri)}"`, { hint: QUOTE_HINT });
  }
}

/** The URI without password and without query, either of which can hold secrets. */
function shownUri(uri: string): string {
  const prefix = uri.slice(0, uriPrefixLength(uri));
  const rest = withoutCredentials(uri.slice(prefix.length));
  const query = rest.indexOf('?');
  return prefix + (query < 0 ? rest : `${rest.slice(0, query)}?***`);
}

/** Percent-decodes one part; blanks around it are dropped, blanks in it are refused. */
function decode(raw: string, secret?: 'secret' | undefined): string {
  const shown = secret ? '***' : raw;
  const fail = (message: string): never => {
    throw new ConninfoError(message, { hint: QUOTE_HINT });
  };
  const text = raw.replace(/^ +| +$/g, '');
  const [word = '', ...moreWords] = text.split(' ');
  const [head = '', ...encoded] = word.split('%');
  const chunks = [Buffer.from(head)];
  for (const part of encoded) {
    const hex = part.slice(0, 2);
    if (!/^[0-9A-Fa-f]{2}$/.test(hex)) fail(`invalid percent-encoded token: "${shown}"`);
    if (hex === '00') fail(`forbidden value %00 in percent-encoded value: "${shown}"`);
    chunks.push(Buffer.from(hex, 'hex'), Buffer.from(part.slice(2)));
  }
  if (moreWords.length > 0) {
    fail(`unexpected spaces found in "${shown}", use percent-encoded spaces (%20) instead`);
  }
  const bytes = Buffer.concat(chunks);
  // The protocol is written as UTF-8 here; other bytes could not be sent as they were meant.
  if (!isUtf8(bytes)) fail(`percent-encoded value is not UTF-8: "${shown}"`);
  return bytes.toString();
}
