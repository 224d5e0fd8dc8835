import {
  aFunction,
  aNumber,
  anObject,
  aSwitch,
  aText,
  aTime,
  type Checks,
  listOf,
  oneOf,
  required,
} from '../options.js';
import type { ConnectionSettings } from './conninfo/settings.js';

const TLS_VERSIONS = ['TLSv1', 'TLSv1.1', 'TLSv1.2', 'TLSv1.3'];
const texts = listOf(aText, 'a list of strings');

/** Of settings that were made by hand: an unknown sslmode must not turn into a weaker one. */
export const SETTINGS_CHECKS: Checks<ConnectionSettings> = {
  targets: required(listOf(anObject, 'a list of targets, as resolveSettings makes it')),
  user: required(aText),
  password: aText,
  passwordFromFile: aFunction,
  database: required(aText),
  applicationName: required(aText),
  startup: required(anObject),
  connectTimeout: required(aTime),
  targetSessionAttrs: required(
    oneOf('any', 'read-write', 'read-only', 'primary', 'standby', 'prefer-standby'),
  ),
  loadBalanceHosts: required(aSwitch),
  sslMode: required(oneOf('disable', 'allow', 'prefer', 'require', 'verify-ca', 'verify-full')),
  sslNegotiation: required(oneOf('postgres', 'direct')),
  sslRootCert: aText,
  sslCert: aText,
  sslKey: aText,
  sslPassword: aText,
  sslCrl: aText,
  sslCrlDir: aText,
  sslSni: required(aSwitch),
  sslCertMode: required(oneOf('disable', 'allow', 'require')),
  sslMinVersion: oneOf(...TLS_VERSIONS),
  sslMaxVersion: oneOf(...TLS_VERSIONS),
  channelBinding: required(oneOf('disable', 'prefer', 'require')),
  requireAuth: anObject,
  keepalives: required(aSwitch),
  keepalivesIdle: required(aNumber(0, Number.MAX_SAFE_INTEGER)),
  warnings: required(texts),
};
