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
}

/** `offset` is that of its header within the tar: the content is one block behind it. */
export type IndexedMember = TarMember;

/**
 * Lines of JSON: `{"format":1}`, then for each tar `["tar",name]`, its frames
 * `["f",length,volume,at,stored,sha256]` (offsets follow from the lengths) and its members
 * `["m",name,type,size,mode,mtime,offset,link]`. Stored compressed with gzip.
 */
export function* baseIndexLines(index: BaseIndex): Generator<string, void, void> {
  yield `${JSON.stringify({ format: 1 })}\n`;
  for (const { name, frames, members } of index.tars) {
    yield `${JSON.stringify(['tar', name])}\n`;
    for (const f of frames) {
      yield `${JSON.stringify(['f', f.length, f.volume, f.at, f.stored, f.sha256])}\n`;
    }
    for (const m of members) {
      const fields = [m.name, m.type, m.size, m.mode, m.mtime, m.offset];
      yield `${JSON.stringify(['m', ...fields, ...(m.link === '' ? [] : [m.link])])}\n`;
    }
  }
}

type Line =
  | { format: unknown }
  | ['tar', string]
  | ['f', number, number, number, number, string]
  | ['m', string, TarMember['type'], number, number, number, number, string?];

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
    let line: Line;
    try {
      line = JSON.parse(text.slice(at, end)) as Line;
    } catch {
      throw wrong(`no line stands at ${at}`);
    }
    at = end + 1;
    if (!hasFormat) {
      if (Array.isArray(line) || line?.format !== 1) throw wrong('its format is not known here');
      hasFormat = true;
      continue;
    }
    if (!Array.isArray(line)) throw wrong(`no line stands at ${at}`);
    const tar = tars.at(-1);
    if (line[0] === 'tar') tars.push({ name: line[1], frames: [], members: [] });
    else if (!tar) throw wrong('it does not begin with a tar');
    else if (line[0] === 'f') tar.frames.push(frameOf(tar, line));
    else if (line[0] === 'm' && isInside(line[1])) tar.members.push(memberOf(line));
    else throw wrong(`no line stands at ${at}`);
  }
  if (!hasFormat) throw wrong('it is empty');
  return { tars };
}

function frameOf(tar: TarIndex, line: Extract<Line, ['f', ...unknown[]]>): Frame {
  const last = tar.frames.at(-1);
  const [, length, volume, at, stored, sha256] = line;
  return { offset: last ? last.offset + last.length : 0, length, volume, at, stored, sha256 };
}

function memberOf(line: Extract<Line, ['m', ...unknown[]]>): IndexedMember {
  const [, name, type, size, mode, mtime, offset, link = ''] = line;
  return { name, type, size, mode, mtime, offset, link };
}
