import { existsSync } from 'node:fs';
import { delimiter, join } from 'node:path';
import { type Browser, chromium } from 'playwright-core';

/** Chromium of this machine, as Debian calls it. */
export const CHROMIUM = ['/usr/bin', ...(process.env.PATH ?? '').split(delimiter)]
  .flatMap((dir) => [join(dir, 'chromium'), join(dir, 'chromium-browser')])
  .find((file) => existsSync(file));

/** A headless browser; whoever asks for it ends it. */
export function launchBrowser(): Promise<Browser> {
  if (CHROMIUM === undefined) throw new Error('there is no chromium');
  return chromium.launch({ executablePath: CHROMIUM, args: ['--no-sandbox'] });
}
