// What every user does with their own account in the console, and what the server has stored afterwards.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { createAccounts, register, request, signIn, tokenOf } from './support/accounts.mjs';
import { Profile, go, launch } from './support/browser.mjs';
import { send, sendInSession } from './support/http.mjs';
import { CONFIGURATIONS, PASSWORD, Server } from './support/server.mjs';

const NEW_PASSWORD = 'another horse battery';

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

    test('a key is created with scopes, displayed once, rotated and revoked', async () => {
      const { profile, page } = await open('keys@example.org', '#/keys');
      await page.getByRole('main').getByRole('button', { name: /Create/ }).first().click();
      await page.getByLabel('Name').fill('Laptop');
      await page.getByLabel('pages:read').check();
      await page.getByRole('button', { name: /^Create/ }).last().click();
      const secret = await page.getByText(/^lkk_/).textContent();
      assert.equal((await send(server, 'GET', '/me', { token: secret })).status, 200);
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
