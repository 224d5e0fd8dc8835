/**
 * A synchronous standby that appends WAL to one file: `node custom-sink.js CONNINFO DIRECTORY`.
 * The file's name is the LSN of its first byte, so its size says where to go on after any crash.
 */
import { open, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { formatLsn, type Lsn, streamWal, toLsn, WalkeepError, type WalSink } from 'walkeep';

const [connection = '', directory = '.'] = process.argv.slice(2);

class FileSink implements WalSink {
  private file: Awaited<ReturnType<typeof open>> | undefined;
  /** End of what the file holds. */
  end: Lsn | undefined;

  async resume(): Promise<void> {
    const name = (await readdir(directory)).find((file) => /^[0-9A-F]{16}\.wal$/.test(file));
    if (name === undefined) return;
    this.file = await open(join(directory, name), 'a');
    const { size } = await this.file.stat();
    // A crash may have left bytes that were written and not synced.
    await this.file.sync();
    this.end = toLsn(BigInt(`0x${name.slice(0, 16)}`) + BigInt(size));
  }

  async write(chunk: Buffer, lsn: Lsn): Promise<void> {
    this.file ??= await this.create(lsn);
    await this.file.appendFile(chunk);
    this.end = toLsn(lsn + BigInt(chunk.length));
  }

  async flush(): Promise<void> {
    await this.file?.datasync();
  }

  private async create(lsn: Lsn) {
    const name = `${lsn.toString(16).toUpperCase().padStart(16, '0')}.wal`;
    const file = await open(join(directory, name), 'ax');
    const folder = await open(directory);
    await folder.sync().finally(() => folder.close());
    return file;
  }
}

const stop = new AbortController();
process.once('SIGINT', () => stop.abort());
const sink = new FileSink();
await sink.resume();
while (!stop.signal.aborted) {
  try {
    const startLsn = sink.end === undefined ? {} : { startLsn: sink.end };
    const end = await streamWal({ connection, ...startLsn }, sink, stop.signal);
    console.log(`stopped at ${formatLsn(end)}`);
  } catch (error) {
    if (!(error instanceof WalkeepError && error.retryable)) throw error;
    console.error(`${error.message}; trying again`);
    await delay(1000, undefined, { signal: stop.signal }).catch(() => {});
  }
}
