import { type Html, html } from './html.js';

const two = (n: number) => `${n}`.padStart(2, '0');

/** `2026-11-28 14:03:22 UTC`, as "walkeep restore" takes it, too. */
export function utc(at: number): string {
  if (Number.isNaN(at)) return '–';
  return `${new Date(at).toISOString().slice(0, 19).replace('T', ' ')} UTC`;
}

/** `14:03:22 UTC` */
export function clock(at: number): string {
  const date = new Date(at);
  return `${two(date.getUTCHours())}:${two(date.getUTCMinutes())}:${two(date.getUTCSeconds())} UTC`;
}

/** A length of time in two units at most; what is short is said in seconds. */
export function span(ms: number): string {
  const seconds = Math.max(0, ms) / 1000;
  if (seconds === 0) return '0 s';
  if (seconds < 10) return `${seconds.toFixed(1)} s`;
  if (seconds < 120) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 120) return `${minutes} min`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48)
    return minutes % 60 && hours < 10 ? `${hours} h ${minutes % 60} min` : `${hours} h`;
  return `${Math.floor(hours / 24)} days`;
}

/** How long ago, no finer than minutes: it does not change each second. */
export function ago(at: number, now: number): string {
  const ms = now - at;
  return ms < 60_000 ? '< 1 min ago' : `${span(Math.floor(ms / 60_000) * 60_000)} ago`;
}

/** Until then, no finer than minutes. */
export function ahead(at: number, now: number): string {
  const ms = at - now;
  return ms < 60_000 ? 'in < 1 min' : `in ${span(Math.floor(ms / 60_000) * 60_000)}`;
}

/** A time of ISO 8601 as text, with the exact one behind it. */
export function timed(iso: string, text: (at: number) => string): Html {
  const at = Date.parse(iso);
  if (Number.isNaN(at)) return html`${iso}`;
  return html`<time datetime="${new Date(at).toISOString()}" title="${utc(at)}">${text(at)}</time>`;
}

/** The exact time. */
export function exact(iso: string | undefined): Html {
  return iso === undefined ? html`–` : timed(iso, utc);
}
