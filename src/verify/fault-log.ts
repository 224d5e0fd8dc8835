import type { Finding } from '../archive/findings.js';
import type { Lsn } from '../lsn.js';
import type { WalFault } from '../wal/fault.js';

/** Of one segment, after which the rest of it is not looked at. */
const MOST_FAULTS = 20;

const ANOTHER_COPY =
  'Put a good copy of the file in its place, or take a new base backup: recovery stops here.';

/** The hint for a fault in WAL content. */
export function hintFor(fault: WalFault): string {
  switch (fault.kind) {
    case 'byte-order':
      return 'Big-endian WAL is not supported.';
    case 'page-timeline':
      return 'The file is of another timeline, or the history file is not that of this archive.';
    case 'system-identifier':
      return 'Move it to the archive of its own cluster.';
    default:
      return ANOTHER_COPY;
  }
}

/** The faults of one segment as findings: a fault of many pages in a row makes one. */
export class FaultLog {
  readonly #pageSize: bigint;
  #last: { finding: Finding; kind: WalFault['kind']; next: bigint; pages: number } | undefined;
  #count = 0;
  readonly #report: (finding: Finding) => void;

  constructor(pageSize: number, report: (finding: Finding) => void) {
    this.#pageSize = BigInt(pageSize);
    this.#report = report;
  }

  /** True once there are so many that looking on would tell nothing more. */
  get full(): boolean {
    return this.#count >= MOST_FAULTS;
  }

  /**
   * @param file the file that the fault's LSN is in
   * @param nonZero with kind `zeros`: where they end, undefined: nowhere in the segment
   */
  add(fault: WalFault, file: string, nonZero?: Lsn): void {
    const page = fault.lsn / this.#pageSize;
    const last = this.#last;
    if (last && last.kind === fault.kind && last.next === page && last.finding.file === file) {
      last.pages++;
      last.next = page + 1n;
      return;
    }
    this.flush();
    this.#count++;
    const next = (nonZero ?? fault.lsn) / this.#pageSize + 1n;
    const finding: Finding = {
      severity: 'error',
      code: fault.kind,
      file,
      lsn: fault.lsn,
      message: describe(fault, nonZero),
      hint: hintFor(fault),
    };
    this.#last = { finding, kind: fault.kind, next, pages: 0 };
  }

  /** Reports what was held back to count its pages. */
  flush(): void {
    if (!this.#last) return;
    const { finding, pages } = this.#last;
    if (pages > 0) finding.message += `, and on the ${pages} pages behind it`;
    if (this.full) finding.message += '; too many faults: the rest of the segment was not checked';
    this.#report(finding);
    this.#last = undefined;
  }
}

function describe(fault: WalFault, nonZero: Lsn | undefined): string {
  if (fault.kind === 'zeros') {
    if (nonZero === undefined) return 'nothing but zeros up to the end of the segment';
    return `${nonZero - fault.lsn} bytes of zeros where WAL should be`;
  }
  const { message, expected, actual } = fault;
  return expected === undefined ? message : `${message}: expected ${expected}, found ${actual}`;
}
