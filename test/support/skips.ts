import type { Reporter, TestModule, Vitest } from 'vitest/node';
import { MISSING_MAJORS } from './binaries.js';

/**
 * Says at the end of a run what was skipped and why, a line each, since the default reporter only
 * counts: what never ran is not to pass for what went well.
 */
export default class Skips implements Reporter {
  #vitest: Vitest | undefined;

  onInit(vitest: Vitest): void {
    this.#vitest = vitest;
  }

  onTestRunEnd(modules: readonly TestModule[]): void {
    // Whoever asks for some tests has skipped all others.
    if (!this.#vitest || this.#vitest.config.testNamePattern) return;
    const lines = modules.flatMap((module) =>
      [...module.children.allTests('skipped')].map((test) => {
        const { note } = test.result() as { note?: string };
        return `${module.relativeModuleId}: ${test.fullName}${note ? ` (${note})` : ''}`;
      }),
    );
    for (const major of MISSING_MAJORS)
      lines.push(`all on PostgreSQL ${major}: npm package missing`);
    for (const line of lines.sort()) this.#vitest.logger.log(`skipped: ${line}`);
  }
}
