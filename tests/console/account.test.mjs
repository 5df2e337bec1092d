// What every user does with their own account in the console, and what the server has stored afterwards.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { createAccounts, register, request, signIn, tokenOf } from './support/accounts.mjs';
import { Profile, go, launch } from './support/browser.mjs';
import { send, sendInSession } from './support/http.mjs';
import { CONFIGURATIONS, PASSWORD, Server } from './support/server.mjs';

const NEW_PASSWORD = 'another horse battery';
/** The answer to a secret that is no longer valid. */
const REFUSED = '401 invalid_token';

for (const configuration of CONFIGURATIONS.slice(0, 2)) {
  describe(`the own account on ${configuration.database}, profile ${configuration.profile}`, () => {
    let server;
    let browser;

    before(async () => {
      [server, browser] = await Promise.all([Server.start(configuration), launch()]);
      await createAccounts(server);
    });
    after(async () => {
      await browser?.close();
      await server?.stop();
    });

    /** Registers a user and opens the route as this user. */
    async function open(email, route) {
      const user = { email, ...(await register(server, email)) };
      const profile = await Profile.open(browser, server);
      await profile.signIn(user);
      return { user, profile, page: await profile.tab(route) };
    }

    const dialog = (page) => page.locator('dialog[open]');
    const press = (scope, name) => scope.getByRole('button', { name, exact: true }).click();
    const me = (secret) => send(server, 'GET', '/me', { token: secret });
    const secretIn = (page) => dialog(page).getByText(/^lkk_/).textContent();

    /** Creates a key of the user over HTTP. Returns it, with its secret in `key`. */
    async function createKey(user, name) {
      const token = await tokenOf(server, user);
      return request(server, 'POST', '/me/keys', { token, json: { name, scopes: ['pages:read'] } });
    }

    /** Rotates the key of the page. Returns the new secret. The dialog stays open. */
    async function rotate(page, overlap) {
      await press(page.getByRole('main'), 'Rotate key');
      await dialog(page).getByLabel('The old secret ends').selectOption({ label: overlap });
      await press(dialog(page), 'Rotate key');
      return secretIn(page);
    }

    test('registration says beside each field what is wrong, and then signs in', async () => {
      const profile = await Profile.open(browser, server);
      const page = await profile.tab('#/register');
      await page.getByLabel('First name').fill('Bob');
      await page.getByLabel('E-mail address').fill('ada@example.org');
      await page.getByLabel('Password', { exact: true }).fill('password');
      await page.keyboard.press('Enter');
      await page.locator('[aria-invalid=true]').first().waitFor();
      const isDescribed = await page.evaluate(() => {
        const fields = [...document.querySelectorAll('[aria-invalid=true]')];
        return fields.every((field) => field.getAttribute('aria-describedby').split(' ').every((id) => document.getElementById(id)));
      });
      assert.ok(isDescribed, 'each invalid field names its error');
      await page.getByLabel('First name').fill('Robert');
      await page.getByLabel('Password', { exact: true }).fill(PASSWORD);
      await page.keyboard.press('Enter');
      const email = page.getByLabel('E-mail address');
      await page.waitForFunction(() => document.activeElement?.getAttribute('aria-invalid') === 'true');
      assert.equal(await email.getAttribute('aria-invalid'), 'true', 'a known address is said beside its field');
      await email.fill('robert@example.org');
      await page.keyboard.press('Enter');
      await page.getByRole('heading', { name: 'Profile', level: 1 }).waitFor();
      await profile.close();
    });

    test('the name, the e-mail address and the password are changed', async () => {
      const { user, profile, page } = await open('change@example.org', '#/profile');
      await page.getByLabel('First name').fill('Gracie');
      await press(page, 'Save');
      await page.getByText('Your data is saved').waitFor();
      await page.getByLabel('New e-mail address').fill('changed@example.org');
      await page.getByLabel('Current password', { exact: true }).fill('wrong password');
      await press(page, 'Change e-mail address');
      await page.locator('[aria-invalid=true]').waitFor();
      await page.getByLabel('Current password', { exact: true }).fill(PASSWORD);
      await press(page, 'Change e-mail address');
      await page.getByText('Your e-mail address is changed').waitFor();

      const other = (await signIn(server, { email: 'changed@example.org' })).secret;
      await go(page, '#/password');
      await page.getByLabel('Current password', { exact: true }).fill(PASSWORD);
      await page.getByLabel('New password', { exact: true }).fill(NEW_PASSWORD);
      await press(page, 'Change password');
      await page.getByText('Your password is changed').waitFor();
      assert.ok((await sendInSession(server, other, 'GET', '/me')).status >= 400, 'other sessions end');
      await go(page, '#/activity');
      await page.getByRole('table').waitFor();
      const form = { grant_type: 'password', username: 'changed@example.org', password: NEW_PASSWORD };
      const { access_token: token } = await request(server, 'POST', '/token', { form });
      const { name, id } = await request(server, 'GET', '/me', { token });
      assert.deepEqual([name, id], ['Gracie', user.id]);
      await profile.close();
    });

    test('a server without mails shows no settings of mails, and says who sets a new password', async () => {
      const { profile, page } = await open('unmailed@example.org', '#/profile');
      await page.getByRole('heading', { name: 'Change your e-mail address' }).waitFor();
      assert.equal(await page.getByRole('heading', { name: 'Mails to you' }).count(), 0);
      await profile.context.clearCookies();
      const signedOut = await profile.tab('#/forgotten-password');
      await signedOut.getByText('This server sends no mails. Ask an administrator').waitFor();
      assert.equal(await signedOut.getByRole('textbox').count(), 0);
      await profile.close();
    });

    test('who cannot register learns what to ask for', async () => {
      const profile = await Profile.open(browser, server);
      const page = await profile.context.newPage();
      const json = { ...(await request(server, 'GET', '/console/settings.json')), registration: 'invited' };
      await page.route('**/console/settings.json', (route) => route.fulfill({ json }));
      await page.goto('/console/#/register');
      await page.getByText('Ask for an invitation').waitFor();
      assert.equal(await page.getByRole('textbox').count(), 0);
      await profile.close();
    });

    test('a key is created with scopes, and its secret is displayed once', async () => {
      const { profile, page } = await open('keys@example.org', '#/keys');
      await press(page.getByRole('main'), 'Create key');
      await dialog(page).getByLabel('Name').fill('Laptop');
      await dialog(page).getByLabel('pages:read').check();
      await press(dialog(page), 'Create key');
      const secret = await secretIn(page);
      assert.equal((await me(secret)).status, 200);
      await profile.context.grantPermissions(['clipboard-read', 'clipboard-write']);
      await press(page, 'Copy');
      await page.getByText('Copied', { exact: true }).waitFor();
      assert.equal(await page.evaluate(() => navigator.clipboard.readText()), secret);
      await page.reload();
      await page.getByRole('link', { name: 'Laptop' }).click();
      await page.getByRole('heading', { name: 'Laptop', level: 1 }).waitFor();
      assert.ok(!(await page.content()).includes(secret));
      await profile.close();
    });

    test('a rotation keeps the old secret for a day, or ends it at once', async () => {
      const { user, profile, page } = await open('rotate@example.org', '#/keys');
      const { id, key: first } = await createKey(user, 'Laptop');
      await go(page, `#/keys/${id}`);
      await page.getByText('no overlap').waitFor();

      const second = await rotate(page, 'After one day');
      await dialog(page).getByText('The old secret is valid until').waitFor();
      await press(dialog(page), 'I have copied it');
      await page.getByText('no overlap').waitFor({ state: 'detached' });
      assert.notEqual(second, first);
      for (const secret of [first, second]) assert.equal((await me(secret)).json.id, user.id);

      const third = await rotate(page, 'At once');
      assert.equal(await dialog(page).getByText('The old secret is valid until').count(), 0);
      await press(dialog(page), 'I have copied it');
      await page.getByText('no overlap').waitFor();
      for (const secret of [first, second]) assert.equal((await me(secret)).summary, REFUSED);
      assert.equal((await me(third)).json.id, user.id);
      await profile.close();
    });

    test('a key is revoked only after a confirmation, is refused from then on, and leaves the list', async () => {
      const { user, profile, page } = await open('revoke@example.org', '#/keys');
      const { id, key: lost } = await createKey(user, 'Lost laptop');
      const { key: kept } = await createKey(user, 'Phone');
      await go(page, `#/keys/${id}`);
      await press(page.getByRole('main'), 'Revoke key');
      await press(dialog(page), 'Cancel');
      assert.equal((await me(lost)).status, 200);
      await press(page.getByRole('main'), 'Revoke key');
      await press(dialog(page), 'Revoke key');
      await page.getByText('The key is revoked').waitFor();
      await page.getByRole('link', { name: 'Phone' }).waitFor();
      assert.equal(await page.getByRole('link', { name: 'Lost laptop' }).count(), 0);
      assert.equal((await me(lost)).summary, REFUSED);
      assert.equal((await me(kept)).status, 200);
      await profile.close();
    });

    test('another session is ended from the list, and this one by signing out', async () => {
      const { user, profile, page } = await open('sessions@example.org', '#/profile');
      const { secret } = await signIn(server, user);
      await go(page, '#/sessions');
      await page.getByText('This session').waitFor();
      await press(page.getByRole('main'), 'End');
      await press(dialog(page), 'End session');
      await page.getByText('The session has ended').waitFor();
      assert.ok((await sendInSession(server, secret, 'GET', '/me')).status >= 400);
      await press(page.getByRole('banner'), 'Sign out');
      await page.getByRole('heading', { name: 'Sign in', level: 1 }).waitFor();
      await profile.close();
    });

    test('an account is deleted by its owner after its e-mail address was typed', async () => {
      const { user, profile, page } = await open('leave@example.org', '#/profile');
      const token = await tokenOf(server, user);
      await press(page, 'Delete your account');
      await press(dialog(page), 'Delete for ever');
      await dialog(page).getByText('The text differs').waitFor();
      await dialog(page).getByRole('textbox').fill(user.email);
      await press(dialog(page), 'Delete for ever');
      await page.getByText('Your account is deleted').waitFor();
      assert.ok((await send(server, 'GET', '/me', { token })).status >= 400);
      await profile.close();
    });
  });
}
