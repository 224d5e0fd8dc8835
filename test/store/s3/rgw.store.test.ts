import { describe, expect, it } from 'vitest';
import { sharedRgw } from '../../support/rgw-setup.js';

const rgw = sharedRgw();

describe.skipIf(!rgw)('the gateway of the tests', () => {
  it('knows signatures, rights and conditional writes', async () => {
    if (!rgw) return;
    const bucket = await rgw.createBucket();
    const condition = { 'If-None-Match': '*' };
    const put = { method: 'PUT', path: `/${bucket}/key`, body: 'x', headers: condition };
    await rgw.ask(put);
    await expect(rgw.ask(put)).rejects.toThrow('412');
    const { user, ...keys } = await rgw.createUser();
    await expect(rgw.ask({ method: 'GET', path: `/${bucket}/key`, keys })).rejects.toThrow('403');
    await rgw.allow(bucket, user, ['GetObject']);
    expect(await rgw.ask({ method: 'GET', path: `/${bucket}/key`, keys })).toBe('x');
    await rgw.addKeys(user, { accessKeyId: `${user}second`, secretAccessKey: 'other' });
    const second = { accessKeyId: `${user}second`, secretAccessKey: 'other' };
    expect(await rgw.ask({ method: 'GET', path: `/${bucket}/key`, keys: second })).toBe('x');
    await rgw.removeKeys(user, second.accessKeyId);
    await expect(rgw.ask({ method: 'GET', path: `/${bucket}/key`, keys: second })).rejects.toThrow(
      'InvalidAccessKeyId',
    );
  });
});
