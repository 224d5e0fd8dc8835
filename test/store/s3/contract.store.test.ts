import { describe } from 'vitest';
import { parsePlace, type S3Place } from '../../../src/store/place.js';
import { S3Store } from '../../../src/store/s3/store.js';
import type { Rgw } from '../../support/rgw.js';
import { sharedRgw } from '../../support/rgw-setup.js';
import { storeContract } from '../contract.js';

const shared = sharedRgw();

describe.skipIf(!shared)('on a Ceph gateway', () => {
  const parameters: Record<string, (rgw: Rgw) => string> = {
    'S3 over HTTP': ({ facts }) => `endpoint=${facts.http}`,
    'S3 over TLS': ({ facts }) => `endpoint=${facts.https}&ca=${facts.ca}`,
  };
  for (const [name, parametersOf] of Object.entries(parameters)) {
    storeContract(
      name,
      async () => {
        const rgw = shared as Rgw;
        const { accessKeyId, secretAccessKey } = rgw.owner;
        const env = { AWS_ACCESS_KEY_ID: accessKeyId, AWS_SECRET_ACCESS_KEY: secretAccessKey };
        const text = `s3://${await rgw.createBucket()}?${parametersOf(rgw)}`;
        const open = () => new S3Store(parsePlace(text) as S3Place, { env });
        const store = open();
        return {
          store,
          again: async () => open(),
          [Symbol.asyncDispose]: () => store.close(),
        };
      },
      { rounds: 10 },
    );
  }
});
