/** Samples that are kept; of more, every second one goes: what is said is then too careful. */
const MOST = 1024;

/**
 * Up to when all WAL that the server had is durable here. Only what the server itself said counts, and
 * only as long as it was heard of lately: who hears nothing knows of nothing to lose, and is not safe.
 */
export class RecoveryPoint {
  readonly #fresh: number;
  /** Ends of the server's WAL that are not durable here, each with when it was heard of. */
  #ahead: { end: bigint; at: number }[] = [];
  #last = -1n;
  #flushed = -1n;
  #coveredAt: number | undefined;

  /** @param fresh milliseconds for which a silent server is taken to have nothing new */
  constructor(fresh: number) {
    this.#fresh = fresh;
  }

  /** Where the server's WAL ends, and up to where it is durable. */
  note(flushed: bigint, serverEnd: bigint, now: number): void {
    this.#flushed = flushed;
    if (serverEnd !== this.#last) this.#ahead.push({ end: serverEnd, at: now });
    this.#last = serverEnd;
    let covered = 0;
    while (covered < this.#ahead.length && (this.#ahead[covered]?.end as bigint) <= flushed) {
      this.#coveredAt = this.#ahead[covered]?.at;
      covered += 1;
    }
    this.#ahead.splice(0, covered);
    if (this.#ahead.length > MOST) this.#ahead = this.#ahead.filter((_, i) => i % 2 === 0);
  }

  /** Another stream begins: what the server will say first is not known yet. */
  restart(): void {
    this.#ahead = [];
    this.#last = -1n;
    this.#flushed = -1n;
  }

  /**
   * Milliseconds since all was durable; 0: it is. Undefined before that was ever seen.
   * @param heardAt when something came from the server last; undefined: there is no stream
   */
  age(now: number, heardAt: number | undefined): number | undefined {
    const complete = this.#last >= 0n && this.#flushed >= this.#last;
    if (complete && heardAt !== undefined) {
      this.#coveredAt = Math.max(heardAt, this.#coveredAt ?? heardAt);
      if (now - heardAt <= this.#fresh) return 0;
    }
    return this.#coveredAt === undefined ? undefined : now - this.#coveredAt;
  }
}
