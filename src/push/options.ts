import type { ObjectCompression } from '../archive/shipping/object-codec.js';
import { aName, anObject, aSwitch, type Checks, listOf } from '../options.js';

export interface PushOptions {
  /**
   * Refuse a segment whose records are damaged, and store one whose WAL stops as partial. Default
   * true.
   */
  verify?: boolean;
  /** In a store: default zstd, or gzip:1 where Node.js has no zstd of its own (before 22.15). */
  compression?: ObjectCompression;
  /** age recipients (`age1…`): what a store gets is encrypted to each of them. */
  recipients?: readonly string[];
  /** Use also a store that cannot create only what is absent. Default false. */
  unfenced?: boolean;
  /** Take this cluster into a store that has another one, as after pg_upgrade. Default false. */
  newSystem?: boolean;
}

export const CHECKS: Checks<PushOptions> = {
  verify: aSwitch,
  compression: anObject,
  recipients: listOf(aName, 'a list of age recipients'),
  unfenced: aSwitch,
  newSystem: aSwitch,
};
