import { MessageChannel } from 'node:worker_threads';

/** Below that a buffer may lie in memory that others share, and frees nothing worth a call. */
const LEAST = 256 * 1024;

/** Since Node.js 22 (ECMAScript 2024). */
type Transferable = ArrayBuffer & { transfer?(length: number): ArrayBuffer };

/**
 * Gives memory back at once that nobody looks at any more: the garbage collector of a thread leaves
 * up to 64 MB of large buffers until it looks at them. Every view of it is empty afterwards.
 * Of shared memory, and of a view of a part, nothing is freed.
 */
export function freeMemory(bytes: Uint8Array): void {
  const { buffer } = bytes;
  // Whoever decompresses in one step leaves a byte behind what came out.
  const isOwn = bytes.byteOffset === 0 && bytes.length >= buffer.byteLength - 1;
  if (!(buffer instanceof ArrayBuffer) || !isOwn || bytes.length < LEAST) return;
  const { transfer } = buffer as Transferable;
  if (transfer) {
    transfer.call(buffer, 0);
    return;
  }
  // What is sent to nobody is freed.
  const { port1, port2 } = new MessageChannel();
  port2.close();
  port1.postMessage(undefined, [buffer]);
  port1.close();
}
