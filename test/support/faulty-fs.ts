import { type FileSystem, nodeFileSystem } from '../../src/files/file-system.js';

type Call = { op: keyof FileSystem; args: readonly unknown[] };

/** Calls that report an error by rejecting. */
const ASYNC: ReadonlySet<string> = new Set(
  Object.keys(nodeFileSystem).filter((op) => !op.endsWith('Sync')),
);

/** What a fault does instead of the call: throw this errno, or let the call take fewer bytes. */
export type Fault = { errno: string } | { take: number };

/**
 * The real file system, with every call logged and faults injected where `decide` says so. It is
 * asked before each call.
 */
export function faultyFileSystem(decide: (call: Call) => Fault | undefined = () => undefined) {
  const log: string[] = [];
  const wrapped = Object.fromEntries(
    (Object.keys(nodeFileSystem) as (keyof FileSystem)[]).map((op) => {
      const real = nodeFileSystem[op] as (...args: unknown[]) => unknown;
      const call = (...args: unknown[]) => {
        const fault = decide({ op, args });
        const names = args
          .filter((a) => typeof a === 'string')
          .map((a) => (a as string).split('/').at(-1));
        log.push([op, ...names].join(' '));
        if (fault && 'errno' in fault) {
          const error = Object.assign(new Error(fault.errno), { code: fault.errno });
          if (ASYNC.has(op)) return Promise.reject(error);
          throw error;
        }
        if (fault && (op === 'writevSync' || op === 'writev')) {
          const buffers = args[1] as Uint8Array[];
          // One buffer stays where it is: direct I/O asks for aligned memory.
          const all = buffers.length === 1 ? (buffers[0] as Uint8Array) : Buffer.concat(buffers);
          return real(args[0], [all.subarray(0, fault.take)], args[2]);
        }
        return real(...args);
      };
      return [op, call];
    }),
  ) as unknown as FileSystem;
  return { fs: wrapped, log };
}
