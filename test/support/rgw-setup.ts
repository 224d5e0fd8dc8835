import { inject } from 'vitest';
import type { TestProject } from 'vitest/node';
import { missingForRgw, Rgw, type RgwFacts, RgwServers } from './rgw.js';

declare module 'vitest' {
  interface ProvidedContext {
    rgw: RgwFacts | null;
  }
}

/** Starts the gateway that all files of a run share. */
export async function setup(project: TestProject): Promise<() => Promise<void>> {
  const missing = missingForRgw();
  if (missing.length > 0) {
    process.stderr.write(
      `\nThe tests against a real object store are skipped: ${missing.join(', ')} not installed` +
        ' (Debian: radosgw ceph-mon ceph-osd)\n',
    );
    project.provide('rgw', null);
    return async () => {};
  }
  const servers = await RgwServers.start();
  project.provide('rgw', servers.facts);
  return () => servers.stop();
}

/** The run's gateway; undefined where none can be started: `describe.skipIf(!rgw)`. */
export function sharedRgw(): Rgw | undefined {
  const facts = inject('rgw');
  return facts ? new Rgw(facts) : undefined;
}
