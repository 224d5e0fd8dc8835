import { VERSION } from '../../package.js';
import { PATTERNS } from './bar-view.js';
import { type Content, type Html, html, joined } from './html.js';
import { clock } from './times.js';

/** A piece of a page that is replaced where it is shown when it changes. */
export interface LivePart {
  /** Of its element. */
  id: string;
  body: Html;
  /** A change is read out. */
  polite?: boolean;
}

/** A page of which each part is kept up to date. */
export interface LivePage {
  title: string;
  parts: readonly LivePart[];
}

export interface Frame {
  title: string;
  body: Content;
  now: number;
  /** Way down from all servers: names and paths. */
  path: readonly (readonly [name: string, href: string])[];
  /** Of what version of its parts the page is, where it is kept up to date. */
  live?: string;
  /** Seconds after which a page without script is loaded again. */
  refresh?: number;
}

export function document({ title, body, now, path, live, refresh }: Frame): string {
  const steps = [['Servers', '/'] as const, ...path];
  const crumbs = steps.map(([name, href], i) =>
    i === steps.length - 1
      ? html`<li><a href="${href}" aria-current="page">${name}</a></li>`
      : html`<li><a href="${href}">${name}</a></li>`,
  );
  return `${html`<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>${title} – walkeep</title>
<meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark">
<link rel="stylesheet" href="/style.css"><link rel="icon" href="/icon.svg"><script src="/script.js" defer></script>
${refresh !== undefined && html`<noscript><meta http-equiv="refresh" content="${refresh}"></noscript>`}</head>
<body${live !== undefined && html` data-live="${live}"`}>
<a class="skip" href="#main">Skip to the content</a>
<header class="top"><span class="brand">walkeep</span><nav aria-label="Where this is"><ol>${joined(crumbs)}</ol></nav>
<p class="stamp">as of <span id="stamp">${clock(now)}</span><span id="stale" role="alert"></span><noscript> <a href="">Load again</a></noscript></p></header>
${PATTERNS}
<main id="main">
${body}
</main>
<footer>walkeep ${VERSION}. All times are UTC. This page changes nothing.</footer>
</body></html>
`}`;
}

/** The parts as they stand in the page. */
export function liveBody({ parts }: LivePage): Html {
  return joined(
    parts.map(
      ({ id, body, polite }) =>
        html`<div class="live" id="${id}"${polite && html` role="status" aria-live="polite"`}>${body}</div>`,
    ),
    html`
`,
  );
}
