/**
 * Hands what comes in calls over to who takes it with `for await`. Who puts something in waits until
 * all of it was taken, so that no more than one batch lies between them.
 */
export class HandOver<T> {
  private batch: T[] = [];
  private ended = false;
  private error: unknown;
  private taken: (() => void) | undefined;
  private came: (() => void) | undefined;

  /** Adds to the batch; to be followed by `settled` before long. */
  add(item: T): void {
    this.batch.push(item);
  }

  /** Resolves when all that was added has been taken, or nobody takes any more. */
  async settled(): Promise<void> {
    if (this.batch.length === 0 || this.ended) return;
    await new Promise<void>((resolve) => {
      this.taken = resolve;
      this.came?.();
    });
  }

  /** Nothing more comes. With an error: who takes gets it behind what is left. */
  end(error?: unknown): void {
    this.ended = true;
    this.error ??= error;
    this.came?.();
    this.taken?.();
  }

  /** All that is added, until the end. @throws what `end` was given */
  async *items(): AsyncGenerator<T, void, undefined> {
    for (;;) {
      const { batch } = this;
      this.batch = [];
      yield* batch;
      if (batch.length > 0) continue;
      this.taken?.();
      this.taken = undefined;
      if (this.ended) break;
      await new Promise<void>((resolve) => {
        this.came = resolve;
      });
    }
    if (this.error !== undefined) throw this.error;
  }
}
