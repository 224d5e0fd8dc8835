import { StoreUncertainError, StoreUnsupportedError, UsageError } from '../errors.js';

/** Bytes of a key in UTF-8, as S3 has it. */
export const MAX_KEY = 1024;
/** Bytes of what stands between two slashes: the longest file name there is everywhere. */
const MAX_PART = 255;
/** First part of what a store in a directory keeps for itself; no object is called so in any store. */
export const RESERVED = '.walkeep-store';

/**
 * What any store can keep under its own name: of non-empty parts between slashes, none of them `.`
 * or `..`, without control characters. Stricter than S3, so that an archive can be copied from any
 * kind of store to any other.
 * @throws UsageError
 */
export function requireKey(key: string): void {
  const fault = faultOf(key);
  if (fault === undefined) return;
  throw new UsageError(`"${key}" cannot be the key of an object: ${fault}`, { key });
}

export function isKey(key: string): boolean {
  return faultOf(key) === undefined;
}

function faultOf(key: string): string | undefined {
  if (typeof key !== 'string' || key === '') return 'it is empty';
  if (!isWellFormed(key)) return 'it is no well-formed Unicode';
  if (/\p{Cc}/u.test(key)) return 'it has control characters in it';
  if (Buffer.byteLength(key) > MAX_KEY) return `it has more than ${MAX_KEY} bytes`;
  const parts = key.split('/');
  if (parts.includes('')) return 'a slash stands at an end of it, or twice';
  if (parts.some((part) => part === '.' || part === '..')) return 'it has "." or ".." in it';
  if (parts.some((part) => Buffer.byteLength(part) > MAX_PART)) {
    return `a part of it has more than ${MAX_PART} bytes`;
  }
  // In any case: a file system may not tell them apart.
  return parts[0]?.toLowerCase() === RESERVED ? `"${RESERVED}" is the store's own` : undefined;
}

/** What may be asked of `list`: the beginning of a key, or nothing. @throws UsageError */
export function requirePrefix(prefix: string): void {
  const plain = typeof prefix === 'string' && isWellFormed(prefix) && !/\p{Cc}/u.test(prefix);
  const parts = plain ? prefix.split('/') : [];
  const whole = parts.slice(0, -1);
  if (plain && !whole.some((part) => part === '' || part === '.' || part === '..')) return;
  throw new UsageError(`"${prefix}" cannot begin the key of an object`, { key: prefix });
}

function isWellFormed(text: string): boolean {
  return !/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/.test(text);
}

/** By the bytes of their UTF-8, as stores sort; strings compare by UTF-16, which differs. */
export function compareKeys(a: string, b: string): number {
  const length = Math.min(a.length, b.length);
  for (let i = 0; i < length; i++) {
    const [one, other] = [a.charCodeAt(i), b.charCodeAt(i)];
    if (one !== other) return rank(one) - rank(other);
  }
  return a.length - b.length;
}

/** Surrogates stand for what comes behind all single units. */
function rank(unit: number): number {
  if (unit < 0xd800) return unit;
  return unit >= 0xe000 ? unit - 0x800 : unit + 0x2000;
}

/** Sees that a listing has only what was asked for, in order and nothing twice. */
export class ListingOrder {
  readonly #prefix: string;
  #last: string | undefined;

  /** @param after the key behind which it is to begin, where it is known to heed that */
  constructor(prefix: string, after?: string) {
    this.#prefix = prefix;
    this.#last = after;
  }

  /** @throws StoreUncertainError, StoreUnsupportedError */
  take(key: string): void {
    if (!key.startsWith(this.#prefix)) {
      throw new StoreUncertainError(`the store lists what was not asked for: "${key}"`, { key });
    }
    if (this.#last !== undefined && compareKeys(this.#last, key) >= 0) {
      throw new StoreUnsupportedError(`the store does not list in order: "${key}"`, { key });
    }
    this.#last = key;
  }
}
