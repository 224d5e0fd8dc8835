import type { ShipCompression } from '../../ship/options.js';
import type { Compression } from '../../wal/file-name.js';
import type { ServerStore, WorkConfig } from '../config/config.js';
import { COMPRESS } from '../config/work-model.js';
import type { ShipTask } from './messages.js';

/** What of a store's configuration shipping depends on. */
export function taskOf({ server }: WorkConfig, store: ServerStore): ShipTask {
  const { identityFile: _, retention: __, compress, ...rest } = store;
  const { directory } = server;
  return { ...rest, directory, ...(compress === undefined ? {} : compressionOf(compress)) };
}

/** `zstd:3`, as the configuration was found to have it. */
function compressionOf(text: string): { compression: ShipCompression } {
  const [, method, level] = COMPRESS.exec(text) as unknown as [string, Compression, string?];
  return { compression: { method, ...(level === undefined ? {} : { level: Number(level) }) } };
}
