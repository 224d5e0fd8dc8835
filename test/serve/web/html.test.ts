import fc from 'fast-check';
import { expect, it } from 'vitest';
import { html, joined, lines } from '../../../src/serve/web/html.js';

it('takes values as text in elements and attributes', () => {
  const evil = `<img src=x onerror="alert('1')">&amp;\``;
  const shown = '&lt;img src=x onerror=&quot;alert(&#39;1&#39;)&quot;&gt;&amp;amp;&#96;';
  expect(`${html`<b title="${evil}">${evil}</b>`}`).toBe(`<b title="${shown}">${shown}</b>`);
});

it('takes markup made here as markup, and nothing else that looks like it', () => {
  expect(`${html`<p>${html`<b>${'<i>'}</b>`}</p>`}`).toBe('<p><b>&lt;i&gt;</b></p>');
  const alike = { toString: () => '<script>' } as unknown as string;
  expect(`${html`${alike}`}`).toBe('&lt;script&gt;');
});

it('shows nothing for what is not there, and all of a list', () => {
  expect(`${html`${undefined}${null}${false}${0}${''}`}`).toBe('0');
  expect(`${html`${['a', html`<br>`, ['<']]}`}`).toBe('a<br>&lt;');
  expect(`${joined(['a', 'b'], ', ')}`).toBe('a, b');
});

it('shows characters that are obeyed as escapes', () => {
  expect(`${html`${'a\u202eb\u0000c\nd\u2066'}`}`).toBe('a\\u202eb\\x00c\\nd\\u2066');
  expect(`${lines('a\n<b>\u001b[2J')}`).toBe('a\n&lt;b&gt;\\x1b[2J');
});

it('never lets a value out of its place', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) => {
      const made = `${html`<a href="${text}">${text}</a>`}`;
      const [, attribute = '', inner = ''] = /^<a href="(.*)">(.*)<\/a>$/s.exec(made) ?? [];
      expect(attribute).toBe(inner);
      expect(attribute).not.toMatch(/[<>"'`\p{Cc}\u202a-\u202e\u2066-\u2069]/u);
    }),
  );
});
