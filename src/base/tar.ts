import { CorruptObjectError } from '../errors.js';

/** Headers and the padding of contents (pgtar.h, TAR_BLOCK_SIZE). */
export const TAR_BLOCK = 512;

/** What a base backup's tar holds: a file, a directory, or a symbolic link to a tablespace. */
export interface TarMember {
  /** Below the data directory, with `/` between parts and none at the end. */
  name: string;
  type: 'file' | 'directory' | 'symlink';
  /** Bytes of content; 0 for what is no file. */
  size: number;
  /** Permission bits. */
  mode: number;
  /** Seconds since 1970. */
  mtime: number;
  /** Where a symbolic link leads; empty for all others. */
  link: string;
  /** Of the header within the tar, in bytes; the content is one block behind it. */
  offset: number;
}

/** Called in the order of the tar. The bytes are valid until the call returns. */
export interface TarVisitor {
  member(member: TarMember): void;
  /** Content of the last member: some pieces, `member.size` bytes together. */
  content(piece: Uint8Array): void;
  /** The last member is complete. */
  done(member: TarMember): void;
}

/**
 * Reads the tar stream of a base backup as it comes, without copying contents.
 *
 * PostgreSQL writes plain ustar (src/port/tar.c): a block of header, the content padded with zeros
 * to whole blocks, and from version 15 on two blocks of zeros at the end; sizes from 8 GiB on are in
 * base 256. Names have up to 99 bytes and no prefix, and there is nothing but files, directories and
 * symbolic links. All else is refused, as are names that lead out of the data directory: who could
 * make the server's stream say so could write anywhere.
 *
 * ```
 *   0 name 100   100 mode 8   124 size 12   136 mtime 12   148 checksum 8   156 type 1
 * 157 link 100   257 "ustar\0" "00"         345 prefix 155
 * ```
 */
export class TarReader {
  private readonly visitor: TarVisitor;
  private readonly header = Buffer.alloc(TAR_BLOCK);
  /** Bytes of the header that came. */
  private filled = 0;
  private member: TarMember | undefined;
  /** Bytes of content, then of padding, that are still to come. */
  private rest = 0;
  private padding = 0;
  /** Blocks of zeros that came. */
  private ending = 0;
  /** Bytes taken. */
  position = 0;

  /** The blocks of zeros that a tar ends with came; a server before version 15 leaves them out. */
  get terminated(): boolean {
    return this.ending > 0;
  }

  constructor(visitor: TarVisitor) {
    this.visitor = visitor;
  }

  /** @throws CorruptObjectError for what PostgreSQL does not send */
  feed(chunk: Uint8Array): void {
    let at = 0;
    while (at < chunk.length) {
      const before = at;
      if (this.rest > 0) at = this.takeContent(chunk, at);
      else if (this.padding > 0) at = this.takePadding(chunk, at);
      else at = this.takeHeader(chunk, at);
      this.position += at - before;
    }
  }

  /** @throws CorruptObjectError if the stream ended too early */
  end(): void {
    // A server before version 15 leaves out the blocks of zeros.
    if (this.member || this.padding > 0 || this.filled > 0 || this.ending === 1) {
      throw this.wrong('it ends too early');
    }
  }

  private takeContent(chunk: Uint8Array, at: number): number {
    const end = Math.min(chunk.length, at + this.rest);
    this.visitor.content(chunk.subarray(at, end));
    this.rest -= end - at;
    if (this.rest === 0) this.finish();
    return end;
  }

  private takePadding(chunk: Uint8Array, at: number): number {
    const end = Math.min(chunk.length, at + this.padding);
    for (let i = at; i < end; i++) {
      if (chunk[i] !== 0) throw this.wrong('its padding is not zero');
    }
    this.padding -= end - at;
    return end;
  }

  private takeHeader(chunk: Uint8Array, at: number): number {
    const end = Math.min(chunk.length, at + TAR_BLOCK - this.filled);
    this.header.set(chunk.subarray(at, end), this.filled);
    this.filled += end - at;
    if (this.filled < TAR_BLOCK) return end;
    this.filled = 0;
    if (isZero(this.header)) {
      this.ending++;
      return end;
    }
    if (this.ending > 0) throw this.wrong('something stands behind its end');
    const offset = this.position + (end - at) - TAR_BLOCK;
    this.begin(parseHeader(this.header, offset, (why) => this.wrong(why)));
    return end;
  }

  private begin(member: TarMember): void {
    this.member = member;
    this.rest = member.size;
    this.padding = (TAR_BLOCK - (member.size % TAR_BLOCK)) % TAR_BLOCK;
    this.visitor.member(member);
    if (this.rest === 0) this.finish();
  }

  private finish(): void {
    const { member } = this;
    this.member = undefined;
    this.visitor.done(member as TarMember);
  }

  private wrong(why: string): CorruptObjectError {
    const name = this.member ? ` in "${this.member.name}"` : '';
    return new CorruptObjectError(
      `the tar stream is damaged at byte ${this.position}${name}: ${why}`,
    );
  }
}

function isZero(block: Uint8Array): boolean {
  return block.every((byte) => byte === 0);
}

const TYPES: Readonly<Record<string, TarMember['type']>> = {
  '0': 'file',
  '2': 'symlink',
  '5': 'directory',
};

function parseHeader(
  header: Buffer,
  offset: number,
  wrong: (why: string) => CorruptObjectError,
): TarMember {
  const number = (at: number, length: number): number => {
    const value = readNumber(header.subarray(at, at + length));
    if (value === undefined) throw wrong(`no number stands at ${at} of a header`);
    return value;
  };
  // To the character as PostgreSQL writes it: no flipped bit is another spelling.
  const sum = `${checksum(header).toString(8).padStart(7, '0')} `;
  if (header.toString('latin1', 148, 156) !== sum) throw wrong('the checksum of a header is wrong');
  if (header.toString('latin1', 257, 265) !== 'ustar\u000000') throw wrong('it is not ustar');
  const type = TYPES[String.fromCharCode(header[156] as number)];
  if (!type) throw wrong(`a member is of type ${header[156]}`);
  if (header[345] !== 0) throw wrong('a name has a prefix');
  const name = textAt(header, 0, 100);
  const link = textAt(header, 157, 100);
  if (name === undefined || link === undefined) throw wrong('a name has no end');
  // "./pg_wal/archive_status/" and "./pg_wal/summaries/" are sent so (basebackup.c, sendDir).
  const bare = type === 'file' ? name : name.replace(/^\.\//, '').replace(/\/$/, '');
  if (!isInside(bare)) throw wrong(`a member is called ${JSON.stringify(name)}`);
  const size = number(124, 12);
  if (type !== 'file' && size > 0) throw wrong(`"${bare}" has content and is no file`);
  if ((type === 'symlink') !== (link !== '')) throw wrong(`"${bare}" has no link, or one too many`);
  return { name: bare, type, size, mode: number(100, 8), mtime: number(136, 12), link, offset };
}

/** A path below the directory that it is relative to, written in one way only. */
export function isInside(name: string): boolean {
  return !name.includes('\0') && name.split('/').every((p) => p !== '' && p !== '.' && p !== '..');
}

/** Up to a NUL; undefined where there is none. The bytes of a name are kept as they are, in latin1. */
function textAt(header: Buffer, at: number, length: number): string | undefined {
  const end = header.indexOf(0, at);
  return end < 0 || end >= at + length ? undefined : header.toString('latin1', at, end);
}

/** The sum of all bytes, those of the checksum itself taken for spaces. */
function checksum(header: Uint8Array): number {
  let sum = 8 * 0x20;
  for (let i = 0; i < TAR_BLOCK; i++) if (i < 148 || i >= 156) sum += header[i] as number;
  return sum;
}

/** Octal digits up to a space or NUL, or 0x80 and the number in base 256, most significant first. */
function readNumber(field: Buffer): number | undefined {
  if (field[0] === 0x80) {
    let value = 0;
    for (const byte of field.subarray(1)) value = value * 256 + byte;
    return Number.isSafeInteger(value) ? value : undefined;
  }
  const digits = /^([0-7]+)[ \0]*$/.exec(field.toString('latin1'))?.[1];
  return digits === undefined ? undefined : Number.parseInt(digits, 8);
}

/** A header as PostgreSQL writes it. @throws RangeError for a name or link over 99 bytes */
export function tarHeader(member: Omit<TarMember, 'offset'>): Buffer {
  const { name, type, size, mode, mtime, link } = member;
  const header = Buffer.alloc(TAR_BLOCK);
  const path = Buffer.from(type === 'file' ? name : `${name}/`, 'latin1');
  const target = Buffer.from(link, 'latin1');
  if (path.length > 99 || target.length > 99) throw new RangeError(`too long for a tar: ${name}`);
  header.set(path, 0);
  writeNumber(header.subarray(100, 108), mode);
  writeNumber(header.subarray(108, 116), 0);
  writeNumber(header.subarray(116, 124), 0);
  writeNumber(header.subarray(124, 136), size);
  writeNumber(header.subarray(136, 148), mtime);
  header.write({ file: '0', symlink: '2', directory: '5' }[type], 156, 'latin1');
  header.set(target, 157);
  header.write('ustar\u000000postgres', 257, 'latin1');
  header.write('postgres', 297, 'latin1');
  writeNumber(header.subarray(329, 337), 0);
  writeNumber(header.subarray(337, 345), 0);
  writeNumber(header.subarray(148, 156), checksum(header));
  return header;
}

function writeNumber(field: Buffer, value: number): void {
  const digits = field.length - 1;
  if (value < 8 ** digits) {
    field.write(`${value.toString(8).padStart(digits, '0')} `, 'latin1');
    return;
  }
  field[0] = 0x80;
  for (let i = digits, rest = value; i > 0; i--, rest = Math.floor(rest / 256))
    field[i] = rest % 256;
}
