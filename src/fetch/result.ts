import type { Lsn } from '../lsn.js';

/** How a fetch ended that could be answered. */
export type FetchResult =
  | {
      found: true;
      /** The file in the archive that was served. */
      path: string;
      /** Of a partial: end of its last complete good record. */
      validEnd?: Lsn;
      /** Why a partial was served only because `allowTorn` says so. */
      damage?: string;
      /** A history file is of a timeline that was never received here. */
      unfollowed?: string;
    }
  | {
      found: false;
      /** Why that is in order. */
      reason: string;
    };
