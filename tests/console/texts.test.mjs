// Texts of users that contain markup, right-to-left script, or 255 characters, on every page.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { ADMIN, createAccounts, register, request, storeInvitations, tokenOf } from './support/accounts.mjs';
import { NARROW, Profile, WIDE, go, launch } from './support/browser.mjs';
import { send } from './support/http.mjs';
import { CONFIGURATIONS, Server } from './support/server.mjs';

const TEXTS = {
  markup: '<img src=x onerror=alert(1)><script>alert(2)</script>{{7*7}}"\'`',
  'right to left': 'שלום עולם مرحبا بالعالم',
  long: 'W'.repeat(255),
  'long words': 'Donaudampfschifffahrtsgesellschaft '.repeat(7).trim(),
};

describe('texts of users', () => {
  let server;
  let browser;

  before(async () => {
    [server, browser] = await Promise.all([Server.start(CONFIGURATIONS[0]), launch()]);
    await createAccounts(server);
  });
  after(async () => {
    await browser?.close();
    await server?.stop();
  });

  /** Creates a user whose every text is `text`. Returns the user and the routes of the pages that show it. */
  async function create(name, text) {
    const email = `${name.replaceAll(' ', '-')}@example.org`;
    const user = await register(server, email, { name: text, surname: text, website: text });
    const token = await tokenOf(server, { email });
    const admin = await tokenOf(server, ADMIN);
    const key = await request(server, 'POST', '/me/keys', { token, json: { name: text, scopes: ['pages:read'] } });
    const page = await request(server, 'POST', '/page/', { token, json: { title: text.slice(0, 200), body: text } });
    const scope = `scope:${'x'.repeat(120)}`;
    const json = { name: text, scopes: [scope], order: text, metadata: { text } };
    const issued = await request(server, 'POST', '/keys', { token: admin, json });
    await storeInvitations(server, [text]);
    await send(server, 'GET', `/users?search=${encodeURIComponent(text)}`, { token });
    const own = ['#/profile', '#/keys', `#/keys/${key.id}`, '#/activity', '#/sessions', '#/pages'];
    const others = [
      '#/users',
      `#/users/${user.id}`,
      `#/users?search=${encodeURIComponent(text)}`,
      '#/invitations',
      '#/issued-keys',
      `#/issued-keys?order=${encodeURIComponent(text)}`,
      `#/issued-keys/${issued.id}`,
      `#/pages/${page.id}/history`,
      '#/audit',
      `#/audit?target=${encodeURIComponent(text)}`,
    ];
    return [[{ email }, own], [ADMIN, others]];
  }

  for (const [name, text] of Object.entries(TEXTS)) {
    test(`${name}: displayed as text, within the page`, async () => {
      for (const [user, routes] of await create(name, text)) {
        for (const viewport of [WIDE, NARROW]) {
          const profile = await Profile.open(browser, server, { viewport });
          profile.context.on('page', (page) => page.on('dialog', () => profile.faults.push('a script ran')));
          await profile.signIn(user);
          const page = await profile.tab();
          for (const route of routes) {
            await go(page, route);
            const state = await page.evaluate(() => ({
              injected: document.querySelectorAll('main img, main script, main iframe').length,
              scrollWidth: document.documentElement.scrollWidth,
              clientWidth: document.documentElement.clientWidth,
            }));
            assert.equal(state.injected, 0, route);
            assert.ok(state.scrollWidth <= state.clientWidth, `${route} at ${viewport.width}: ${JSON.stringify(state)}`);
          }
          await profile.close();
        }
      }
    });
  }

  test('a right-to-left name does not reorder the text around it', async () => {
    const profile = await Profile.open(browser, server);
    await profile.signIn(ADMIN);
    const page = await profile.tab('#/users?search=right-to-left@example.org');
    const name = page.getByRole('table').getByText(TEXTS['right to left']).first();
    assert.equal(await name.evaluate((element) => getComputedStyle(element).unicodeBidi), 'isolate');
    await profile.close();
  });
});
