import { resolve } from 'node:path';

/** A directory that is the same from everywhere; the URL of a store is so already. */
export function absolutePlace(text: string): string {
  return /^[a-z][a-z0-9+.-]+:\/\//i.test(text) ? text : resolve(text);
}
