import { expect, it } from 'vitest';
import { faultLine } from '../../../src/serve/config/fault.js';
import { parseConfig } from '../../../src/serve/config/read.js';
import { placeBelow } from '../../../src/serve/config/settled.js';

const parse = (text: string) => parseConfig(Buffer.from(text), {});
const faultsOf = async (text: string) =>
  (await parse(text)).faults.map((fault) => faultLine('f', fault).slice(2));

const FULL = `version: 1
web: { listen: "0.0.0.0:8480", token_file: /etc/token, tls: { cert_file: /c, key_file: /k } }
notify:
  heartbeat: { url_file: /etc/ping }
  webhook: { url_file: /etc/hook, on: [gap, rpo] }
stores:
  minio:
    place: s3://wal/all?endpoint=https://minio.example:9000
    access_key_file: /etc/s3.id
    secret_key_file: /etc/s3.key
    compress: zstd:3
    recipients: [age1qqq]
    identity_file: /etc/age
  far: { place: /mnt/far }
defaults:
  rpo: 1m
  stores: { far: {} }
  verify: { quick: "5 * * * *", full: "0 4 * * sun" }
  retention: { window: 14d, redundancy: 2 }
servers:
  shop:
    connection: host=db
    directory: /wal/shop
    stores: { minio: { prefix: shop/a, ack: false, retention: { redundancy: 9, at: "@daily" } }, far: {} }
    backup: { full: "30 1 * * sun", incremental: "30 1 * * mon-sat", max_age: 26h, to: minio }
    rehearse: { at: "0 9 1 * *", from: minio, sql: [select true], timeout: 2h }
    hooks: { before_backup: [/bin/stop, now], after_verify: [/bin/tell] }
  plain: { connection: host=db, directory: /wal/plain, rpo: 5s, stores: { far: { prefix: b } } }
`;

it('reads what is to be done for each server, with defaults', async () => {
  const { config, faults } = await parse(FULL);
  expect(faults).toEqual([]);
  expect(config?.web).toEqual({
    ...{ listen: { host: '0.0.0.0', port: 8480 }, tokenFile: '/etc/token' },
    tls: { certFile: '/c', keyFile: '/k' },
  });
  expect(config?.notify).toEqual({
    heartbeat: { urlFile: '/etc/ping', every: 60_000 },
    webhook: { urlFile: '/etc/hook', on: ['gap', 'rpo'] },
  });
  const verify = { quick: '5 * * * *', full: '0 4 * * sun' };
  const retention = { window: 14 * 86_400_000, redundancy: 2, at: '45 4 * * *' };
  const [shop, plain] = config?.work ?? [];
  expect(shop).toEqual({
    server: config?.servers[0],
    rpo: 60_000,
    stores: [
      {
        name: 'minio',
        place: 's3://wal/all/shop/a?endpoint=https://minio.example:9000',
        ...{ accessKeyFile: '/etc/s3.id', secretKeyFile: '/etc/s3.key' },
        ...{ compress: 'zstd:3', recipients: ['age1qqq'], identityFile: '/etc/age' },
        retention: { redundancy: 9, at: '@daily' },
      },
      { name: 'far', place: '/mnt/far', recipients: [], retention },
    ],
    verify,
    backup: {
      ...{ full: '30 1 * * sun', incremental: '30 1 * * mon-sat', maxAge: 26 * 3_600_000 },
      ...{ to: 'minio', verifyPages: false },
    },
    retention,
    rehearse: { at: '0 9 1 * *', from: 'minio', sql: ['select true'], timeout: 7_200_000 },
    hooks: { before_backup: ['/bin/stop', 'now'], after_verify: ['/bin/tell'] },
  });
  expect(plain).toEqual({
    server: config?.servers[1],
    rpo: 5000,
    stores: [{ name: 'far', place: '/mnt/far/b', recipients: [], retention }],
    ...{ verify, retention, hooks: {} },
  });
});

it('does nothing that is not asked for', async () => {
  const { config } = await parse(
    'version: 1\nservers: { a: { connection: host=db, directory: /a } }',
  );
  const [server] = config?.servers ?? [];
  expect(config?.work).toEqual([{ server, rpo: 30_000, stores: [], verify: {}, hooks: {} }]);
  expect(config?.notify).toEqual({});
});

it.each([
  ['s3://wal', 's3://wal/a/b'],
  ['s3://wal/?region=x', 's3://wal/a/b?region=x'],
  ['ssh://host/dir/', 'ssh://host/dir/a/b'],
  ['/mnt/wal', '/mnt/wal/a/b'],
])('puts a prefix below %s', (place, below) => {
  expect(placeBelow(place, 'a/b')).toBe(below);
  expect(placeBelow(place, undefined)).toBe(place);
});

const WITH = (lines: readonly string[]): string =>
  [
    'version: 1',
    'servers:',
    '  shop:',
    '    connection: host=db',
    '    directory: /wal',
    ...lines,
  ].join('\n');

it.each<readonly [name: string, lines: readonly string[], faults: readonly string[]]>([
  [
    'a page for everybody',
    ['web: { listen: "0.0.0.0:80" }'],
    ['6:16: web.listen: is no loopback address: it needs a "token_file" and "tls"'],
  ],
  [
    'a page for everybody with a token alone',
    ['web: { listen: "[::]:80", token_file: /t }'],
    ['6:16: web.listen: is no loopback address: it needs a "token_file" and "tls"'],
  ],
  [
    'a page with half of TLS',
    ['web: { listen: "localhost:80", tls: { key_file: /k } }'],
    ['6:32: web.tls.cert_file: is missing'],
  ],
  [
    'a schedule that is none',
    ['    verify: { quick: hourly, full: "61 * * * *" }'],
    [
      '6:22: servers.shop.verify.quick: must be a time as cron has it: minute, hour, day, month and day of the week, such as "30 1 * * sun"',
      '6:36: servers.shop.verify.full: must be a time as cron has it: minute, hour, day, month and day of the week, such as "30 1 * * sun"',
    ],
  ],
  [
    'seconds in a schedule',
    ['    verify: { quick: "* * * * * *" }'],
    [
      '6:22: servers.shop.verify.quick: must be a time as cron has it: minute, hour, day, month and day of the week, such as "30 1 * * sun"',
    ],
  ],
  [
    'a day that never comes',
    ['    backup: { full: "0 0 31 2 *" }'],
    ['6:21: servers.shop.backup.full: never comes'],
  ],
  [
    'times without a unit, and of nothing',
    ['    rpo: 30', '    backup: { max_age: 0h }', '    retention: { window: 3y }'],
    [
      '6:10: servers.shop.rpo: must be a string, not a number',
      '7:24: servers.shop.backup.max_age: must be a time in s, m, h, d or w, such as 26h',
      '8:26: servers.shop.retention.window: must be a time in s, m, h, d or w, such as 26h',
    ],
  ],
  [
    'a retention that says nothing',
    ['    retention: { at: "@daily" }'],
    ['6:16: servers.shop.retention: needs a "window", a "redundancy" or both'],
  ],
  [
    'a redundancy of none, and of a half',
    ['    retention: { redundancy: 0 }', 'defaults: { retention: { redundancy: 1.5 } }'],
    [
      '6:30: servers.shop.retention.redundancy: must be at least 1',
      '7:38: defaults.retention.redundancy: must be a whole number',
    ],
  ],
  [
    'stores that are not there',
    [
      '    stores: { minoi: {} }',
      '    backup: { to: minio }',
      '    rehearse: { at: "@daily", from: x }',
      'stores: { minio: { place: s3://wal } }',
    ],
    [
      '6:15: servers.shop.stores.minoi: there is no store "minoi"; did you mean "minio"?',
      '7:19: servers.shop.backup.to: names no store of this server; did you mean "minoi"?',
      '8:37: servers.shop.rehearse.from: names no store of this server',
    ],
  ],
  [
    'one place for two servers',
    [
      '    stores: { a: {}, b: { prefix: x } }',
      '  other: { connection: host=db, directory: /o, stores: { a: {}, b: { prefix: y } } }',
      '  third: { connection: host=db, directory: /t, stores: { b: { prefix: x } } }',
      'stores: { a: { place: "s3://wal/?region=x" }, b: { place: /b } }',
    ],
    [
      '7:58: servers.other.stores.a: "shop" and "other" need a "prefix" each, not one place',
      '8:58: servers.third.stores.b: "shop" and "third" need a "prefix" each, not one place',
    ],
  ],
  [
    'a store in the directory of a server',
    [
      '    stores: { a: { prefix: o }, b: { prefix: ok } }',
      '  other: { connection: host=db, directory: /b/o/, stores: { b: { prefix: t } } }',
      '  third: { connection: host=db, directory: /b/t }',
      'stores: { a: { place: "file:///b/" }, b: { place: /b/./ } }',
    ],
    [
      '6:15: servers.shop.stores.a: is the directory that "other" is received into',
      '7:61: servers.other.stores.b: is the directory that "third" is received into',
    ],
  ],
  [
    'a store of the defaults that is not there',
    ['defaults: { stores: { minio: {} } }'],
    ['6:23: defaults.stores.minio: there is no store "minio"'],
  ],
  [
    'places that are none',
    [
      'stores:',
      '  a: { place: wal }',
      '  b: { place: "ftp://host/x" }',
      '  c: { place: "s3://wal?secret=hush" }',
      '  directory: { place: /x }',
    ],
    [
      '7:15: stores.a.place: must be a URL or an absolute path',
      '8:15: stores.b.place: cannot use the place "ftp://host/x": "ftp" is not known',
      '9:15: stores.c.place: the place s3://… has a secret in it',
      '10:3: stores.directory: no store can be called "directory"',
    ],
  ],
  [
    'half of a key, and a key for a directory',
    [
      'stores:',
      '  a: { place: "s3://wal", access_key_file: /a }',
      '  b: { place: /b, access_key_file: /a, secret_key_file: /b }',
    ],
    [
      '7:27: stores.a.access_key_file: needs a "secret_key_file" beside it',
      '8:19: stores.b.access_key_file: is for places of s3:// only',
    ],
  ],
  [
    'a commit that waits for a store',
    ['    stores: { a: { ack: true } }', 'stores: { a: { place: /a } }'],
    ['6:25: servers.shop.stores.a.ack: must be false'],
  ],
  [
    'a prefix that leads out',
    ['    stores: { a: { prefix: ../b } }', 'stores: { a: { place: /a } }'],
    [
      '6:28: servers.shop.stores.a.prefix: must be a path of letters, digits, ".", "_" and "-", without "/" around it',
    ],
  ],
  [
    'a hook for a shell, and one of no job',
    ['    hooks: { before_backup: [stop], after_lunch: [/x] }'],
    [
      '6:29: servers.shop.hooks.before_backup: must begin with the absolute path of a program',
      '6:37: servers.shop.hooks: unknown key "after_lunch"',
    ],
  ],
  [
    'trouble that is not known',
    ['notify: { webhook: { url_file: /u, on: [gap, all] } }'],
    [
      '6:46: notify.webhook.on[1]: must be gap, rpo, receiver, slot, ship, verify, backup, expire, rehearse or reload',
    ],
  ],
  [
    'a recipient that is none',
    ['stores: { a: { place: /a, recipients: [AGE-SECRET-KEY-1X] } }'],
    ['6:40: stores.a.recipients[0]: must be an age recipient, age1…'],
  ],
])('refuses %s', async (_name, lines, faults) => {
  expect(await faultsOf(`${WITH(lines)}\n`)).toEqual(faults);
});
