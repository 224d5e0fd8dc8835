import { type Html, html } from './html.js';
import type { Lag } from './page.js';
import { span } from './times.js';

const HEIGHT = 90;
const WIDTH = 1000;
/** Of the drawing, below which the axis stands. */
const GROUND = 84;
const TOP = 8;

/** What could be lost over the last while, against its limit. */
export function lagGraph(lag: readonly Lag[], limit: number, length: number, now: number): Html {
  if (lag.length < 2)
    return html`<p class="empty">There is no history yet: it begins with the program.</p>`;
  const worst = lag.reduce((max, { rpoSeconds }) => Math.max(max, rpoSeconds), 0);
  const last = lag.at(-1) as Lag;
  const top = Math.max(worst, limit) * 1.05 || 1;
  const x = (at: number) => +(((at - (now - length)) / length) * WIDTH).toFixed(1);
  const y = (seconds: number) => +(GROUND - (seconds / top) * (GROUND - TOP)).toFixed(1);
  const shown = lag.filter(({ at }) => at >= now - length);
  const points = shown.map(({ at, rpoSeconds }) => `${x(at)} ${y(rpoSeconds)}`);
  const [first] = shown;
  const area = first && `M${x(first.at)} ${GROUND}L${points.join('L')}L${x(last.at)} ${GROUND}Z`;
  const text = `What could be lost over the last ${span(length)}: at most ${span(worst * 1000)}, now ${span(last.rpoSeconds * 1000)}; the limit is ${span(limit * 1000)}.`;
  return html`<figure class="lag"><svg role="img" aria-label="${text}" viewBox="0 0 ${WIDTH} ${HEIGHT}" preserveAspectRatio="none" width="100%" height="${HEIGHT}" focusable="false">
<path class="area" d="${area ?? ''}"/><path class="line" d="M${points.join('L')}"/>
<line class="limit" x1="0" x2="${WIDTH}" y1="${y(limit)}" y2="${y(limit)}"/><line class="axis" x1="0" x2="${WIDTH}" y1="${GROUND}" y2="${GROUND}"/>
</svg><figcaption><span>−${span(length)}</span><span>worst ${span(worst * 1000)}, limit ${span(limit * 1000)}</span><span>now</span></figcaption></figure>`;
}
