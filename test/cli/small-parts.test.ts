import { describe, expect, it } from 'vitest';
import { renderHelp } from '../../src/cli/help.js';
import { formatBytes, ProgressMeter } from '../../src/cli/progress.js';
import { LineReader } from '../../src/cli/prompt.js';
import { parseEndPosition } from '../../src/cli/receive-spec.js';
import { toLsn } from '../../src/lsn.js';

describe('LineReader', () => {
  it.each<[string[], { line: string } | 'interrupted' | undefined]>([
    [['secret\r'], { line: 'secret' }],
    [['se', 'cret', '\n'], { line: 'secret' }],
    [['x\x7fy\b\x7f\x7fz\r'], { line: 'z' }],
    [['p😀\x7fq\r'], { line: 'pq' }],
    [['wrong\x15right\r'], { line: 'right' }],
    [['\x04'], { line: '' }],
    [['half\x03'], 'interrupted'],
    [['half'], undefined],
  ])('%j gives %j', (chunks, expected) => {
    const reader = new LineReader();
    expect(chunks.map((c) => reader.feed(c)).at(-1)).toEqual(expected);
  });

  it('keeps what came before the end of the input', () => {
    const reader = new LineReader();
    reader.feed('abc');
    expect(reader.end()).toBe('abc');
  });
});

describe('parseEndPosition', () => {
  it('reads both spellings, and 0/0 as none', () => {
    expect(parseEndPosition('1/0000000a')).toBe(0x1_0000_000an);
    expect(parseEndPosition(' 1/A')).toBe(0x1_0000_000an);
    expect(parseEndPosition('0/0')).toBeUndefined();
  });

  it('refuses what follows a position', () => {
    expect(() => parseEndPosition('0/1x')).toThrow('could not parse end position "0/1x"');
  });
});

describe('formatBytes', () => {
  it.each([
    [0, '0 B'],
    [999, '999 B'],
    [1000, '1.0 kB'],
    [999_960, '1.0 MB'],
    [16_777_216, '16.8 MB'],
    [5e15, '5000.0 TB'],
  ])('%d is %s', (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text);
  });
});

describe('ProgressMeter', () => {
  it('takes a step back, after a reconnect, for no rate', () => {
    const meter = new ProgressMeter();
    const at = (n: bigint) =>
      meter.positions({
        received: toLsn(n),
        written: toLsn(n),
        flushed: toLsn(n),
        serverEnd: toLsn(n),
        timeline: 1,
      });
    expect(meter.line(0)).toBeUndefined();
    at(2000n);
    meter.line(0);
    at(1000n);
    expect(meter.line(1000)).toContain(' 0 B/s');
    at(3000n);
    expect(meter.line(2000)).toContain(' 2.0 kB/s');
  });
});

describe('renderHelp', () => {
  it('folds long descriptions and puts long options on a line of their own', () => {
    const text = renderHelp(
      [
        { long: 'a', short: 'a', group: 'G:', help: 'word '.repeat(20).trim() },
        { long: 'very-long-option-name', argument: 'ARG', group: 'G:', help: 'x', default: '1' },
      ],
      { intro: 'I', usage: 'p [OPTION]...', closing: 'C' },
    );
    expect(text).toBe(
      `I\n\nUsage:\n  p [OPTION]...\n\nG:\n  -a, --a                ${'word '.repeat(11).trim()}\n${' '.repeat(25)}${'word '.repeat(9).trim()}\n` +
        `      --very-long-option-name=ARG\n${' '.repeat(25)}x (default: 1)\n\nC\n`,
    );
  });
});
