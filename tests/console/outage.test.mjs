// A server that is away, busy, or answers in a way that the console does not know.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { ADMIN, MEMBER, createAccounts } from './support/accounts.mjs';
import { Profile, launch } from './support/browser.mjs';
import { CONFIGURATIONS, PASSWORD, Server } from './support/server.mjs';

const problem = (status, fields, headers = {}) => ({
  status,
  headers: { 'Content-Type': 'application/problem+json', ...headers },
  body: JSON.stringify({ type: 'about:blank', title: 'Error', status, request_id: '5f0c3c9e1d0a4b59', ...fields }),
});
const BUSY = problem(503, { code: 'overloaded', detail: 'The server is busy. Try again.' }, { 'Retry-After': '1' });

describe('outages', () => {
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

  const open = async (user, route) => {
    const profile = await Profile.open(browser, server);
    if (user) await profile.signIn(user);
    return [profile, await profile.tab(route)];
  };

  test('a page that loads while the server is down says so, and shows the data when the server is back', async () => {
    const [profile, page] = await open(MEMBER, '#/profile');
    await server.suspend();
    await page.getByRole('link', { name: 'Activity' }).click();
    await page.getByText('The server does not answer').first().waitFor();
    await server.resume();
    await page.getByRole('table').waitFor({ timeout: 15_000 });
    assert.equal(await page.getByText('The server does not answer').count(), 0);
    await profile.close();
  });

  test('what was typed survives an outage', async () => {
    const [profile, page] = await open(MEMBER, '#/profile');
    await page.getByLabel('Family name').fill('Byron');
    await server.suspend();
    await page.getByRole('button', { name: 'Save', exact: true }).click();
    await page.getByText('The server does not answer').waitFor();
    assert.equal(await page.getByLabel('Family name').inputValue(), 'Byron');
    await server.resume();
    await page.getByRole('button', { name: 'Save', exact: true }).click();
    await page.getByText('Your data is saved').waitFor();
    await profile.close();
  });

  test('a busy server is asked again by itself', async () => {
    const [profile, page] = await open(ADMIN, '#/profile');
    let asked = 0;
    await page.route('**/users?*', (route) => {
      asked += 1;
      return asked < 3 ? route.fulfill(BUSY) : route.continue();
    });
    await page.getByRole('link', { name: 'Users' }).click();
    await page.getByText('The server is busy').first().waitFor();
    await page.getByRole('table').waitFor({ timeout: 15_000 });
    assert.equal(asked, 3);
    await profile.close();
  });

  test('a change that waits for a busy server is not sent for the user who signs in next', async () => {
    const [profile, page] = await open(MEMBER, '#/profile');
    let sent = 0;
    await page.route('**/me', (route) => {
      if (route.request().method() !== 'PATCH') return route.continue();
      sent += 1;
      return route.fulfill(problem(503, { code: 'busy', detail: 'The server is busy.' }, { 'Retry-After': '3' }));
    });
    await page.getByLabel('Family name').fill('Byron');
    await page.getByRole('button', { name: 'Save', exact: true }).click();
    await page.getByText('The console tries again').waitFor();
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByLabel('E-mail address').fill(ADMIN.email);
    assert.equal(await page.getByText('The console tries again').count(), 0);
    await page.getByLabel('Password', { exact: true }).fill(PASSWORD);
    await page.getByRole('button', { name: 'Sign in', exact: true }).click();
    await page.getByText(ADMIN.email).first().waitFor();
    // The wait before the repetition takes at most 3.75 s.
    await page.waitForTimeout(4000);
    assert.equal(sent, 1);
    await profile.close();
  });

  test('a sign-out that the server answers with an error is sent until the session has ended', async () => {
    const [profile, page] = await open(MEMBER, '#/profile');
    let sent = 0;
    await page.route('**/session', (route) => {
      if (route.request().method() !== 'DELETE') return route.continue();
      sent += 1;
      return sent === 1 ? route.fulfill(problem(500, { code: 'internal', detail: 'Error.' })) : route.continue();
    });
    await page.getByRole('button', { name: 'Sign out' }).click();
    await page.getByText('the server has not confirmed it').waitFor();
    await page.getByText('the server has not confirmed it').waitFor({ state: 'detached' });
    assert.equal(sent, 2);
    await page.reload();
    await page.getByRole('heading', { name: 'Sign in', level: 1 }).waitFor();
    await profile.close();
  });

  test('a late answer shows no account after a sign-out', async () => {
    const [profile, page] = await open(MEMBER, '#/profile');
    const second = await profile.context.newPage();
    let release;
    const released = new Promise((resolve) => { release = resolve; });
    const answered = new Promise((resolve) => {
      return second.route('**/session', async (route) => {
        const response = await route.fetch({ maxRetries: 1 });
        resolve();
        await released;
        await route.fulfill({ response });
      });
    });
    await second.goto('/console/#/profile');
    await answered;
    await page.getByRole('button', { name: 'Sign out' }).click();
    await second.getByText('You signed out in another tab').waitFor();
    const arrived = second.waitForResponse('**/session');
    release();
    await arrived;
    await second.waitForTimeout(200);
    assert.ok(!(await second.content()).includes(MEMBER.email));
    await second.getByRole('heading', { name: 'Sign in', level: 1 }).waitFor();
    await profile.close();
  });

  test('an unknown error shows its detail and the id of the request', async () => {
    const [profile, page] = await open(ADMIN, '#/profile');
    await page.route('**/users?*', (route) => {
      return route.fulfill(problem(500, { code: 'never_seen', detail: 'The <b>disk</b> is full.' }));
    });
    await page.getByRole('link', { name: 'Users' }).click();
    const alert = page.getByRole('alert');
    await alert.getByText('The <b>disk</b> is full.').waitFor();
    await alert.getByText('5f0c3c9e1d0a4b59').waitFor();
    await page.unroute('**/users?*');
    await page.getByRole('button', { name: 'Try again' }).click();
    await page.getByRole('table').waitFor();
    await profile.close();
  });

  test('an answer that is not JSON, and an answer without details, are errors in the page', async () => {
    for (const [status, body] of [[200, '<html>a proxy</html>'], [502, '<html>Bad gateway</html>'], [418, ''], [200, '']]) {
      const [profile, page] = await open(ADMIN, '#/profile');
      await page.route('**/users?*', (route) => route.fulfill({ status, contentType: 'text/html', body }));
      await page.getByRole('link', { name: 'Users' }).click();
      await page.getByRole('alert').waitFor();
      await profile.close();
    }
  });

  test('a form that fails keeps its dialog open, and a second click sends nothing twice', async () => {
    const [profile, page] = await open(ADMIN, '#/issued-keys');
    let sent = 0;
    const keys = [];
    await page.route('**/keys', async (route) => {
      if (route.request().method() !== 'POST') return route.continue();
      sent += 1;
      keys.push(route.request().headers()['idempotency-key']);
      await new Promise((resolve) => setTimeout(resolve, 300));
      return sent === 1 ? route.abort() : route.continue();
    });
    await page.getByRole('button', { name: 'Issue a key' }).click();
    const dialog = page.getByRole('dialog');
    await dialog.getByLabel('Name').fill('Gift');
    await dialog.getByLabel('Scopes').fill('translate:use');
    const submit = dialog.getByRole('button', { name: 'Issue key' });
    await submit.dblclick();
    await dialog.getByText('The server does not answer').waitFor();
    assert.equal(sent, 1);
    await submit.click();
    await dialog.getByText(/^lkk_/).waitFor();
    assert.equal(keys[0], keys[1], 'a repetition has the same Idempotency-Key');
    await profile.close();
  });
});
