import type fc from 'fast-check';

/** One way into the program that takes what strangers wrote. */
export interface Target {
  name: string;
  /** Inputs of this target in a thousand of all. */
  share: number;
  /** Feeds so many generated inputs. Rejects with the counterexample. */
  run(count: number, seed: number, began: () => void): Promise<void>;
}

/** Lets the event loop turn: what was rejected and not handled is reported before. */
export const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

/** Weights for fast-check, so that damaged valid input comes as often as noise. */
export type Arbitrary<T> = fc.Arbitrary<T>;
