import { StoreUnsupportedError } from '../errors.js';
import { openFileStore } from './file/file-store.js';
import { parsePlace } from './place.js';
import type { ObjectStore } from './store.js';

export async function openStore(
  text: string,
  _o: { unfenced?: boolean } = {},
): Promise<ObjectStore> {
  const place = parsePlace(text);
  if (place.kind === 'directory') return openFileStore(place.path);
  throw new StoreUnsupportedError(`"${place.text}" not yet`);
}
