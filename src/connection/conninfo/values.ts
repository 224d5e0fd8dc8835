import { ConninfoError, NotSupportedError } from '../../errors.js';
import type { AuthMethod, ConnectionSettings } from './settings.js';

const MAX_INT = 0x7fff_ffff;

/** The value as a 32-bit integer, blanks around it allowed (pqParseIntParam in fe-connect.c). */
export function parseInteger(text: string, name: string): number {
  const value = /^[ \t\n\v\f\r]*[+-]?\d+[ \t\n\v\f\r]*$/.test(text) ? Number(text) : Number.NaN;
  if (!(value >= -MAX_INT - 1 && value <= MAX_INT)) {
    throw new ConninfoError(`invalid integer value "${text}" for connection option "${name}"`);
  }
  // Number('-0') would otherwise come out as -0.
  return value + 0;
}

/** The value when it is one of those allowed. */
export function parseChoice<T extends string>(
  value: string,
  name: string,
  choices: readonly T[],
): T {
  const choice = choices.find((c) => c === value);
  if (choice === undefined) throw new ConninfoError(`invalid ${name} value: "${value}"`);
  return choice;
}

const TLS_VERSIONS = ['TLSv1', 'TLSv1.1', 'TLSv1.2', 'TLSv1.3'] as const;

/** The range of `ssl_min_protocol_version` and `ssl_max_protocol_version`; empty is no bound. */
export function parseTlsRange(
  min: string,
  max: string,
): Pick<ConnectionSettings, 'sslMinVersion' | 'sslMaxVersion'> {
  const lowest = tlsVersion(min, 'ssl_min_protocol_version');
  const highest = tlsVersion(max, 'ssl_max_protocol_version');
  if (lowest && highest && TLS_VERSIONS.indexOf(lowest) > TLS_VERSIONS.indexOf(highest)) {
    throw new ConninfoError('invalid SSL protocol version range');
  }
  return { ...(lowest && { sslMinVersion: lowest }), ...(highest && { sslMaxVersion: highest }) };
}

function tlsVersion(text: string, name: string): (typeof TLS_VERSIONS)[number] | undefined {
  if (text === '') return undefined;
  const version = TLS_VERSIONS.find((v) => v.toLowerCase() === text.toLowerCase());
  if (!version) throw new ConninfoError(`invalid "${name}" value: "${text}"`);
  return version;
}

/** libpq's `latest` is 3.2; 3.1 was never used. */
const PROTOCOL_VERSIONS = new Map([
  ['3.0', 0],
  ['3.2', 2],
  ['latest', 2],
]);

/** Checks the wire protocol range. walkeep speaks 3.0, so a higher minimum is refused. */
export function checkProtocolRange(min: string | undefined, max: string | undefined): void {
  const lowest = protocolMinor(min ?? '3.0', 'min_protocol_version');
  const highest = protocolMinor(max ?? 'latest', 'max_protocol_version');
  if (lowest > highest) {
    throw new ConninfoError('"min_protocol_version" is greater than "max_protocol_version"');
  }
  if (lowest > 0) {
    throw new NotSupportedError(`min_protocol_version "${min}" is not supported`, {
      expected: '3.0',
    });
  }
}

function protocolMinor(text: string, name: string): number {
  const minor = PROTOCOL_VERSIONS.get(text);
  if (minor === undefined) throw new ConninfoError(`invalid ${name} value: "${text}"`);
  return minor;
}

const IMPLEMENTED: readonly AuthMethod[] = ['password', 'md5', 'scram-sha-256', 'none'];
const AUTH_METHODS = [...IMPLEMENTED, 'gss', 'sspi', 'oauth'] as const;

/**
 * Reads `require_auth`: a list of methods, either all plain or all with `!`. A list that leaves no
 * method implemented here is refused now, not after the server has been asked.
 */
export function parseRequireAuth(text: string): ConnectionSettings['requireAuth'] {
  if (text === '') return undefined;
  const negated = text.startsWith('!');
  const methods = new Set<(typeof AUTH_METHODS)[number]>();
  for (const part of text.split(',')) {
    if (part.startsWith('!') && !negated) {
      throw new ConninfoError(
        `negative require_auth method "${part}" cannot be mixed with non-negative methods`,
      );
    }
    if (!part.startsWith('!') && negated) {
      throw new ConninfoError(
        `require_auth method "${part}" cannot be mixed with negative methods`,
      );
    }
    const method = parseChoice(negated ? part.slice(1) : part, 'require_auth', AUTH_METHODS);
    if (methods.has(method)) {
      throw new ConninfoError(`require_auth method "${part}" is specified more than once`);
    }
    methods.add(method);
  }
  if (!IMPLEMENTED.some((method) => methods.has(method) !== negated)) {
    throw new NotSupportedError(`require_auth value "${text}" leaves no supported method`, {
      expected: IMPLEMENTED.join(', '),
    });
  }
  // OAuth is never spoken here, so naming it changes nothing in either kind of list.
  return { methods: [...methods].filter((method) => method !== 'oauth'), negated };
}

const SCRAM_KEY_LENGTH = 32;

/** Refuses a SCRAM key given instead of a password, after libpq's own checks. */
export function refuseScramKey(value: string | undefined, name: string): void {
  if (value === undefined) return;
  const label = name === 'scram_client_key' ? 'client' : 'server';
  if (!/^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(value)) {
    throw new ConninfoError(`invalid SCRAM ${label} key`);
  }
  const { length } = Buffer.from(value, 'base64');
  if (length !== SCRAM_KEY_LENGTH) {
    throw new ConninfoError(`invalid SCRAM ${label} key length: ${length}`);
  }
  throw new NotSupportedError(`${name} is not supported`, { hint: 'Give the password instead.' });
}
