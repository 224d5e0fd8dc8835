import type { BackupReader } from '../archive/backups/reader.js';
import type { BaseIndex } from '../base/base-index.js';
import { TAR_BLOCK } from '../base/tar.js';

/** The content of one small file of a tar; undefined if that has none of the name. */
export async function readMember(
  reader: BackupReader,
  index: BaseIndex,
  name: string,
  signal?: AbortSignal,
  tarName = 'base.tar',
): Promise<Buffer | undefined> {
  const tar = index.tars.find((one) => one.name === tarName);
  const member = tar?.members.find((one) => one.name === name && one.type === 'file');
  if (!tar || !member) return undefined;
  const content = Buffer.alloc(member.size);
  const begin = member.offset + TAR_BLOCK;
  const end = begin + member.size;
  for (const piece of reader.pieces(index)) {
    const isWanted =
      piece.tar === tarName &&
      piece.frames.some((f) => f.offset < end && f.offset + f.length > begin);
    if (!isWanted) continue;
    for await (const { frame, content: bytes } of reader.read(piece, signal)) {
      const from = Math.max(begin, frame.offset);
      const to = Math.min(end, frame.offset + frame.length);
      if (from < to)
        content.set(bytes.subarray(from - frame.offset, to - frame.offset), from - begin);
    }
  }
  return content;
}
