import { expect, test } from 'vitest';
import { readStory } from '../../src/rehearse/server-log.js';

const RESTORED = `2026-11-28 07:16:05.1 GMT LOG:  restored log file "000000010000000000000008" from archive
2026-11-28 07:16:05.2 GMT LOG:  restored log file "000000010000000000000009" from archive
2026-11-28 07:16:05.2 GMT LOG:  restored log file "00000002.history" from archive
`;

test('segments that came and the stop at the target are seen', () => {
  const line = '2026-11-28 07:16:05.3 GMT LOG:  recovery stopping after WAL location (LSN) "0/1"\n';
  expect(readStory(RESTORED)).toMatchObject({ restored: 2, stopping: false, failure: undefined });
  expect(readStory(RESTORED + line)).toMatchObject({ restored: 2, stopping: true });
});

test.each([
  [201, false],
  [203, false],
  [126, true],
  [205, true],
  [127, true],
])('a fetch that ends with %i: it is this machine: %s', (code, machine) => {
  const story = readStory(`${RESTORED}walkeep: error: why
2026-11-28 07:16:05.3 GMT FATAL:  could not restore file "00000001000000000000000A" from archive: child process exited with exit code ${code}
2026-11-28 07:16:05.4 GMT LOG:  database system is shut down
`);
  expect(story).toMatchObject({ machine, fetch: 'why' });
  expect(story.failure).toMatch(/^could not restore file/);
});

test('what the machine lacks is not what the archive lacks', () => {
  const fatal = (text: string) => readStory(`2026-11-28 07:16:05.3 GMT FATAL:  ${text}\n`).machine;
  expect(fatal('could not map anonymous shared memory: Cannot allocate memory')).toBe(true);
  expect(fatal('could not create semaphores: No space left on device')).toBe(true);
  expect(fatal('recovery ended before configured recovery target was reached')).toBe(false);
  expect(fatal('could not locate required checkpoint record at 0/2000060')).toBe(false);
});
