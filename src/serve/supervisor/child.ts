import { type Child, launch } from '../child.js';
import type { FromReceiver, ToReceiver } from '../receiver/messages.js';

export type { Child, ChildEnd } from '../child.js';

/** Milliseconds for a receiver to bring to disk what it has. What was confirmed is there already. */
const STOP_GRACE = 30_000;

export type Start = Extract<ToReceiver, { kind: 'start' }>;
/** Begins a receiver's process; `hear` gets all that it says. */
export type Launch = (start: Start, hear: (message: FromReceiver) => void) => Child;

export const launchReceiver: Launch = (start, hear) =>
  launch({ file: 'serve-receiver.cjs', grace: STOP_GRACE }, start, hear);
