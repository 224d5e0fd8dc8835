import { CorruptObjectError } from '../errors.js';
import { isInside, type TarMember } from './tar.js';

/**
 * `base.index`: where in a backup's volumes each byte of its tars is. Frames are compressed each by
 * itself and never cut by the end of a volume, so that they are read by range, in any order, by
 * several at once.
 */
export interface BaseIndex {
  /** In the order of the tars of `backup.json`. */
  tars: TarIndex[];
}

/** What it is stored as. */
export const INDEX_COMPRESSION = 'gzip';

export interface TarIndex {
  /** `base.tar`. */
  name: string;
  /** Without a gap, in order. */
  frames: Frame[];
  /** In order. */
  members: IndexedMember[];
}

/** About 8 MiB of tar, compressed as one gzip member, zstd frame or lz4 frame. */
export interface Frame {
  /** Of its first byte within the tar. */
  offset: number;
  /** Bytes of tar. */
  length: number;
  /** Number of the volume, from 0. */
  volume: number;
  /** Where it begins in the volume, before encryption. */
  at: number;
  /** Bytes there. */
  stored: number;
  /** SHA-256 of these, in hex. */
  sha256: string;
  /**
   * SHA-256 of its bytes of tar, in hex, of a frame that has nothing but a part of one file: a delta
   * compares such a part of a large file by itself.
   */
  content?: string | undefined;
}

/** `offset` is that of its header within the tar: the content is one block behind it. */
export type IndexedMember = TarMember;

/**
 * Lines of JSON: `{"format":1}`, then for each tar `["tar",name]`, its frames
 * `["f",length,volume,at,stored,sha256,content]` (offsets follow from the lengths; the last one only
 * where there is one) and its members
 * `["m",name,type,size,mode,mtime,offset,link]`. Stored compressed with gzip.
 */
export function* baseIndexLines(index: BaseIndex): Generator<string, void, void> {
  yield `${JSON.stringify({ format: 1 })}\n`;
  for (const { name, frames, members } of index.tars) {
    yield `${JSON.stringify(['tar', name])}\n`;
    for (const f of frames) {
      const fields = [f.length, f.volume, f.at, f.stored, f.sha256];
      yield `${JSON.stringify(['f', ...fields, ...(f.content === undefined ? [] : [f.content])])}\n`;
    }
    for (const m of members) {
      const fields = [m.name, m.type, m.size, m.mode, m.mtime, m.offset];
      yield `${JSON.stringify(['m', ...fields, ...(m.link === '' ? [] : [m.link])])}\n`;
    }
  }
}

/**
 * @param text its whole content, decompressed; its digest was compared with that of `backup.json`
 * @throws CorruptObjectError
 */
export function parseBaseIndex(text: string, name = 'base.index'): BaseIndex {
  const wrong = (why: string) =>
    new CorruptObjectError(`"${name}" is no index of a backup: ${why}`, { key: name });
  const tars: TarIndex[] = [];
  let hasFormat = false;
  for (let at = 0; at < text.length; ) {
    const end = text.indexOf('\n', at);
    if (end < 0) throw wrong('its last line is cut');
    const line = lineOf(text.slice(at, end));
    if (!hasFormat) {
      if ((line as { format?: unknown } | null)?.format !== 1) {
        throw wrong('its format is not known here');
      }
      hasFormat = true;
    } else if (!Array.isArray(line) || !take(tars, line)) throw wrong(`no line stands at ${at}`);
    at = end + 1;
  }
  if (!hasFormat) throw wrong('it is empty');
  return { tars };
}

function lineOf(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

/** False: it is no line of an index. */
function take(tars: TarIndex[], [kind, ...fields]: readonly unknown[]): boolean {
  const tar = tars.at(-1);
  if (kind === 'tar') {
    const [name] = fields;
    if (typeof name !== 'string') return false;
    tars.push({ name, frames: [], members: [] });
    return true;
  }
  if (kind === 'f') return tar !== undefined && takeFrame(tar, fields);
  return kind === 'm' && tar !== undefined && takeMember(tar, fields);
}

const isCount = (value: unknown): value is number =>
  Number.isSafeInteger(value) && (value as number) >= 0;

function takeFrame({ frames }: TarIndex, fields: readonly unknown[]): boolean {
  const [length, volume, at, stored, sha256, content] = fields;
  const isFrame = isCount(length) && isCount(volume) && isCount(at) && isCount(stored);
  if (!isFrame || typeof sha256 !== 'string') return false;
  if (content !== undefined && typeof content !== 'string') return false;
  const last = frames.at(-1);
  const offset = last ? last.offset + last.length : 0;
  const frame = { offset, length, volume, at, stored, sha256 };
  frames.push(content === undefined ? frame : { ...frame, content });
  return true;
}

const TYPES: readonly unknown[] = ['file', 'directory', 'symlink'] satisfies TarMember['type'][];

function takeMember({ members }: TarIndex, fields: readonly unknown[]): boolean {
  const [name, type, size, mode, mtime, offset, link = ''] = fields;
  const isNamed = typeof name === 'string' && isInside(name) && typeof link === 'string';
  if (!isNamed || !TYPES.includes(type)) return false;
  if (!isCount(size) || !isCount(mode) || !isCount(mtime) || !isCount(offset)) return false;
  members.push({ name, type: type as TarMember['type'], size, mode, mtime, offset, link });
  return true;
}
