import {
  CorruptWalError,
  NotSupportedError,
  SystemIdentifierError,
  type WalkeepError,
} from '../errors.js';
import { formatLsn, type Lsn } from '../lsn.js';

/** What a kind of fault is a fault of. */
export type FaultScope =
  /** A stretch that is neither: nothing was written there, or it was written over. */
  | 'stretch'
  /** All of the segment is of another origin: none of its pages can be trusted. */
  | 'segment'
  | 'page'
  | 'record';

/**
 * What can be wrong with WAL, and what with that is wrong. `zeros`: nothing was written here, which is how a preallocated file
 * looks behind the end of its WAL; every other kind is something else than WAL.
 */
const SCOPES = {
  zeros: 'stretch',
  'byte-order': 'segment',
  'page-magic': 'page',
  'page-flags': 'page',
  'page-address': 'page',
  'page-timeline': 'page',
  'page-continuation': 'page',
  'system-identifier': 'segment',
  'segment-size': 'segment',
  'block-size': 'segment',
  'record-length': 'record',
  'record-prev': 'record',
  'record-crc': 'record',
  overwrite: 'stretch',
} as const satisfies Record<string, FaultScope>;

export type WalFaultKind = keyof typeof SCOPES;

export function faultScope(kind: WalFaultKind): FaultScope {
  return SCOPES[kind];
}

/** The first place at which WAL failed a check. */
export interface WalFault {
  kind: WalFaultKind;
  /** The page, record or byte that failed. */
  lsn: Lsn;
  /**
   * End of the last complete good record: nothing from here on is proven. Never above `lsn`;
   * below it where a record that began earlier cannot be completed any more.
   */
  validEnd: Lsn;
  message: string;
  expected?: string;
  actual?: string;
}

/** The fault as the error to throw: CorruptWalError, but for WAL that is not ours to read. */
export function faultToError(fault: WalFault): WalkeepError {
  const details = {
    lsn: fault.lsn,
    ...(fault.expected === undefined ? {} : { expected: fault.expected }),
    ...(fault.actual === undefined ? {} : { actual: fault.actual }),
    detail: `kind: ${fault.kind}; last good record ends at ${formatLsn(fault.validEnd)}`,
  };
  const message = `${fault.message} at ${formatLsn(fault.lsn)}`;
  if (fault.kind === 'system-identifier') return new SystemIdentifierError(message, details);
  if (fault.kind === 'byte-order') return new NotSupportedError(message, details);
  return new CorruptWalError(message, details);
}

/** How the WAL that was fed ends. */
export interface WalEnd {
  /**
   * `boundary`: with a complete record; `torn`: inside a record or page header, more may follow;
   * `zeros`: nothing but zeros follows; `damaged`: something else than WAL follows, see `fault`.
   */
  kind: 'boundary' | 'torn' | 'zeros' | 'damaged';
  /** End of the last complete good record. */
  lsn: Lsn;
  fault?: WalFault;
  /** With fault kind `zeros`: the first byte behind them that is not zero. */
  nonZero?: Lsn;
}
