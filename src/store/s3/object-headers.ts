import type { IncomingHttpHeaders } from 'node:http';
import { StoreUncertainError } from '../../errors.js';
import type { Head, Metadata } from '../store.js';

const META = 'x-amz-meta-';
/** Beside the caller's metadata; no caller sees them. */
const SHA256 = 'walkeep-sha256';
/** Of one call of `create`: by it the call knows its own object again. */
const TOKEN = 'walkeep-token';

/** An object as its headers say, with whose call made it. */
export interface Seen {
  head: Head;
  token: string | undefined;
}

export function objectHeaders(
  meta: Metadata,
  sha256: string,
  token: string,
): Record<string, string> {
  const all = { ...meta, [SHA256]: sha256, [TOKEN]: token };
  return Object.fromEntries(Object.entries(all).map(([name, value]) => [META + name, value]));
}

/** @throws StoreUncertainError */
export function seenIn(key: string, headers: IncomingHttpHeaders): Seen {
  const meta: Record<string, string> = {};
  for (const [name, value] of Object.entries(headers)) {
    if (!name.startsWith(META) || typeof value !== 'string') continue;
    meta[name.slice(META.length)] = value;
  }
  const { [SHA256]: sha256, [TOKEN]: token, ...theirs } = meta;
  const size = sizeIn(headers);
  const modified = new Date(headers['last-modified'] ?? '');
  if (size === undefined || Number.isNaN(modified.getTime())) {
    throw new StoreUncertainError(`the store does not say how large or how old "${key}" is`, {
      key,
    });
  }
  return { head: { key, size, modified, sha256, meta: theirs }, token };
}

/** Of the whole object, also where only a part of it comes. */
function sizeIn(headers: IncomingHttpHeaders): number | undefined {
  const range = headers['content-range'];
  const text = range === undefined ? headers['content-length'] : /\/(\d+)$/.exec(range)?.[1];
  return text !== undefined && /^\d+$/.test(text) ? Number(text) : undefined;
}

/** First byte that comes, and one behind the last. @throws StoreUncertainError */
export function rangeIn(
  key: string,
  headers: IncomingHttpHeaders,
  size: number,
): { start: number; end: number } {
  const range = headers['content-range'];
  if (range === undefined) return { start: 0, end: size };
  const [, first, last] = /^bytes (\d+)-(\d+)\//.exec(range) ?? [];
  if (first === undefined) {
    throw new StoreUncertainError(`the store does not say which bytes of "${key}" come`, { key });
  }
  return { start: Number(first), end: Number(last) + 1 };
}
