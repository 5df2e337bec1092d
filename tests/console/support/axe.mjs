// Checks a page with axe-core against WCAG 2.2 AA.

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';

const SOURCE = readFile(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');
const RULES = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa'];

/** Fails if axe-core finds a violation on the page as it is displayed. */
export async function checkAccessibility(page, name) {
  if (!(await page.evaluate(() => 'axe' in window))) {
    // Only the debugger may evaluate a text: the policy of the console forbids it to scripts.
    const debug = await page.context().newCDPSession(page);
    await debug.send('Runtime.evaluate', { expression: await SOURCE });
    await debug.detach();
  }
  const found = await page.evaluate(async (rules) => {
    const { violations } = await window.axe.run(document, { runOnly: rules, resultTypes: ['violations'] });
    return violations.flatMap(({ id, nodes }) => nodes.map((node) => `${id}: ${node.html} ${node.failureSummary}`));
  }, RULES);
  assert.deepEqual(found, [], name);
}
