import { type Child, launch } from '../child.js';
import type { FromShipper, ShipTask } from './messages.js';

/** Milliseconds for a process to end: it leaves all that is under way. */
const STOP_GRACE = 10_000;
/** Garbage of compression is collected soon. */
const SMALL = '--max-semi-space-size=1';

/** Begins a process that ships; `hear` gets all that it says. */
export type LaunchShipper = (task: ShipTask, hear: (message: FromShipper) => void) => Child;

export const launchShipper: LaunchShipper = (task, hear) =>
  launch(
    { file: 'serve-shipper.cjs', grace: STOP_GRACE, node: [SMALL] },
    { kind: 'start', task },
    hear,
  );
