import type { IncomingMessage } from 'node:http';
import { StoreUncertainError } from '../../errors.js';

/** Pages of a listing have a thousand keys; nothing that is answered is longer. */
const MAX_TEXT = 16 * 1024 * 1024;

/** What a service says of a request that it does not fulfil. */
export interface Refusal {
  /** S3's name of the error; empty where there was none. */
  code: string;
  message: string;
  /** Where the bucket is, if it is said. */
  region?: string;
}

export interface Page {
  entries: { key: string; size: number; modified: Date }[];
  /** Undefined: it is the last one. */
  next: { token: string } | { after: string } | undefined;
}

export interface Deletion {
  removed: string[];
  failed: { key: string; code: string; message: string }[];
}

/** A short answer, whole. @throws what reading it throws, StoreUncertainError */
export async function textOf(message: IncomingMessage): Promise<string> {
  const pieces: Buffer[] = [];
  let size = 0;
  for await (const piece of message as AsyncIterable<Buffer>) {
    size += piece.length;
    if (size > MAX_TEXT) {
      message.destroy();
      throw new StoreUncertainError('the store answers without end');
    }
    pieces.push(piece);
  }
  return Buffer.concat(pieces).toString('utf8');
}

type Node = { readonly [name: string]: unknown };

const LISTS = new Set(['Contents', 'Deleted', 'Error']);

/** Undefined for what is no XML. */
async function parsed(text: string): Promise<Node | undefined> {
  const { XMLParser } = await import('fast-xml-parser');
  const parser = new XMLParser({
    ignoreAttributes: true,
    ignoreDeclaration: true,
    // Every value is a text; a key may look like a number.
    parseTagValue: false,
    trimValues: false,
    // The parser counts them against attacks, and a page of a listing has more; see `plain`.
    processEntities: false,
    isArray: (name, path) => LISTS.has(name) && path !== 'Error',
  });
  try {
    return parser.parse(text, true) as Node;
  } catch {
    return undefined;
  }
}

function textIn(node: unknown, name: string): string {
  const value = (node as Node | undefined)?.[name];
  return typeof value === 'string' ? plain(value) : '';
}

const ENTITIES: Readonly<Record<string, string>> = {
  amp: '&',
  apos: "'",
  gt: '>',
  lt: '<',
  quot: '"',
};

/** No service of S3 defines others than XML does. */
function plain(text: string): string {
  return text.replace(/&(?:#(\d{1,7})|#x([0-9a-f]{1,6})|([a-z]+));/gi, (all, dec, hex, name) => {
    if (name) return ENTITIES[name] ?? all;
    const code = dec ? Number(dec) : Number.parseInt(hex, 16);
    return code <= 0x10ffff ? String.fromCodePoint(code) : all;
  });
}

function nodesIn(node: Node, name: string): Node[] {
  const value = node[name];
  return Array.isArray(value) ? value.filter((one) => typeof one === 'object') : [];
}

/** What stands in the answer to a request that was not fulfilled. */
export async function refusalIn(text: string): Promise<Refusal> {
  const error = text.includes('<Error') ? (await parsed(text))?.Error : undefined;
  const region = textIn(error, 'Region');
  return {
    code: textIn(error, 'Code'),
    message: textIn(error, 'Message'),
    ...(region && { region }),
  };
}

/** The root of an answer that must have it. @throws StoreUncertainError */
async function rootOf(text: string, name: string): Promise<Node> {
  const root = (await parsed(text))?.[name];
  // An element without any is an empty text.
  if (root === '' || (typeof root === 'object' && root !== null)) return (root || {}) as Node;
  throw new StoreUncertainError(`the store's answer is no ${name}`, {
    hint: 'See whether the endpoint is a service of S3.',
  });
}

/** @throws StoreUncertainError */
export async function pageIn(text: string): Promise<Page> {
  const root = await rootOf(text, 'ListBucketResult');
  const encodedKeys = textIn(root, 'EncodingType') === 'url';
  const entries = nodesIn(root, 'Contents').map((node) => {
    const entry = {
      key: keyIn(node, encodedKeys),
      size: Number(textIn(node, 'Size') || Number.NaN),
      modified: wholeSecond(textIn(node, 'LastModified')),
    };
    if (entry.key && Number.isSafeInteger(entry.size) && !Number.isNaN(+entry.modified)) {
      return entry;
    }
    throw new StoreUncertainError('an entry of the listing cannot be read');
  });
  const truncated = textIn(root, 'IsTruncated').trim();
  if (truncated === 'true') return { entries, next: following(root, entries) };
  if (truncated === 'false') return { entries, next: undefined };
  // What is on no page counts as absent.
  throw new StoreUncertainError('a page of the listing does not say whether it is the last one');
}

/** As headers have it, so that both say the same. */
function wholeSecond(text: string): Date {
  return new Date(Math.floor(Date.parse(text) / 1000) * 1000);
}

function following(root: Node, entries: Page['entries']): Page['next'] {
  const token = textIn(root, 'NextContinuationToken');
  const last = entries.at(-1);
  if (token) return { token };
  if (last) return { after: last.key };
  throw new StoreUncertainError('a page of the listing does not say where the next one begins');
}

/** A blank is also written as `+`, which itself is always `%2B` there. */
function keyIn(node: Node, encodedKeys: boolean): string {
  const key = textIn(node, 'Key');
  if (!encodedKeys) return key;
  try {
    return decodeURIComponent(key.replaceAll('+', ' '));
  } catch {
    return '';
  }
}

/** @throws StoreUncertainError */
export async function deletionIn(text: string): Promise<Deletion> {
  const root = await rootOf(text, 'DeleteResult');
  return {
    removed: nodesIn(root, 'Deleted').map((node) => textIn(node, 'Key')),
    failed: nodesIn(root, 'Error').map((node) => ({
      key: textIn(node, 'Key'),
      code: textIn(node, 'Code'),
      message: textIn(node, 'Message'),
    })),
  };
}

/** The text of an element, or undefined; for the few answers of which one word matters. */
export async function wordIn(text: string, path: readonly string[]): Promise<string | undefined> {
  let node: unknown = await parsed(text);
  for (const name of path) node = (node as Node | undefined)?.[name];
  return typeof node === 'string' ? node.trim() : undefined;
}
