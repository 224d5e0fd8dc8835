import { join } from 'node:path';
import { COMPRESSIONS, type Compression, compressionSuffix } from '../wal/file-name.js';
import { exists } from './place.js';

/** The file that has a complete segment, in whatever compression. */
export async function completeFile(
  name: string,
  directory: string,
): Promise<{ name: string; compression: Compression } | undefined> {
  for (const compression of COMPRESSIONS) {
    const file = name + compressionSuffix(compression);
    if (await exists(join(directory, file))) return { name: file, compression };
  }
  return undefined;
}
