import fc from 'fast-check';
import { describe, expect, it } from 'vitest';
import { paramsOf } from '../../../src/serve/restore/builder.js';
import { readQuery } from '../../../src/serve/restore/query.js';
import { workOf } from './works.js';

const work = workOf('/srv/wal', [{ name: 'minio' }, { name: 'away' }]);

const read = (params: string | [string, string][] | Record<string, string>) =>
  readQuery(new URLSearchParams(params), work);
const query = (params: Parameters<typeof read>[0]) => {
  const found = read(params);
  if ('faults' in found) throw new Error(JSON.stringify(found.faults));
  return found.query;
};
const faults = (params: Parameters<typeof read>[0]) => {
  const found = read(params);
  return 'faults' in found ? found.faults : [];
};

describe('what is asked', () => {
  it('is the end of the archive, of all places, unless something is said', () => {
    expect(query('')).toEqual({
      ...{ to: 'latest', before: false, from: ['directory', 'minio', 'away'] },
      dataDir: '/var/lib/postgresql/data',
    });
    expect(query({ to: ' ', timeline: '', backup: '', pgdata: '' })).toEqual(query(''));
  });

  it('is a time in UTC unless it has a zone, whatever this machine has', () => {
    for (const to of ['2026-03-29 02:30', '2026-03-29T02:30', '2026-03-29 04:30+02']) {
      expect(query({ to }).to).toBe('2026-03-29 02:30:00.000000+00');
    }
    expect(query({ to: '2026-08-01' }).to).toBe('2026-08-01 00:00:00.000000+00');
    expect(query({ to: '2026-08-01 12:00:00.5Z' }).to).toBe('2026-08-01 12:00:00.500000+00');
  });

  it('is an LSN, a transaction, a name, or the end of a backup', () => {
    expect(query({ to: '0/3a5f2e8', before: 'on' })).toMatchObject({
      to: '0/3A5F2E8',
      before: true,
    });
    expect(query({ to: 'xid:771' }).to).toBe('xid:771');
    expect(query({ to: 'name:a b ' }).to).toBe('name:a b ');
    const backup = '20260801T000000F-0a0a0a';
    expect(query({ to: 'immediate', backup, timeline: '3' })).toMatchObject({
      backup,
      timeline: 3,
    });
  });

  it('has places in their own order, the directory first', () => {
    const from = (...names: string[]) => names.map((name): [string, string] => ['from', name]);
    expect(query(from('away', 'directory')).from).toEqual(['directory', 'away']);
    expect(faults(from('elsewhere'))).toEqual([
      { field: 'from', message: 'is no place of this server' },
    ]);
  });

  it('has no action where there is none to choose', () => {
    expect(query({ to: 'latest', action: 'shutdown' })).not.toHaveProperty('action');
    expect(query({ to: '0/1', action: 'promote' }).action).toBe('promote');
  });

  it('comes back from what a link has', () => {
    const one = query({
      to: 'name:ü & "x"',
      pgdata: "/data/it's",
      from: 'minio',
      action: 'promote',
    });
    expect(readQuery(paramsOf(one), work)).toEqual({ query: one });
  });
});

describe('what cannot be asked', () => {
  it.each([
    [{ to: '--restore-command=x' }, 'to'],
    [{ to: 'yesterday' }, 'to'],
    [{ to: 'latest', before: 'on' }, 'to'],
    [{ to: '2026-02-30 12:00' }, 'to'],
    [{ to: 'xid:0' }, 'to'],
    [{ to: `name:${'x'.repeat(64)}` }, 'to'],
    [{ to: 'name:a\nb' }, 'to'],
    [{ to: 'name:\u202ex' }, 'to'],
    [{ to: 'x'.repeat(300) }, 'to'],
    [{ before: 'maybe', to: '0/1' }, 'before'],
    [{ timeline: '0' }, 'timeline'],
    [{ timeline: '-1' }, 'timeline'],
    [{ timeline: '4294967296' }, 'timeline'],
    [{ backup: '../../etc' }, 'backup'],
    [{ pgdata: '--delta' }, 'pgdata'],
    [{ pgdata: 'data' }, 'pgdata'],
    [{ pgdata: '/data\n/x' }, 'pgdata'],
    [{ pgdata: '/srv/wal/data' }, 'pgdata'],
    [{ pgdata: '/srv' }, 'pgdata'],
    [{ action: 'rm' }, 'action'],
    [{ delta: 'on' }, undefined],
    ['to=latest&to=0/1', 'to'],
  ] as [Record<string, string> | string, string | undefined][])('%j', (params, field) => {
    expect(faults(params).map((fault) => fault.field)).toContain(field);
  });

  it('is told without what was asked', () => {
    for (const { message } of faults({ to: '<b>x</b>', pgdata: '<i>' })) {
      expect(message).not.toContain('<');
    }
  });

  it('never throws, and lets nothing through that is not one argument', () => {
    const text = fc.oneof(
      fc.string(),
      fc.string({ unit: 'binary' }),
      fc.constantFrom('latest', '0/1'),
    );
    const fields = fc.constantFrom(
      'to',
      'before',
      'timeline',
      'backup',
      'from',
      'pgdata',
      'action',
    );
    fc.assert(
      fc.property(fc.array(fc.tuple(fields, text), { maxLength: 6 }), (params) => {
        const found = read(params as [string, string][]);
        if ('faults' in found) return;
        const { to, dataDir, backup = '' } = found.query;
        for (const one of [to, dataDir, backup]) expect(one).not.toMatch(/^-|\p{Cc}/u);
        expect(dataDir.startsWith('/')).toBe(true);
      }),
      { numRuns: 2000 },
    );
  });
});
