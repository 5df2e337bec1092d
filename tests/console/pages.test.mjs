// Every page and dialog, in light and dark, wide and narrow: axe-core, pictures, and widths from 320 px to 4K.

import assert from 'node:assert/strict';
import { mkdir } from 'node:fs/promises';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';

import { ADMIN, MEMBER, populate } from './support/accounts.mjs';
import { checkAccessibility } from './support/axe.mjs';
import { NARROW, Profile, WIDE, go, launch, settled } from './support/browser.mjs';
import { dialogs, pages, states } from './support/pages.mjs';
import { CONFIGURATIONS, Server } from './support/server.mjs';
import { Smtp } from './support/smtp.mjs';
import { fillStatistics } from './support/statistics.mjs';

const PICTURES = process.env.CONSOLE_PICTURES;

// What the browser displays does not depend on the database.
const [configuration] = CONFIGURATIONS;

describe('pages', () => {
  let smtp;
  let server;
  let browser;
  let ids;

  before(async () => {
    await mkdir(PICTURES, { recursive: true });
    smtp = await Smtp.start();
    [server, browser] = await Promise.all([Server.start(configuration, smtp.settings), launch()]);
    ids = await populate(server);
    await fillStatistics(server);
  });
  after(async () => {
    await browser?.close();
    await server?.stop();
    smtp?.stop();
  });

  /** Calls `visit` with each page or dialog, open in a tab of a profile in which its user is signed in. */
  async function visitAll(list, options, visit) {
    for (const user of new Set(list.map((item) => item.user))) {
      const profile = await Profile.open(browser, server, options);
      if (user) await profile.signIn(user);
      const page = await profile.tab();
      for (const item of list.filter((candidate) => candidate.user === user)) {
        await go(page, item.route);
        await visit(page, item);
      }
      await profile.close();
    }
  }

  /** The heading of the open dialog, with `#` for a number. */
  const titleOf = async (page) => (await page.locator('dialog[open] h2').textContent()).replace(/\d+/, '#');

  for (const colorScheme of ['light', 'dark']) {
    for (const viewport of [WIDE, NARROW]) {
      const look = `${colorScheme}-${viewport.width}`;

      test(`pages have no violation of WCAG 2.2 AA, ${look}`, async () => {
        await visitAll(pages(ids), { colorScheme, viewport }, async (page, { name }) => {
          await page.screenshot({ path: join(PICTURES, `${name}-${look}.png`), fullPage: true });
          await checkAccessibility(page, `${name} ${look}`);
        });
      });

      test(`errors, secrets and tables have no violation of WCAG 2.2 AA, ${look}`, async () => {
        await visitAll(states(ids), { colorScheme, viewport }, async (page, { name, title, open }) => {
          await open(page);
          if (title) assert.equal(await titleOf(page), title);
          await page.screenshot({ path: join(PICTURES, `state-${name}-${look}.png`) });
          await checkAccessibility(page, `${name} ${look}`);
          const copied = page.getByRole('button', { name: 'I have copied it' });
          if (await copied.isVisible()) await copied.click();
        });
      });

      test(`dialogs have no violation of WCAG 2.2 AA, ${look}`, async () => {
        await visitAll(dialogs(ids), { colorScheme, viewport }, async (page, { name, title, open }) => {
          await open(page);
          const dialog = page.getByRole('dialog').or(page.getByRole('alertdialog'));
          await dialog.waitFor();
          assert.equal(await titleOf(page), title);
          await settled(page);
          await page.screenshot({ path: join(PICTURES, `dialog-${name}-${look}.png`) });
          await checkAccessibility(page, `${name} ${look}`);
          await page.keyboard.press('Escape');
          await dialog.waitFor({ state: 'detached' });
        });
      });
    }
  }

  for (const width of [320, 3840]) {
    test(`nothing is cut off or scrolls sideways at ${width} px`, async () => {
      await visitAll(pages(ids), { viewport: { width, height: 800 } }, async (page, { name }) => {
        const { scrollWidth, clientWidth } = await page.evaluate(() => {
          const { scrollWidth, clientWidth } = document.documentElement;
          return { scrollWidth, clientWidth };
        });
        assert.ok(scrollWidth <= clientWidth, `${name}: ${scrollWidth} px of content in ${clientWidth} px`);
      });
    });
  }

  test('a page has one main heading, which has the focus, and a title of its own', async () => {
    const titles = new Set();
    const list = pages(ids).filter(({ name }) => !name.includes('-') || name.endsWith('-history'));
    await visitAll(list, {}, async (page, { name }) => {
      assert.equal(await page.locator('h1').count(), 1, name);
      const focused = await page.evaluate(() => document.activeElement.tagName);
      assert.ok(focused === 'H1', `${name}: the focus is on ${focused}`);
      const title = await page.title();
      assert.match(title, /Latchkey/);
      titles.add(title);
    });
    assert.equal(titles.size, list.length, [...titles].join(', '));
  });

  test('sign out is in the banner of every signed-in page, in view', async () => {
    for (const viewport of [WIDE, NARROW]) {
      await visitAll(pages(ids).filter(({ user }) => user), { viewport }, async (page, { name }) => {
        const button = page.getByRole('banner').getByRole('button', { name: 'Sign out', exact: true });
        const { x, y, width, height } = await button.boundingBox();
        const isInside = x >= 0 && y >= 0 && x + width <= viewport.width && y + height <= viewport.height;
        assert.ok(isInside && (await button.isVisible()), `${name}: ${JSON.stringify({ x, y, width, height })}`);
      });
    }
  });

  test('with reduced motion, nothing moves', async () => {
    await visitAll(pages(ids).slice(2, 12), { reducedMotion: 'reduce' }, async (page, { name }) => {
      const moving = await page.evaluate(() => document.getAnimations().filter((one) => one.playState === 'running').length);
      assert.equal(moving, 0, name);
    });
  });

  test('times are displayed in the local zone and in UTC', async () => {
    const profile = await Profile.open(browser, server, { timezoneId: 'Asia/Kolkata' });
    await profile.signIn(ADMIN);
    const page = await profile.tab('#/audit');
    const time = page.locator('main time').first();
    const local = await time.textContent();
    await page.getByLabel('Show times in UTC').check();
    const utc = await time.textContent();
    const clock = (text) => Number(/(\d\d):\d\d/.exec(text)[1]) * 60 + Number(/\d\d:(\d\d)/.exec(text)[1]);
    assert.equal((clock(local) - clock(utc) + 1440) % 1440, 330, `${local} and ${utc}`);
    await profile.close();
  });

  test('the files of the console have less than 80 KB compressed', async () => {
    const profile = await Profile.open(browser, server);
    await profile.signIn(MEMBER);
    const page = await profile.tab();
    const bytes = await page.evaluate(() => {
      const entries = [...performance.getEntriesByType('resource'), ...performance.getEntriesByType('navigation')];
      const files = entries.filter((entry) => new URL(entry.name).pathname.startsWith('/console/'));
      return files.reduce((sum, entry) => sum + entry.encodedBodySize, 0);
    });
    assert.ok(bytes > 1000 && bytes < 80_000, `${bytes} bytes`);
    await profile.close();
  });
});
