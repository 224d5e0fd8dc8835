import { describe, expect, it } from 'vitest';
import { Access, isLocalName, isLoopback } from '../../../src/serve/web/access.js';

const TOKEN = '0123456789abcdef0123456789abcdef';
const bearer = (token: string) => ({ authorization: `Bearer ${token}` });
const HERE = '192.0.2.1';

describe('a token', () => {
  it('lets in whoever gives it, and nobody else', () => {
    const access = new Access(TOKEN, true);
    expect(access.admits({}, HERE, 0)).toBe('no');
    expect(access.admits({ authorization: `Basic ${TOKEN}` }, HERE, 0)).toBe('no');
    expect(access.admits(bearer(TOKEN), HERE, 0)).toBe('yes');
    expect(access.admits(bearer(`${TOKEN}0`), HERE, 0)).toBe('no');
  });

  it('is not even looked at for a while after a wrong one, longer each time', () => {
    const access = new Access(TOKEN, true);
    const waits: number[] = [];
    let now = 0;
    for (let i = 0; i < 8; i += 1) {
      expect(access.judge('wrong', HERE, now)).toBe('no');
      expect(access.judge(TOKEN, HERE, now + 1)).toBe('wait');
      const seconds = access.waitSeconds(HERE, now);
      waits.push(seconds);
      now += seconds * 1000;
    }
    expect(waits).toEqual([1, 2, 4, 8, 16, 30, 30, 30]);
    // Others are not in the way of it, and it is good again in the end.
    expect(access.judge(TOKEN, '192.0.2.2', now - 1)).toBe('yes');
    expect(access.judge(TOKEN, HERE, now)).toBe('yes');
    expect(access.judge('wrong', HERE, now)).toBe('no');
    expect(access.waitSeconds(HERE, now)).toBe(1);
  });

  it('keeps nobody out for as long as a clock was put back', () => {
    const access = new Access(TOKEN, true);
    expect(access.judge('wrong', HERE, 3_600_000)).toBe('no');
    expect(access.judge(TOKEN, HERE, 3_599_999)).toBe('wait');
    expect(access.judge(TOKEN, HERE, 0)).toBe('yes');
  });

  it('is guarded against a whole network of IPv6, and whoever is in has no wait', () => {
    const access = new Access(TOKEN, true);
    const cookie = access.session(0).split(';')[0] as string;
    expect(access.judge('wrong', '2001:db8::1', 0)).toBe('no');
    expect(access.judge(TOKEN, '2001:db8:0:0:ffff::2', 1)).toBe('wait');
    expect(access.judge(TOKEN, '2001:db8:0:1::1', 1)).toBe('yes');
    expect(access.admits({ cookie }, '2001:db8::1', 1)).toBe('yes');
  });

  it('forgets the first of very many that gave wrong ones', () => {
    const access = new Access(TOKEN, true);
    for (let i = 0; i <= 1000; i += 1) access.judge('wrong', `10.0.${i >> 8}.${i & 255}`, 0);
    expect(access.judge(TOKEN, '10.0.0.0', 1)).toBe('yes');
    expect(access.judge(TOKEN, '10.0.0.1', 1)).toBe('wait');
  });
});

describe('a session', () => {
  const access = new Access(TOKEN, true);
  const cookie = access.session(0).split(';')[0] as string;

  it('is a cookie for this site alone that says nothing of the token', () => {
    const all = access.session(0);
    expect(all).toMatch(
      /^__Host-walkeep=\d+\.[\w-]{43}; Path=\/; Max-Age=43200; HttpOnly; SameSite=Strict; Secure$/,
    );
    expect(all).not.toContain(TOKEN);
    expect(new Access(TOKEN, false).session(0)).toMatch(/^walkeep=[^;]+; .*SameSite=Strict$/);
  });

  it('lets in until it ends, and cannot be made longer', () => {
    expect(access.admits({ cookie: `a=b; ${cookie}; c` }, HERE, 1)).toBe('yes');
    expect(access.admits({ cookie }, HERE, 12 * 3_600_000)).toBe('no');
    const [, until = '', signature = ''] = /=(\d+)\.(.*)$/.exec(cookie) ?? [];
    const longer = `__Host-walkeep=${Number(until) + 1}.${signature}`;
    expect(access.admits({ cookie: longer }, HERE, 1)).toBe('no');
    expect(access.admits({ cookie: cookie.slice(0, -1) }, HERE, 1)).toBe('no');
    expect(access.admits({ cookie: `__Host-walkeep=${TOKEN}` }, HERE, 1)).toBe('no');
  });

  it('ends with the token', () => {
    const another = new Access(`${TOKEN}x`, true);
    expect(another.admits({ cookie }, HERE, 1)).toBe('no');
    expect(new Access(TOKEN, true).admits({ cookie }, HERE, 1)).toBe('yes');
  });
});

it('tells addresses of this machine from others, and names that only lead here', () => {
  for (const address of ['127.0.0.1', '127.8.9.1', '::1', '::ffff:127.0.0.1']) {
    expect(isLoopback(address)).toBe(true);
  }
  for (const address of ['0.0.0.0', '::', '10.127.0.1', '127.0.0.1.example', '1127.0.0.1']) {
    expect(isLoopback(address)).toBe(false);
  }
  for (const host of ['127.0.0.1', '127.0.0.1:8480', 'localhost:1', 'LOCALHOST', '[::1]:80']) {
    expect(isLocalName(host)).toBe(true);
  }
  for (const host of [
    undefined,
    '',
    'evil.example',
    'localhost.evil.example:80',
    '[::1',
    'a@127.0.0.1',
  ]) {
    expect(isLocalName(host)).toBe(false);
  }
});
