/**
 * Buffers of one size that are between two users, for the whole process: left to the garbage
 * collector, those of many reconnects or segments pile up to megabytes before it looks at them.
 *
 * Who takes one owns it until it is given back; by then nobody has a view of it any more.
 */
export class SpareBuffers {
  private readonly length: number;
  private readonly most: number;
  private readonly spare: Buffer[] = [];

  /** @param most so many are kept; further ones are left to the garbage collector */
  constructor(length: number, most: number) {
    this.length = length;
    this.most = most;
  }

  /** Its content is whatever it was used for. */
  take(): Buffer {
    return this.spare.pop() ?? Buffer.allocUnsafeSlow(this.length);
  }

  giveBack(buffer: Buffer): void {
    if (this.spare.length < this.most) this.spare.push(buffer);
  }
}
