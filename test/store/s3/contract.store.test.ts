import { parsePlace, type S3Place } from '../../../src/store/place.js';
import { S3Store } from '../../../src/store/s3/store.js';
import { sharedRgw } from '../../support/rgw-setup.js';
import { storeContract } from '../contract.js';

const rgw = sharedRgw();

if (rgw) {
  const { http, https, ca, owner } = rgw.facts;
  const env = {
    AWS_ACCESS_KEY_ID: owner.accessKeyId,
    AWS_SECRET_ACCESS_KEY: owner.secretAccessKey,
  };
  const endpoints = {
    'S3 over HTTP': `endpoint=${http}`,
    'S3 over TLS': `endpoint=${https}&ca=${ca}`,
  };
  for (const [name, parameters] of Object.entries(endpoints)) {
    storeContract(
      name,
      async () => {
        const bucket = await rgw.createBucket();
        const open = () =>
          new S3Store(parsePlace(`s3://${bucket}?${parameters}`) as S3Place, { env });
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
}
