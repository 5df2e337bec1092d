// A list longer than one part: it loads the next part at its end, by itself or by a button.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { ADMIN, MEMBER, createAccounts, request, tokenOf } from './support/accounts.mjs';
import { Profile, launch } from './support/browser.mjs';
import { copySignIns } from './support/rows.mjs';
import { CONFIGURATIONS, Server } from './support/server.mjs';

/** The entries that the console requests at once. */
const PART = 50;
const COPIES = 120;

for (const configuration of CONFIGURATIONS.slice(0, 2)) {
  describe(`a long audit trail on ${configuration.database}`, () => {
    let server;
    let browser;
    let token;

    before(async () => {
      [server, browser] = await Promise.all([Server.start(configuration), launch()]);
      await createAccounts(server);
      token = await tokenOf(server, ADMIN);
      await server.sql(copySignIns(COPIES, "'user:' || n"));
    });
    after(async () => {
      await browser?.close();
      await server?.stop();
    });

    /** Opens the trail. Returns the ids of all its entries at this time, newest first, too. */
    async function open(prepare = () => undefined) {
      const profile = await Profile.open(browser, server);
      await profile.signIn(ADMIN);
      await profile.context.addInitScript(prepare);
      const page = await profile.tab('#/audit');
      const { items } = await request(server, 'GET', '/audit?limit=500', { token });
      const all = items.map(({ id }) => id);
      assert.ok(all.length > COPIES && all.length < 3 * PART);
      assert.deepEqual(all, [...new Set(all)].sort((one, other) => other - one));
      return { profile, page, all };
    }

    const more = (page) => page.getByRole('button', { name: /^Show more/ });
    const shown = (page) => {
      const links = page.getByRole('table').getByRole('row').locator('a[href^="#/audit/"]');
      return links.evaluateAll((list) => list.map((link) => Number(link.hash.split('/').pop())));
    };
    const hasRows = (page, count) => {
      return page.waitForFunction((rows) => document.querySelectorAll('tbody tr').length === rows, count);
    };
    const parts = (profile) => profile.requests.filter((sent) => new URL(sent.url()).pathname === '/audit').length;

    test('scrolling shows every entry once, newest first, although others arrive meanwhile', async () => {
      const { profile, page, all } = await open();
      assert.deepEqual(await shown(page), all.slice(0, PART));
      await tokenOf(server, MEMBER);
      await page.mouse.move(640, 450);
      for (let turn = 0; turn < 200 && (await more(page).count()) > 0; turn += 1) {
        await page.mouse.wheel(0, 1500);
        await page.waitForTimeout(25);
      }
      await more(page).waitFor({ state: 'detached' });
      assert.deepEqual(await shown(page), all);
      assert.equal(parts(profile), 3);
      await profile.close();
    });

    test('the button shows the next part by keyboard, and keeps the focus', async () => {
      // Where the end of the list is not noticed: otherwise, the focus alone would load the next part.
      const { profile, page, all } = await open(() => {
        window.IntersectionObserver = class {
          observe() {}
          disconnect() {}
        };
      });
      const isFocused = () => more(page).evaluate((button) => button === document.activeElement);
      for (let presses = 0; presses < 4 * PART && !(await isFocused()); presses += 1) await page.keyboard.press('Tab');
      assert.ok(await isFocused(), 'Tab reaches the button');
      assert.equal(parts(profile), 1);
      await page.keyboard.press('Enter');
      await hasRows(page, 2 * PART);
      assert.deepEqual(await shown(page), all.slice(0, 2 * PART));
      assert.ok(await isFocused(), 'the focus stays on the button');
      await page.keyboard.press('Space');
      await hasRows(page, all.length);
      assert.deepEqual(await shown(page), all);
      assert.equal(await more(page).count(), 0, 'the end is reached');
      await profile.close();
    });
  });
}
