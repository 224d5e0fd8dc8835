import { CODECS, isLevelOf, isReceived, RECEIVED } from '../codec/codecs.js';
import { UsageError } from '../errors.js';
import type { CompressionOption } from '../receive/options.js';
import { inWords } from '../text.js';
import type { Compression } from '../wal/file-name.js';
import { strtol } from './numbers.js';

/** What a level without a method is one of. */
const BARE_LEVEL = 'gzip';

interface Detail {
  level: number;
  workers: boolean;
  long: boolean;
}

/**
 * Reads `-Z`: a bare level (0 is none, else gzip), `METHOD` or `METHOD:DETAIL`, where DETAIL is
 * a level or a list of `keyword=value`. Rules and messages of PostgreSQL's
 * src/common/compression.c and pg_receivewal. @throws UsageError
 */
export function parseCompression(text: string): CompressionOption {
  const { name, detail } = splitMethod(text);
  if (!isCompression(name)) {
    throw new UsageError(`unrecognized compression algorithm: "${name}"`);
  }
  const { byDefault } = CODECS[name].levels;
  const { level, ...detailed } = parseDetail(detail, byDefault);
  validate(name, { level, ...detailed });
  if (!isReceived(name)) {
    throw new UsageError(`compression with ${name.toUpperCase()} is not yet supported`);
  }
  return level === byDefault ? { method: name } : { method: name, level };
}

const isCompression = (name: string): name is Compression => Object.hasOwn(CODECS, name);

/** What `--compress` takes, in a line of the help. */
export function compressionHelp(): string {
  const methods = RECEIVED.map((name) => {
    const { min, max, ignored } = CODECS[name].levels;
    return min === max || ignored ? name : `${name}[:${min}-${max}]`;
  });
  return `${inWords(methods, 'or')}; a bare level means ${BARE_LEVEL}`;
}

function splitMethod(text: string): { name: string; detail: string | undefined } {
  const level = text === '' ? 0 : strtol(text);
  if (level === 0) return { name: 'none', detail: undefined };
  if (level !== undefined) return { name: BARE_LEVEL, detail: text };
  const colon = text.indexOf(':');
  if (colon < 0) return { name: text, detail: undefined };
  return { name: text.slice(0, colon), detail: text.slice(colon + 1) };
}

function parseDetail(text: string | undefined, defaultLevel: number): Detail {
  const detail: Detail = { level: defaultLevel, workers: false, long: false };
  if (text === undefined) return detail;
  const bare = strtol(text);
  if (bare !== undefined) return { ...detail, level: bare };
  for (const entry of text.split(',')) {
    const equals = entry.indexOf('=');
    const keyword = equals < 0 ? entry : entry.slice(0, equals);
    const value = equals < 0 ? undefined : entry.slice(equals + 1);
    switch (keyword) {
      case '':
        throw invalid('found empty string where a compression option was expected');
      case 'level':
        detail.level = integer(keyword, value);
        break;
      case 'workers':
        integer(keyword, value);
        detail.workers = true;
        break;
      case 'long':
        if (value !== undefined && !/^(yes|on|1|no|off|0)$/i.test(value)) {
          throw invalid(`value for compression option "${keyword}" must be a Boolean value`);
        }
        detail.long = true;
        break;
      default:
        throw invalid(`unrecognized compression option: "${keyword}"`);
    }
  }
  return detail;
}

function integer(keyword: string, value: string | undefined): number {
  if (value === undefined) throw invalid(`compression option "${keyword}" requires a value`);
  const number = strtol(value);
  if (number !== undefined) return number;
  throw invalid(`value for compression option "${keyword}" must be an integer`);
}

function validate(method: Compression, detail: Detail): void {
  const named = `compression algorithm "${method}"`;
  if (!isLevelOf(method, detail.level)) {
    const { min, max, byDefault } = CODECS[method].levels;
    if (method === 'none') throw invalid(`${named} does not accept a compression level`);
    throw invalid(
      `${named} expects a compression level between ${min} and ${max} (default at ${byDefault})`,
    );
  }
  if (method === 'zstd') return;
  if (detail.workers) throw invalid(`${named} does not accept a worker count`);
  if (detail.long) throw invalid(`${named} does not support long-distance mode`);
}

function invalid(reason: string): UsageError {
  return new UsageError(`invalid compression specification: ${reason}`);
}
