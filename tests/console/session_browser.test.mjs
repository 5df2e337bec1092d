// The life of a session in the browser: deep links, reload, the back button, two tabs, sign-out and its end.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { ADMIN, MEMBER, createAccounts, request, tokenOf } from './support/accounts.mjs';
import { checkAccessibility } from './support/axe.mjs';
import { Profile, go, launch, settled } from './support/browser.mjs';
import { COOKIE } from './support/http.mjs';
import { CONFIGURATIONS, PASSWORD, Server } from './support/server.mjs';

const heading = (page, name) => page.getByRole('heading', { name, level: 1 });

async function fillSignIn(page, { email }, password = PASSWORD) {
  await page.getByLabel('E-mail address').fill(email);
  await page.getByLabel('Password', { exact: true }).fill(password);
  await page.getByRole('button', { name: 'Sign in', exact: true }).click();
}

for (const configuration of CONFIGURATIONS.slice(0, 2)) {
  describe(`a session in the browser, on ${configuration.database}, profile ${configuration.profile}`, () => {
    let server;
    let browser;
    let member;

    before(async () => {
      [server, browser] = await Promise.all([Server.start(configuration), launch()]);
      member = await createAccounts(server);
    });
    after(async () => {
      await browser?.close();
      await server?.stop();
    });

    const open = async (user, route, options) => {
      const profile = await Profile.open(browser, server, options);
      if (user) await profile.signIn(user);
      return [profile, await profile.tab(route)];
    };

    test('a wrong password is said beside the form, and the right one opens the deep link', async () => {
      const [profile, page] = await open(null, '#/activity');
      await heading(page, 'Sign in').waitFor();
      await fillSignIn(page, MEMBER, 'a wrong password');
      await page.getByRole('alert').waitFor();
      assert.equal(await page.getByLabel('E-mail address').inputValue(), MEMBER.email, 'nothing is asked twice');
      await fillSignIn(page, MEMBER);
      await heading(page, 'Activity').waitFor();
      await profile.close();
    });

    test('a reload and a second tab stay signed in, on the page of their address', async () => {
      const [profile, page] = await open(MEMBER, '#/keys');
      await page.reload();
      await heading(page, 'API keys').waitFor();
      const second = await profile.tab('#/sessions');
      await heading(second, 'Sessions').waitFor();
      await profile.close();
    });

    test('the back button returns to the page before, with its filters', async () => {
      const [profile, page] = await open(ADMIN, '#/audit?outcome=failure');
      await go(page, '#/users');
      await heading(page, 'Users').waitFor();
      await page.goBack();
      await heading(page, 'Audit trail').waitFor();
      assert.equal(await page.getByLabel('Outcome').inputValue(), 'failure');
      await page.goForward();
      await heading(page, 'Users').waitFor();
      await profile.close();
    });

    test('after a sign-out, no tab shows data, and neither reload nor the back button brings it back', async () => {
      const [profile, page] = await open(MEMBER, '#/profile');
      const second = await profile.tab('#/keys');
      await page.getByText(MEMBER.email).first().waitFor();
      await page.getByRole('button', { name: 'Sign out' }).click();
      for (const tab of [page, second]) {
        await heading(tab, 'Sign in').waitFor();
        assert.ok(!(await tab.content()).includes(MEMBER.email));
      }
      await page.goBack();
      await page.waitForTimeout(200);
      assert.ok(!(await page.content()).includes(MEMBER.email));
      await page.goto('/console/#/profile');
      await page.reload();
      await heading(page, 'Sign in').waitFor();
      // The pages are empty at once, and the server ends the session after that.
      await page.waitForFunction(() => sessionStorage.getItem('sign-out') === null);
      assert.deepEqual((await profile.context.cookies()).filter(({ name }) => name === COOKIE), []);
      await profile.close();
    });

    test('sign-out empties the page although the server is away', async () => {
      const [profile, page] = await open(MEMBER, '#/profile');
      await profile.context.route('**/session', (route) => route.abort());
      await page.getByRole('button', { name: 'Sign out' }).click();
      await heading(page, 'Sign in').waitFor();
      assert.ok(!(await page.content()).includes(MEMBER.email));
      await page.getByText('still open on the server').waitFor();
      await profile.context.unroute('**/session');
      await page.getByText('still open on the server').waitFor({ state: 'detached' });
      await page.reload();
      await heading(page, 'Sign in').waitFor();
      await profile.context.close();
    });

    test('a tab whose session was ended elsewhere shows the sign-in page at its next request', async () => {
      const [profile, page] = await open(MEMBER, '#/profile');
      const token = await tokenOf(server, ADMIN);
      await request(server, 'DELETE', `/users/${member.id}/token`, { token });
      await page.getByRole('link', { name: 'Activity' }).click();
      await heading(page, 'Sign in').waitFor();
      await page.getByText('Your session has ended').waitFor();
      await profile.close();
    });

    test('another tab that signs in as somebody else changes all tabs', async () => {
      const [profile, page] = await open(MEMBER, '#/profile');
      const second = await profile.tab();
      await second.getByRole('button', { name: 'Sign out' }).click();
      await heading(second, 'Sign in').waitFor();
      await fillSignIn(second, ADMIN);
      await heading(second, 'Profile').waitFor();
      await page.getByText(ADMIN.email).first().waitFor();
      assert.ok(!(await page.content()).includes(MEMBER.email));
      await profile.close();
    });

    /** Opens the profile 57.5 minutes after its load, half a minute before the warning that the session ends. */
    const openBeforeWarning = async () => {
      const profile = await Profile.open(browser, server);
      await profile.context.clock.install();
      await profile.signIn(MEMBER);
      const page = await profile.tab('#/profile');
      await profile.context.clock.runFor('57:30');
      return [profile, page, page.getByRole('alertdialog')];
    };

    test('a warning appears 60 s before the session ends, and a key press extends it', async () => {
      const [profile, page, warning] = await openBeforeWarning();
      assert.equal(await warning.count(), 0);
      await profile.context.clock.runFor('00:45');
      await warning.waitFor();
      await checkAccessibility(page, 'the warning');
      await page.getByRole('button', { name: 'Stay signed in' }).press('Enter');
      await warning.waitFor({ state: 'detached' });
      await profile.context.clock.runFor('57:30');
      assert.equal(await warning.count(), 0);
      await profile.context.clock.runFor('00:45');
      await warning.waitFor();
      await profile.context.clock.runFor('01:05');
      await heading(page, 'Sign in').waitFor();
      assert.ok(!(await page.content()).includes(MEMBER.email));
      await profile.close();
    });

    test('a message to the tabs is ignored if it has another form or another sender', async () => {
      const [profile, page, warning] = await openBeforeWarning();
      const other = await profile.context.newPage();
      await other.goto('/docs/');
      await other.evaluate(() => {
        const tabs = new BroadcastChannel('latchkey-session');
        const at = Date.now();
        for (const is of ['signed-in', 'signed-out', 'active']) {
          for (const message of [is, [is, at], { is }]) tabs.postMessage(message);
          for (const wrong of [null, NaN, Infinity, String(at)]) tabs.postMessage({ is, at: wrong });
        }
        for (const message of [null, undefined, 1, {}, { at }]) tabs.postMessage(message);
        for (const is of ['unknown', '', null, ['signed-out']]) tabs.postMessage({ is, at });
      });
      await page.evaluate(() => window.postMessage({ is: 'signed-out', at: Date.now() }, '*'));
      await page.waitForTimeout(200);
      await heading(page, 'Profile').waitFor();
      await profile.context.clock.runFor('00:45');
      await warning.waitFor();
      await other.evaluate(() => {
        new BroadcastChannel('latchkey-session').postMessage({ is: 'active', at: Date.now() + 1e9 });
      });
      await warning.waitFor({ state: 'detached' });
      await profile.context.clock.runFor('58:15');
      await warning.waitFor();
      await profile.close();
    });

    test('the maximum duration of a session cannot be extended', async () => {
      const profile = await Profile.open(browser, server);
      await profile.context.clock.install();
      await profile.signIn(MEMBER);
      const end = new Date(Date.now() + 600_000).toISOString();
      await profile.context.route('**/session', async (route) => {
        const headers = { ...route.request().headers(), 'sec-fetch-site': 'same-origin' };
        const response = await route.fetch({ headers, maxRetries: 1 });
        await route.fulfill({ response, json: { ...(await response.json()), expires_at: end } });
      });
      const page = await profile.tab('#/profile');
      await profile.context.clock.runFor('08:00');
      const warning = page.getByRole('alertdialog');
      assert.equal(await warning.count(), 0);
      await profile.context.clock.runFor('01:10');
      await warning.waitFor();
      assert.equal(await page.getByRole('button', { name: 'Stay signed in' }).count(), 0);
      await profile.context.clock.runFor('01:00');
      await heading(page, 'Sign in').waitFor();
      await profile.close();
    });

    test('nothing is stored in the browser, except the cookie that scripts cannot read', async () => {
      const [profile, page] = await open(MEMBER, '#/profile');
      const stored = await page.evaluate(async () => ({
        cookie: document.cookie,
        local: { ...localStorage },
        session: { ...sessionStorage },
        databases: await indexedDB.databases(),
        caches: await caches.keys(),
      }));
      assert.deepEqual(stored, { cookie: '', local: {}, session: {}, databases: [], caches: [] });
      await profile.close();
    });
  });
}
