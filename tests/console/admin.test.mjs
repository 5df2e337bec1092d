// What administrators do in the console, and what the server has stored afterwards.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';

import { ADMIN, MEMBER, populate, register, request, signIn, tokenOf } from './support/accounts.mjs';
import { Profile, go, launch } from './support/browser.mjs';
import { send, sendInSession } from './support/http.mjs';
import { CONFIGURATIONS, Server } from './support/server.mjs';
import { fillStatistics } from './support/statistics.mjs';

const exact = (value) => value.toLocaleString('en-GB');
const inAll = (sums) => `${exact(sums.reduce((all, value) => all + value))} in all`;
const atMost = (sums) => `At most ${exact(Math.max(...sums))}`;

/** The charts by title: the members of the statistics that they show, and the beginning of their summary. */
const CHARTS = {
  'Sign-ins': { members: ['sign_ins_succeeded', 'sign_ins_failed', 'sign_ins_throttled'], total: inAll },
  'Guarded requests': { members: ['requests_authorized', 'requests_refused'], total: inAll },
  Registrations: { members: ['registrations'], total: inAll },
  'Keys in use': { members: ['keys_used'], total: atMost },
  'Hash queue': { members: ['hash_queue_max'], total: atMost },
};

for (const configuration of CONFIGURATIONS.slice(0, 2)) {
  describe(`administration on ${configuration.database}, profile ${configuration.profile}`, () => {
    let server;
    let browser;
    let ids;
    let profile;
    let page;
    let token;

    before(async () => {
      const limits = { LATCHKEY__LIMITS__ENABLED: 'true' };
      [server, browser] = await Promise.all([Server.start(configuration, limits), launch()]);
      ids = await populate(server);
      await fillStatistics(server);
      token = await tokenOf(server, ADMIN);
      profile = await Profile.open(browser, server);
      await profile.signIn(ADMIN);
      page = await profile.tab();
    });
    after(async () => {
      await profile?.close();
      await browser?.close();
      await server?.stop();
    });

    const read = (path) => request(server, 'GET', path, { token });
    const dialog = () => page.locator('dialog[open]');
    const press = (name, scope = page.getByRole('main')) => scope.getByRole('button', { name, exact: true }).click();
    const notice = (text) => page.getByRole('status').getByText(text).waitFor();

    test('search finds users by a part of their name, and the address holds the search', async () => {
      await go(page, '#/users');
      await page.getByRole('searchbox').fill('love');
      await page.keyboard.press('Enter');
      await page.getByRole('link', { name: 'Adaline Lovelace' }).waitFor();
      // The table shows the rows of before until the response arrives.
      await page.waitForFunction(() => document.querySelectorAll('tr').length === 2);
      assert.match(page.url(), /#\/users\?search=love$/);
      await page.goBack();
      await page.getByText('disabled@example.org').waitFor();
      assert.equal(await page.getByRole('searchbox').inputValue(), '');
      await go(page, '#/users?search=nobody-of-this-name');
      await page.getByText('No user matches').waitFor();
    });

    test('a new role applies at once and ends the sessions of the user', async () => {
      const user = { email: 'role@example.org', ...(await register(server, 'role@example.org')) };
      const { secret } = await signIn(server, user);
      await go(page, `#/users/${user.id}`);
      await press('Change role');
      await dialog().getByLabel('Role').selectOption('auditor');
      await press('Change role', dialog());
      await notice('The role is auditor now');
      assert.equal((await read(`/users/${user.id}`)).role, 'auditor');
      assert.ok((await sendInSession(server, secret, 'GET', '/me')).status >= 400);
    });

    test('disable asks before it acts, and enable does not', async () => {
      const user = await register(server, 'switch@example.org');
      await go(page, `#/users/${user.id}`);
      await press('Disable account');
      await press('Cancel', dialog());
      assert.equal((await read(`/users/${user.id}`)).disabled, false);
      await press('Disable account');
      await press('Disable account', dialog());
      await notice('The account is disabled');
      assert.equal((await read(`/users/${user.id}`)).disabled, true);
      await press('Enable account');
      await notice('The account is enabled');
      assert.equal((await read(`/users/${user.id}`)).disabled, false);
    });

    test('a sign-in that was stopped is unlocked', async () => {
      const user = await register(server, 'stopped@example.org');
      const account = createHash('sha256').update(user.email).digest('hex');
      const now = new Date().toISOString().slice(0, 19).replace('T', ' ');
      await server.sql(`INSERT INTO sign_in_failures (account, failures, last_at) VALUES ('${account}', 100, '${now}');`);
      assert.equal((await read(`/users/${user.id}`)).sign_in_stopped, true);
      await go(page, `#/users/${user.id}`);
      await page.getByText('sign-in stopped').waitFor();
      await press('Unlock');
      await notice('Sign-in is unlocked');
      assert.equal((await read(`/users/${user.id}`)).sign_in_stopped, false);
    });

    test('end sign-in ends the token and the sessions, and keeps the account', async () => {
      const user = { email: 'ended@example.org', ...(await register(server, 'ended@example.org')) };
      const own = await tokenOf(server, user);
      const { secret } = await signIn(server, user);
      await go(page, `#/users/${user.id}`);
      await press('End sign-in');
      await press('End sign-in', dialog());
      await notice('have ended');
      assert.ok((await send(server, 'GET', '/me', { token: own })).status >= 400);
      assert.ok((await sendInSession(server, secret, 'GET', '/me')).status >= 400);
      await tokenOf(server, user);
    });

    test('an account is deleted only after its e-mail address was typed', async () => {
      const user = await register(server, 'delete@example.org');
      await go(page, `#/users/${user.id}`);
      await press('Delete account');
      await dialog().getByRole('textbox').fill('something else');
      await press('Delete account', dialog());
      await dialog().getByText('The text differs').waitFor();
      await read(`/users/${user.id}`);
      await dialog().getByRole('textbox').fill(user.email);
      await press('Delete account', dialog());
      await page.getByRole('heading', { name: 'Users', level: 1 }).waitFor();
      assert.equal((await send(server, 'GET', `/users/${user.id}`, { token })).status, 404);
    });

    test('the last administrator cannot be disabled: the dialog says why', async () => {
      const { id } = await read('/me');
      await go(page, `#/users/${id}`);
      await page.getByText('This is your own account').waitFor();
      await press('Disable account');
      await press('Disable account', dialog());
      await dialog().getByRole('alert').waitFor();
      await page.keyboard.press('Escape');
    });

    test('a user who does not exist is an error with a way back', async () => {
      await go(page, '#/users/999999');
      await page.getByRole('alert').getByText('Not found').waitFor();
      await page.getByRole('main').getByRole('link', { name: 'Users' }).click();
      await page.getByRole('heading', { name: 'Users', level: 1 }).waitFor();
    });

    test('a key is issued, its secret is displayed once and works, and it is revoked', async () => {
      await go(page, '#/issued-keys');
      await press('Issue a key');
      await dialog().getByLabel('Name').fill('Subscription');
      await dialog().getByLabel('Metadata').fill('[1]');
      await press('Issue key', dialog());
      await dialog().getByText('Enter at least one scope').waitFor();
      await dialog().getByText('Enter a JSON object').waitFor();
      await dialog().getByLabel('Scopes').fill('translate:use  wiki:read');
      await dialog().getByLabel('Order').fill('order-7');
      await dialog().getByLabel('Expires').fill('2030-01-01T00:00');
      await dialog().getByLabel('Metadata').fill('{"plan":"gold"}');
      await press('Issue key', dialog());
      const secret = await dialog().getByText(/^lkk_/).textContent();
      await page.keyboard.press('Escape');
      assert.equal(await dialog().count(), 1, 'Escape does not close what is displayed once');
      await press('I have copied it', dialog());
      assert.equal((await send(server, 'GET', '/protected-route', { token: secret })).status, 200);
      await page.getByRole('link', { name: 'Subscription', exact: true }).click();
      await page.getByText('"plan": "gold"').waitFor();
      assert.ok(!(await page.content()).includes(secret));
      await press('Revoke key');
      await press('Revoke key', dialog());
      await notice('The key is revoked');
      await page.getByText('revoked', { exact: true }).waitFor();
      assert.ok((await send(server, 'GET', '/protected-route', { token: secret })).status >= 400);
    });

    test('issued keys are selected by order and by state', async () => {
      await go(page, '#/issued-keys?order=order-1042');
      await page.getByRole('link', { name: 'Subscription of Ada' }).waitFor();
      // The table shows the rows of before until the response arrives.
      await page.waitForFunction(() => document.querySelectorAll('tr').length === 2);
      await go(page, '#/issued-keys');
      await page.getByLabel('State').selectOption('unclaimed');
      await page.getByRole('link', { name: 'Gift' }).waitFor();
      // The table shows the rows of before until the response arrives.
      await page.waitForFunction(() => document.querySelectorAll('tr').length === 2);
      assert.match(page.url(), /state=unclaimed$/);
      await page.getByLabel('State').selectOption('expired');
      await page.getByText('No key matches').waitFor();
    });

    test('the trail is filtered, and the address holds the filters', async () => {
      await go(page, '#/audit');
      await page.getByText('Filters', { exact: true }).click();
      await page.getByLabel('Actor').fill('nobody');
      await press('Apply filters');
      await page.getByText('Enter user:2, key:7').waitFor();
      await page.getByLabel('Actor').fill(`user:${ids.member}`);
      await page.getByLabel('Action').selectOption('page.update');
      await press('Apply filters');
      await page.waitForFunction(() => location.hash.includes('page.update'));
      // Until the response arrives, the table shows the entries of before.
      await page.waitForFunction(() => {
        const cells = [...document.querySelectorAll('tr td:nth-child(2)')];
        return cells.length > 0 && cells.every((cell) => cell.textContent.startsWith('Page changed'));
      });
      await page.getByRole('link', { name: 'Clear filters' }).click();
      await page.getByRole('table').getByText('Registration').first().waitFor();
      assert.equal(await page.getByLabel('Actor').inputValue(), '');
    });

    test('an entry shows who did what at what level, and a missing one says so', async () => {
      await go(page, `#/audit/${ids.entry}`);
      await page.getByText('user.sign_in', { exact: true }).waitFor();
      await page.getByText('failure', { exact: true }).waitFor();
      await go(page, '#/audit/99999999');
      await page.getByText('There is no such entry').waitFor();
    });

    test('the export has all entries that match, one JSON object per line', async () => {
      await go(page, '#/audit?action=page.update');
      const [download] = await Promise.all([page.waitForEvent('download'), press('Export')]);
      const lines = (await readFile(await download.path(), 'utf8')).trim().split('\n').map((line) => JSON.parse(line));
      const expected = (await read('/audit?action=page.update&limit=500')).items;
      assert.deepEqual(lines, expected);
      assert.match(download.suggestedFilename(), /^audit-.*\.ndjson$/);
    });

    test('the history of a page names its changes, also after its deletion', async () => {
      await go(page, `#/pages/${ids.page}/history`);
      await page.getByRole('heading', { name: 'History of Notes' }).waitFor();
      await page.getByText('Page created').waitFor();
      const owner = await tokenOf(server, MEMBER);
      await request(server, 'DELETE', `/page/${ids.page}`, { token: owner });
      await page.reload();
      await page.getByText('The page is deleted').waitFor();
      await page.getByText('Page deleted').waitFor();
    });

    test('all five charts have a summary and a table with the numbers of the server', async () => {
      const answer = page.waitForResponse((response) => new URL(response.url()).pathname === '/stats');
      await go(page, '#/statistics?period=day');
      const { pathname, search } = new URL((await answer).url());
      const { items } = await (await answer).json();
      // The current hour still changes.
      assert.deepEqual((await read(`${pathname}${search}`)).items.slice(0, -1), items.slice(0, -1));
      const charts = page.getByRole('main').getByRole('region');
      assert.deepEqual(await charts.getByRole('heading').allTextContents(), Object.keys(CHARTS));
      for (const [title, { members, total }] of Object.entries(CHARTS)) {
        const chart = page.getByRole('region', { name: title, exact: true });
        const rows = items.map((item) => members.map((member) => item[member]));
        const sums = rows.map((row) => row.reduce((sum, value) => sum + value, 0));
        assert.ok(Math.max(...sums) > 0, title);
        const picture = await chart.locator('svg[role=img] > title').textContent();
        assert.ok(picture.startsWith(`${title}. ${total(sums)}`), picture);
        await chart.getByRole('button', { name: /Show table/ }).click();
        const cells = await chart.locator('tbody td').allTextContents();
        assert.deepEqual(cells, rows.flat().map(exact), title);
      }
      await page.getByRole('link', { name: '30 days' }).click();
      await page.waitForFunction(() => location.hash.endsWith('period=month'));
    });
  });
}
