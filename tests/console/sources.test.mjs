// support/pages.mjs lists every route and every dialog in the sources of the console.

import assert from 'node:assert/strict';
import { readFile, readdir } from 'node:fs/promises';
import { before, describe, test } from 'node:test';

import { LINKS, dialogs, pages, states } from './support/pages.mjs';

const SOURCES = new URL('../../console/src/', import.meta.url);
/** What `populate` returns, in which every id is 1. */
const IDS = new Proxy({}, { get: () => 1 });

/** The titles of the dialogs in a source, with `#` for a number. An expression can contain several. */
function titlesIn(text) {
  return [...text.matchAll(/<(?:Confirm)?Dialog\s[^]*?title=(?:"([^"]+)"|\{([^]*?)\}\s*(?:[a-zA-Z]+=|>))/g)].map(
    ([use, title, expression]) => {
      if (title) return [title];
      const texts = [...expression.matchAll(/"([^"]+)"|`([^`]+)`/g)].map(([, plain, template]) => plain ?? template);
      assert.ok(texts.length > 0, `no title in ${use}`);
      return texts.map((one) => one.replace(/\$\{[^}]+\}/g, '#'));
    },
  );
}

describe('the lists of pages and dialogs', () => {
  let sources;

  before(async () => {
    const names = (await readdir(SOURCES, { recursive: true })).filter((name) => name.endsWith('.tsx'));
    sources = await Promise.all(names.map(async (name) => ({ name, text: await readFile(new URL(name, SOURCES), 'utf8') })));
  });

  test('every route of the console has a page', () => {
    const lists = sources.filter(({ text }) => text.includes(': Route[] = ['));
    const routes = lists.flatMap(({ text }) => [...text.matchAll(/\bpath: "([^"]+)"/g)].map(([, path]) => path));
    assert.ok(routes.length >= 15, routes.join(', '));
    const listed = pages(IDS).map(({ route }) => route.slice(2).split('?')[0].replace(/\/1(?=\/|$)/g, '/:id'));
    assert.deepEqual(routes.filter((route) => !listed.includes(route)), []);
  });

  test('every kind of link in a mail has a page', () => {
    const [, table] = /const PAGES = \{\n([^}]+)\}/.exec(sources.find(({ name }) => name === 'pages/links.tsx').text);
    assert.deepEqual([...table.matchAll(/^ *"?([a-z-]+)"?: /gm)].map(([, purpose]) => purpose), LINKS);
  });

  test('every dialog of the console is opened', () => {
    // components/dialog.tsx defines dialogs and displays none.
    const users = sources.filter(({ name }) => name !== 'components/dialog.tsx');
    const uses = users.flatMap(({ name, text }) => titlesIn(text).map((titles) => ({ name, titles })));
    const expected = users.reduce((sum, { text }) => sum + text.split(/<(?:Confirm)?Dialog\s/).length - 1, 0);
    assert.equal(uses.length, expected, 'each use has a title');
    assert.ok(uses.length >= 12, `${uses.length} dialogs`);
    const shown = uses.flatMap(({ name, titles }) => titles.map((title) => `${name}: ${title}`));
    const listed = [...dialogs(IDS), ...states(IDS)].filter(({ title }) => title).map(({ file, title }) => `${file}: ${title}`);
    assert.deepEqual(shown.sort(), listed.sort());
  });
});
