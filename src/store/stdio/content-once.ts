import { StoreUncertainError } from '../../errors.js';
import type { Content } from '../store.js';

/** Content that arrives, and can be read as it comes, once. */
export function contentOnce(
  size: number,
  sha256: string,
  arriving: AsyncIterable<Uint8Array>,
): Content {
  let opened = false;
  return {
    size,
    sha256,
    open: () => {
      if (opened) throw new StoreUncertainError('what arrives can be read only once');
      opened = true;
      return arriving;
    },
  };
}
