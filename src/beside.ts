/** Tells a process what it is: the channel may be closed before it looks. */
const BESIDE = 'WALKEEP_BESIDE';

let isChild: boolean | undefined;

/**
 * Whether another process of ours began this one, by a channel, to work beside it: then this one ends
 * with it, and the signals of a terminal or a service manager, which reach it, too, are the other's.
 */
export function isBeside(): boolean {
  isChild ??= process.env[BESIDE] === '1';
  // What this one begins is none of it.
  delete process.env[BESIDE];
  return isChild;
}

/** The environment of a process that is begun so. */
export function besideEnvironment(env: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  return { ...env, [BESIDE]: '1' };
}

/**
 * Calls back when the other process is gone, however it ended, or closed the channel.
 * @returns what takes that back: as long as it stands it keeps the process alive
 */
export function onParentGone(gone: () => void): () => void {
  if (!process.connected) {
    gone();
    return () => {};
  }
  process.once('disconnect', gone);
  return () => void process.off('disconnect', gone);
}

const ignore = (): void => {};

/** Those of a terminal or a service manager are for the other process. */
export function ignoreSignals(): void {
  process.on('SIGINT', ignore).on('SIGTERM', ignore).on('SIGHUP', ignore);
}

/** An error that the command reports, as it tells the other process. */
export interface ToldError {
  kind: 'error';
  code?: string;
  message: string;
  detail?: string;
  hint?: string;
}

/** Tells the other process, if there is one that listens. */
export function tellParent(message: ToldError): void {
  if (process.connected) process.send?.(message, undefined, undefined, () => {});
}
