import { expect, it } from 'vitest';
import { html } from '../../../src/serve/web/html.js';
import type { LivePage } from '../../../src/serve/web/layout.js';
import { View } from '../../../src/serve/web/views.js';

/** A page of parts with these texts. */
function viewOf(texts: Record<string, string>) {
  const make = (): LivePage => ({
    title: 't',
    parts: Object.entries(texts).map(([id, text]) => ({ id, body: html`${text}` })),
  });
  return new View(make);
}

it('tells what changed since a version, and nothing else', () => {
  const texts: Record<string, string> = { a: '1', b: '1' };
  const view = viewOf(texts);
  view.refresh();
  const first = view.version;
  view.refresh();
  expect(view.since(first)).toBeUndefined();
  texts.a = '2';
  view.refresh();
  const second = view.version;
  texts.b = '<2>';
  view.refresh();
  expect(view.since(second)?.parts).toEqual({ b: '&lt;2&gt;' });
  expect(view.since(first)).toEqual({ version: view.version, parts: { a: '2', b: '&lt;2&gt;' } });
});

it('has all loaded again where parts came or went, or the version means nothing', () => {
  const texts: Record<string, string> = { a: '1' };
  const view = viewOf(texts);
  view.refresh();
  const first = view.version;
  texts.b = '1';
  view.refresh();
  expect(view.since(first)).toEqual({ version: view.version, parts: undefined });
  for (const other of ['', 'x-1', `${first}9x`, '-']) {
    expect(view.since(other)?.parts).toBeUndefined();
    expect(view.since(other)).toBeDefined();
  }
});
