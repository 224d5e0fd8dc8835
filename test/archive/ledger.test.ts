import { mkdtemp, readFile, rm, stat, truncate, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import {
  LEDGER_FILE,
  Ledger,
  type LedgerEntry,
  type LedgerState,
  readLedger,
} from '../../src/archive/ledger.js';
import { applyEntry, comesAgain, emptyState, summarize } from '../../src/archive/ledger-entry.js';
import { ParseError, StorageError, SystemIdentifierError, UsageError } from '../../src/errors.js';
import { type Lsn, parseLsn } from '../../src/lsn.js';
import { faultyFileSystem } from '../support/faulty-fs.js';

const SYSTEM = 7_301_234_567_890_123_456n;
const opened: LedgerEntry = {
  type: 'open',
  systemId: SYSTEM,
  segmentSize: 1 << 20,
  version: '0.1.0',
};
const at = (text: string) => parseLsn(text);
const timeline = (id: number, start: string, why = 'first start'): LedgerEntry => ({
  type: 'timeline',
  timeline: id,
  start: at(start),
  why,
});
const complete = (lsn: string, id = 1): LedgerEntry => ({
  type: 'complete',
  lsn: at(lsn),
  timeline: id,
});
const flushed = (lsn: string, id = 1): LedgerEntry => ({
  type: 'flushed',
  lsn: at(lsn),
  timeline: id,
});

let dir: string;
let path: string;
beforeEach(async () => {
  dir = await mkdtemp(join(tmpdir(), 'walkeep-ledger-'));
  path = join(dir, LEDGER_FILE);
});
afterEach(() => rm(dir, { recursive: true }));

async function create(...entries: LedgerEntry[]): Promise<Ledger> {
  const ledger = (await Ledger.open(dir, { create: true })) as Ledger;
  await ledger.append(opened, ...entries);
  return ledger;
}

describe('state', () => {
  it('is absent without a file, and opening alone makes none', async () => {
    expect(await Ledger.open(dir)).toBeUndefined();
    await (await Ledger.open(dir, { create: true }))?.close();
    expect(await readLedger(dir)).toBeUndefined();
  });

  it('survives closing and opening', async () => {
    const ledger = await create(timeline(1, '0/3000000'));
    await ledger.append(complete('0/3100000'), flushed('0/3100500'));
    await ledger.append({
      type: 'gap',
      from: at('0/3100500'),
      to: at('1/0'),
      timeline: 1,
      why: 'accepted by --accept-gap',
    });
    const before = structuredClone(ledger.state);
    await ledger.close();
    const again = await Ledger.open(dir);
    expect(again?.state).toEqual(before);
    expect(await readLedger(dir)).toEqual(before);
    expect(before.systemId).toBe(SYSTEM);
    expect(before.completeLsn).toBe(at('0/3100000'));
    expect(before.end).toBe(at('0/3100500'));
    expect(before.gaps[0]?.to).toBe(at('1/0'));
    expect(before.gaps[0]?.at).toMatch(/^\d{4}-\d\d-\d\dT/);
    await again?.close();
  });

  it('is readable text with LSNs as PostgreSQL prints them', async () => {
    await (await create(timeline(1, '0/3000000'))).close();
    const text = await readFile(path, 'utf8');
    expect(text).toContain(`"systemId":"${SYSTEM}"`);
    expect(text).toContain('"start":"0/3000000"');
    expect((await stat(path)).mode & 0o777).toBe(0o600);
  });

  it('only grows on one timeline', async () => {
    const ledger = await create(timeline(1, '0/3000000'), flushed('0/3200000'));
    await ledger.append(flushed('0/3100000'), timeline(1, '0/3000000', 'slot'));
    expect(ledger.state.end).toBe(at('0/3200000'));
    await ledger.append(timeline(1, '0/5000000', 'accepted gap'));
    expect(ledger.state.end).toBe(at('0/5000000'));
    await ledger.close();
  });

  it('counts anew on another timeline, also below what the old one had reached', async () => {
    const ledger = await create(timeline(1, '0/3000000'), flushed('0/3200000'));
    await ledger.append(timeline(2, '0/3100000', 'switch'));
    expect(ledger.state).toMatchObject({ timeline: 2, end: at('0/3100000') });
    expect(ledger.state.flushedLsn).toBeUndefined();
    await ledger.append(complete('0/3200000', 1));
    expect(ledger.state.end).toBe(at('0/3100000'));
    await ledger.append(flushed('0/3180000', 2));
    expect(ledger.state).toMatchObject({ timeline: 2, end: at('0/3180000') });
    expect(ledger.state.lineage.map((l) => l.why)).toEqual(['first start', 'switch']);
    await ledger.close();
  });

  it('takes another cluster for a mistake and goes on', async () => {
    const ledger = await create();
    const other = ledger.append({ ...opened, systemId: 1n } as LedgerEntry);
    const same = ledger.append(flushed('0/10'));
    await expect(other).rejects.toThrow(SystemIdentifierError);
    await same;
    expect(ledger.state.systemId).toBe(SYSTEM);
    await ledger.close();
    await expect(ledger.append(flushed('0/20'))).rejects.toThrow(UsageError);
  });

  it('begins with an open entry', async () => {
    const ledger = (await Ledger.open(dir, { create: true })) as Ledger;
    await expect(ledger.append(flushed('0/10'))).rejects.toThrow(UsageError);
    await Promise.all([ledger.append(opened), ledger.append(flushed('0/10'))]);
    expect(ledger.state.end).toBe(at('0/10'));
    await ledger.close();
  });
});

describe('the file', () => {
  it('groups what concurrent callers record', async () => {
    const ledger = await create();
    await Promise.all(
      Array.from({ length: 100 }, (_, i) => ledger.append(flushed(`0/${(i + 1).toString(16)}`))),
    );
    expect(ledger.state.flushedLsn).toBe(100n);
    await ledger.close();
    expect((await readFile(path, 'utf8')).split('\n').length).toBeLessThan(6);
  });

  it('stays small while it is appended to, and is compacted at open', async () => {
    const ledger = await create(timeline(1, '0/1'));
    for (let i = 1; i <= 400; i++) {
      await ledger.append(
        ...Array.from({ length: 10 }, (_, k) => complete(`0/${(i * 10 + k).toString(16)}`)),
      );
    }
    const { state } = ledger;
    await ledger.close();
    expect((await stat(path)).size).toBeLessThan(300 * 1024);
    const text = await readFile(path, 'utf8');
    const last = text.slice(text.lastIndexOf('\n', text.length - 2) + 1);
    await writeFile(path, text + last.repeat(400));
    const again = await Ledger.open(dir);
    expect(again?.state).toEqual(state);
    await again?.close();
    expect((await stat(path)).size).toBeLessThan(2000);
    expect(await readLedger(dir)).toEqual(state);
  });

  it('knows what is received again until it is complete once more, also compacted', async () => {
    const again = (from: string, to: string, id = 1): LedgerEntry => ({
      type: 'again',
      from: at(from),
      to: at(to),
      timeline: id,
    });
    const ledger = await create(
      timeline(1, '0/3000000'),
      complete('0/3600000'),
      again('0/3100000', '0/3300000'),
      again('0/3500000', '0/3600000'),
      again('0/3500000', '0/3600000', 2),
      complete('0/3200000'),
    );
    await ledger.close();
    const comes = (state: LedgerState) =>
      ['0/3100000', '0/3200000', '0/32FFFFF', '0/3300000', '0/3500001', '0/3600000'].map((lsn) =>
        comesAgain(state, at(lsn)),
      );
    const expected = [false, true, true, false, true, false];
    const state = (await readLedger(dir)) as LedgerState;
    expect(comes(state)).toEqual(expected);
    const summary = emptyState();
    for (const entry of summarize(state)) applyEntry(summary, entry);
    expect(comes(summary)).toEqual(expected);
    expect(summary.completeLsn).toBe(at('0/3600000'));
    applyEntry(summary, timeline(2, '0/3600000', 'switch'));
    expect(summary.again).toEqual([]);
  });

  it('works without syncing', async () => {
    const ledger = (await Ledger.open(dir, { create: true, sync: false })) as Ledger;
    await ledger.append(opened);
    await ledger.append(flushed('0/10'));
    await ledger.close();
    expect((await readLedger(dir))?.end).toBe(at('0/10'));
  });
});

describe('damage', () => {
  /** A ledger of several lines and its state after each of them. */
  async function sample(): Promise<{ bytes: Buffer; states: LedgerState[] }> {
    const ledger = await create(timeline(1, '0/3000000'));
    const states = [structuredClone(ledger.state)];
    for (const entries of [
      [complete('0/3100000')],
      [flushed('0/3100500'), timeline(2, '0/3100400', 'switch')],
      [flushed('0/3100600', 2)],
    ]) {
      await ledger.append(...entries);
      states.push(structuredClone(ledger.state));
    }
    await ledger.close();
    return { bytes: await readFile(path), states };
  }

  it('cut anywhere, opens with what stood before, or refuses the first line', async () => {
    const { bytes, states } = await sample();
    for (let size = 0; size < bytes.length; size++) {
      await writeFile(path, bytes.subarray(0, size));
      const lines = bytes.subarray(0, size).toString().split('\n').length - 1;
      if (lines === 0) {
        await expect(Ledger.open(dir, { sync: false })).rejects.toThrow(StorageError);
        continue;
      }
      const ledger = await Ledger.open(dir, { sync: false });
      expect(ledger?.state).toEqual(states[lines - 1]);
      await ledger?.append(flushed('1/0', 9));
      await ledger?.close();
      // The torn line is gone: what follows is intact.
      expect((await readLedger(dir))?.end).toBe(at('1/0'));
    }
  }, 120_000);

  it('tolerates a last line of which not every block was written', async () => {
    const { bytes, states } = await sample();
    const torn = Buffer.from(bytes);
    torn.fill(0, bytes.length - 40, bytes.length - 20);
    await writeFile(path, torn);
    expect(await readLedger(dir)).toEqual(states.at(-2));
    await writeFile(path, Buffer.concat([bytes, Buffer.alloc(100)]));
    expect(await readLedger(dir)).toEqual(states.at(-1));
  });

  it('refuses any flipped bit with a hint, and changes nothing', async () => {
    const { bytes } = await sample();
    // The last byte is the newline: without it the last line counts as torn.
    for (let i = 0; i < bytes.length - 1; i++) {
      const flipped = Buffer.from(bytes);
      flipped[i] = (flipped[i] as number) ^ 0x04;
      await writeFile(path, flipped);
      const error = await Ledger.open(dir, { sync: false }).catch((e) => e);
      expect(error).toBeInstanceOf(StorageError);
      expect(error.hint).toMatch(/copy/);
      expect((await readFile(path)).equals(flipped)).toBe(true);
    }
  }, 120_000);

  it('refuses damage before the last line', async () => {
    const { bytes } = await sample();
    const lines = bytes.toString().split('\n');
    await writeFile(path, [lines[0], lines[1]?.slice(5), ...lines.slice(2)].join('\n'));
    await expect(readLedger(dir)).rejects.toThrow(/damaged/);
  });

  it('says that it is a newer version', async () => {
    const { encodeLine } = await import('../../src/archive/ledger-entry.js');
    await writeFile(path, encodeLine([opened, { type: 'future' } as unknown as LedgerEntry]));
    const error = await readLedger(dir).catch((e) => e);
    expect(error).toMatchObject({
      code: 'WK_STORAGE',
      detail: expect.stringContaining('unknown entry "future"'),
      hint: 'A newer walkeep wrote it; use that version.',
    });
    // It is none that is damaged, and nobody should remove it.
    expect(error.message).not.toContain('damaged');
  });

  it.each<[string, unknown]>([
    ['no position', [opened, { type: 'flushed', timeline: 1 }]],
    ['a position that is none', [opened, { type: 'complete', timeline: 1, lsn: 7 }]],
    ['a timeline that is text', [opened, { ...timeline(1, '0/1'), timeline: '1' }]],
    ['the name of a method as type', [opened, { type: 'toString' }]],
    ['null for an entry', [null]],
    ['no list', 5],
  ])('refuses a line whose checksum is right, but that has %s', async (_what, entries) => {
    const { decodeLine, encodeLine } = await import('../../src/archive/ledger-entry.js');
    const line = encodeLine(entries as LedgerEntry[]);
    expect(() => decodeLine(line.trimEnd())).toThrow(ParseError);
    await writeFile(path, line);
    await expect(readLedger(dir)).rejects.toThrow(StorageError);
  });

  it('refuses an emptied file', async () => {
    await sample();
    await truncate(path, 0);
    await expect(readLedger(dir)).rejects.toThrow(StorageError);
  });
});

describe('a disk that fails', () => {
  /** A ledger whose next call of `op` fails once, as the disk would. */
  const failing = async (code: string, op: 'fdatasync' | 'writev') => {
    let armed = false;
    const { fs } = faultyFileSystem((call) => {
      if (!armed || call.op !== op) return undefined;
      armed = false;
      return { errno: code };
    });
    const ledger = (await Ledger.open(dir, { create: true, fs })) as Ledger;
    await ledger.append(opened, timeline(1, '0/10'));
    armed = true;
    return { ledger, error: await ledger.append(flushed('0/20')).catch((e) => e) };
  };

  it('a failed fsync is fatal and stays so', async () => {
    const { ledger, error } = await failing('EIO', 'fdatasync');
    expect(error).toMatchObject({ code: 'WK_FSYNC' });
    await expect(ledger.append(flushed('0/30'))).rejects.toMatchObject({ code: 'WK_FSYNC' });
    expect(ledger.state.end).toBe(at('0/10'));
    await ledger.close();
    // A new process goes on, with a new file.
    const again = await Ledger.open(dir);
    await again?.append(flushed('0/40'));
    await again?.close();
    expect((await readLedger(dir))?.end).toBe(at('0/40'));
  });

  it.each(['fdatasync', 'writev'] as const)('a full disk passes (%s)', async (op) => {
    const { ledger, error } = await failing('ENOSPC', op);
    expect(error).toMatchObject({ code: 'WK_DISK_FULL' });
    expect(ledger.state.end).toBe(at('0/10'));
    await ledger.append(flushed('0/18' as string));
    expect(ledger.state.end).toBe(at('0/18') as Lsn);
    await ledger.close();
    expect((await readLedger(dir))?.end).toBe(at('0/18'));
  });
});
