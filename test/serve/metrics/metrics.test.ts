import { connect } from 'node:net';
import { afterEach, expect, it } from 'vitest';
import { MetricsListener } from '../../../src/serve/metrics/listener.js';
import { metricsOf } from '../../../src/serve/metrics/metrics.js';
import type { ServerStatus } from '../../../src/serve/status.js';

const open: MetricsListener[] = [];
afterEach(async () => {
  for (const listener of open.splice(0)) await listener.close();
});

const statusOf = (more: Partial<ServerStatus>): ServerStatus => ({
  ...{ name: 'shop', state: 'streaming', since: '2026-01-01T00:00:00.000Z', directory: '/d' },
  ...{ restarts: 2, rpoSeconds: 0, totals: { segments: 7, connections: 3 } },
  rpoLimitSeconds: 30,
  receiver: {
    ...{ state: 'streaming', segments: 1, connections: 1 },
    position: {
      ...{ received: '0/30', written: '0/20', flushed: '0/10', serverEnd: '1/10', timeline: 1 },
    },
    members: {
      'db2:5432': { covers: true, message: 'yes' },
      'evil"\n{x}': { covers: null, message: 'away' },
    },
  },
  ...more,
});

async function listening(servers: ServerStatus[], good = true) {
  const facts = { servers: () => servers, configIsGood: () => good };
  const listener = await MetricsListener.open({ host: '127.0.0.1', port: 0 }, facts);
  open.push(listener);
  const get = async (path: string, init?: RequestInit) => {
    const response = await fetch(`http://127.0.0.1:${listener.port}${path}`, init);
    const { status, headers } = response;
    return { status, type: headers.get('content-type'), text: await response.text() };
  };
  return { listener, get };
}

/** Without the clock, which goes on. */
const values = (text: string) =>
  text.split('\n').filter((line) => /^walkeep/.test(line) && !/^walkeep_clock/.test(line));

it('tells of each server', async () => {
  const { get } = await listening([
    statusOf({}),
    statusOf({ name: 'gone', state: 'held', rpoSeconds: 12.5, receiver: undefined as never }),
  ]);
  const { status, type, text } = await get('/metrics');
  expect({ status, type }).toEqual({
    status: 200,
    type: expect.stringContaining('text/plain; version=0.0.4'),
  });
  expect(values(text)).toEqual(
    expect.arrayContaining([
      'walkeep_up{server="shop"} 1',
      'walkeep_up{server="gone"} 0',
      'walkeep_rpo_seconds{server="shop"} 0',
      'walkeep_rpo_seconds{server="gone"} 12.5',
      `walkeep_server_lsn_bytes{server="shop"} ${2 ** 32 + 16}`,
      'walkeep_flushed_lsn_bytes{server="shop"} 16',
      `walkeep_unprotected_bytes{server="shop"} ${2 ** 32}`,
      'walkeep_segments_completed_total{server="shop"} 7',
      'walkeep_receiver_restarts_total{server="shop"} 2',
      'walkeep_receiver_state{server="gone",state="held"} 1',
      'walkeep_receiver_state{server="gone",state="streaming"} 0',
      'walkeep_member_slot_covers{server="shop",member="db2:5432"} 1',
      'walkeep_member_slot_covers{server="shop",member="evil\\"\\n{x}"} 0',
      'walkeep_config_last_reload_successful 1',
    ]),
  );
  // Of what is not known there is no number, which would be taken for one.
  expect(text).not.toContain('walkeep_flushed_lsn_bytes{server="gone"}');
  const before = values(text);
  expect(values((await get('/metrics')).text)).toEqual(before);
});

it('counts over all processes of a receiver, and in buckets', async () => {
  const counts = {
    ...{ receivedBytes: 5e9, refused: 2, reconnects: { WK_TIMEOUT: 3 }, diverged: { 1: 8192 } },
    syncs: { bounds: [0.001, 0.01], counts: [5, 2, 1], seconds: 0.25 },
  };
  const { get } = await listening([statusOf({ counts }), statusOf({ name: 'new' })]);
  const { text } = await get('/metrics');
  expect(values(text)).toEqual(
    expect.arrayContaining([
      'walkeep_received_bytes_total{server="shop"} 5000000000',
      'walkeep_received_bytes_total{server="new"} 0',
      'walkeep_refused_wal_total{server="shop"} 2',
      'walkeep_reconnects_total{server="shop",code="WK_TIMEOUT"} 3',
      'walkeep_timeline_diverged_bytes{server="shop",timeline="1"} 8192',
    ]),
  );
  expect(values(text).filter((line) => line.includes('sync_duration'))).toEqual([
    'walkeep_sync_duration_seconds_bucket{le="0.001",server="shop"} 5',
    'walkeep_sync_duration_seconds_bucket{le="0.01",server="shop"} 7',
    'walkeep_sync_duration_seconds_bucket{le="+Inf",server="shop"} 8',
    'walkeep_sync_duration_seconds_sum{server="shop"} 0.25',
    'walkeep_sync_duration_seconds_count{server="shop"} 8',
  ]);
});

it('tells of jobs, limits and troubles', async () => {
  const at = { startedAt: '2026-01-01T00:00:00.000Z', endedAt: '2026-01-01T00:00:01.000Z' };
  const status = statusOf({
    jobs: [
      {
        ...{ job: 'verify_full', place: 'minio', state: 'running' },
        last: { ...at, outcome: 'bad', by: 'schedule', findings: 4 },
      },
      { job: 'expire', place: 'directory', state: 'waiting', lastSuccess: at.endedAt },
    ],
    backupLimitSeconds: 93_600,
    archive: {
      ...{ readAt: at.endedAt, segments: 0, bytes: 0, timelines: [], gaps: [], windows: [] },
      ...{ backups: [], places: [], besideWindows: [] },
    },
    troubles: [{ kind: 'verify', severity: 'critical', text: '', since: at.endedAt }],
  });
  const { get } = await listening([status]);
  const { text } = await get('/metrics');
  expect(values(text)).toEqual(
    expect.arrayContaining([
      'walkeep_rpo_limit_seconds{server="shop"} 30',
      'walkeep_backup_limit_seconds{server="shop"} 93600',
      'walkeep_backup_newest_timestamp_seconds{server="shop"} 0',
      'walkeep_verify_findings{server="shop",task="verify_full",place="minio"} 4',
      'walkeep_job_running{server="shop",task="verify_full",place="minio"} 1',
      'walkeep_job_last_outcome{server="shop",task="verify_full",place="minio",outcome="bad"} 1',
      'walkeep_job_last_outcome{server="shop",task="verify_full",place="minio",outcome="good"} 0',
      `walkeep_job_last_success_timestamp_seconds{server="shop",task="expire",place="directory"} ${Date.parse(at.endedAt) / 1000}`,
      'walkeep_trouble{server="shop",kind="verify"} 1',
      'walkeep_trouble{server="shop",kind="gap"} 0',
    ]),
  );
  // What never ended has no outcome.
  expect(text).not.toContain('job_last_outcome{server="shop",task="expire"');
  expect(text).not.toContain('verify_last_success_timestamp_seconds{server');
});

it('asks for all servers once a scrape', async () => {
  let asked = 0;
  const registry = metricsOf({
    servers: () => {
      asked += 1;
      return [statusOf({})];
    },
    configIsGood: () => true,
  });
  await registry.metrics();
  expect(asked).toBe(1);
  await registry.metrics();
  expect(asked).toBe(2);
});

it('forgets a server that is not there any more', async () => {
  const servers = [statusOf({})];
  const { get } = await listening(servers);
  expect((await get('/metrics')).text).toContain('server="shop"');
  servers.length = 0;
  expect((await get('/metrics')).text).not.toContain('server="shop"');
});

it('is alive whatever the servers are, and ready when each receiver has begun', async () => {
  const servers = [statusOf({}), statusOf({ name: 'new', state: 'starting' })];
  const { get } = await listening(servers);
  expect(await get('/livez')).toMatchObject({ status: 200, text: 'ok\n' });
  expect(await get('/readyz')).toMatchObject({ status: 503, text: 'new: starting\n' });
  servers[1] = statusOf({ name: 'new', state: 'disconnected' });
  expect(await get('/readyz')).toMatchObject({ status: 200, text: 'ok\n' });
});

it('answers nothing else', async () => {
  const { get, listener } = await listening([]);
  for (const path of ['/', '/metrics/', '/health', '/constructor', '/__proto__']) {
    expect((await get(path)).status).toBe(404);
  }
  expect((await get('/metrics', { method: 'POST', body: 'x' })).status).toBe(405);
  expect(await get('/metrics', { method: 'HEAD' })).toMatchObject({ status: 200, text: '' });
  const socket = connect(listener.port, '127.0.0.1', () => socket.write('no http\r\n\r\n'));
  await new Promise((resolve) =>
    socket
      .resume()
      .on('error', () => {})
      .on('close', resolve),
  );
  expect((await get('/livez')).status).toBe(200);
});

it('says where it cannot listen', async () => {
  const { listener } = await listening([]);
  const again = MetricsListener.open(
    { host: '127.0.0.1', port: listener.port },
    { servers: () => [], configIsGood: () => true },
  );
  await expect(again).rejects.toThrow(
    `could not listen on "127.0.0.1", port ${listener.port}: Address already in use`,
  );
});
