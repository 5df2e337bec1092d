// What each role sees. The server rejects whatever the console hides: see session_http.test.mjs.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { ADMIN, AUDITOR, MEMBER, populate } from './support/accounts.mjs';
import { Profile, go, launch } from './support/browser.mjs';
import { pages } from './support/pages.mjs';
import { CONFIGURATIONS, Server } from './support/server.mjs';

describe('roles', () => {
  let server;
  let browser;
  let ids;

  before(async () => {
    [server, browser] = await Promise.all([Server.start(CONFIGURATIONS[0]), launch()]);
    ids = await populate(server);
  });
  after(async () => {
    await browser?.close();
    await server?.stop();
  });

  const ACCOUNT = ['Profile', 'Password', 'Sessions'];

  for (const [user, links] of [
    [MEMBER, [...ACCOUNT, 'API keys', 'Activity', 'Pages']],
    [AUDITOR, [...ACCOUNT, 'Activity', 'Pages', 'Users', 'Invitations', 'Audit trail', 'Statistics']],
    [
      ADMIN,
      [...ACCOUNT, 'API keys', 'Activity', 'Pages', 'Users', 'Invitations', 'Issued keys', 'Audit trail', 'Statistics'],
    ],
  ]) {
    test(`the navigation of a user with the role ${user.role}`, async () => {
      const profile = await Profile.open(browser, server);
      await profile.signIn(user);
      const page = await profile.tab();
      const shown = await page.getByRole('navigation', { name: 'Pages' }).getByRole('link').allTextContents();
      assert.deepEqual(shown, links);
      await profile.close();
    });
  }

  test('a member who opens the address of an admin page sees none of it, and sends no request', async () => {
    const profile = await Profile.open(browser, server);
    await profile.signIn(MEMBER);
    const page = await profile.tab();
    const admin = pages(ids).filter(({ user, name }) => user === ADMIN && !/^page/.test(name));
    for (const { route } of admin) {
      const before = profile.requests.length;
      await go(page, route);
      await page.getByRole('heading', { name: 'No such page' }).waitFor();
      const paths = profile.requests.slice(before).map((sent) => new URL(sent.url()).pathname);
      const sent = paths.filter((path) => !path.startsWith('/console/'));
      assert.deepEqual(sent, [], route);
    }
    await profile.close();
  });

  test('an auditor reads users and invitations and changes none', async () => {
    const profile = await Profile.open(browser, server);
    await profile.signIn(AUDITOR);
    const page = await profile.tab(`#/users/${ids.member}`);
    await page.getByRole('heading', { name: 'Account', exact: true }).waitFor();
    assert.equal(await page.getByRole('main').getByRole('button').count(), 0);
    await go(page, '#/invitations');
    await page.getByText('dorothy@example.org').waitFor();
    assert.equal(await page.getByRole('main').getByRole('button').count(), 0);
    assert.equal(await page.getByText('mail.url').count(), 0, 'what to do without mails is for those who invite');
    await profile.close();
  });
});
