// Invitations in the console: what an administrator does, what the server has stored afterwards, and which mail it sends.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { ADMIN, MEMBER, createAccounts, request, storeInvitations, tokenOf } from './support/accounts.mjs';
import { checkAccessibility } from './support/axe.mjs';
import { NARROW, Profile, go, launch } from './support/browser.mjs';
import { send } from './support/http.mjs';
import { CONFIGURATIONS, PASSWORD, Server } from './support/server.mjs';
import { Smtp } from './support/smtp.mjs';

/** The invitations that the console requests at once. */
const PART = 50;

for (const configuration of CONFIGURATIONS.slice(0, 2)) {
  describe(`invitations on ${configuration.database}, profile ${configuration.profile}`, () => {
    let smtp;
    let server;
    let browser;
    let profile;
    let page;
    let token;

    before(async () => {
      smtp = await Smtp.start();
      [server, browser] = await Promise.all([Server.start(configuration, smtp.settings), launch()]);
      await createAccounts(server);
      token = await tokenOf(server, ADMIN);
      profile = await Profile.open(browser, server);
      await profile.signIn(ADMIN);
      page = await profile.tab();
    });
    after(async () => {
      await profile?.close();
      await browser?.close();
      await server?.stop();
      smtp?.stop();
    });

    const dialog = () => page.locator('dialog[open]');
    const press = (name, scope = page.getByRole('main')) => scope.getByRole('button', { name, exact: true }).click();
    const notice = (text) => page.getByRole('status').getByText(text).waitFor();
    const row = (email) => page.getByRole('row').filter({ hasText: email });
    const stored = async () => (await request(server, 'GET', '/users/invitations?limit=500', { token })).items;
    const find = async (email) => (await stored()).find((invitation) => invitation.email === email);
    const rows = (count) => page.waitForFunction((wanted) => document.querySelectorAll('tbody tr').length === wanted, count);
    const accept = (link) => {
      const json = { secret: link.split('/').pop(), name: 'Dorothy', surname: 'Vaughan', website: '', password: PASSWORD };
      return send(server, 'POST', '/invitations/accept', { json });
    };

    test('an invited address gets a mail, and its account has the role that was chosen', async () => {
      await go(page, '#/users');
      await page.getByRole('navigation').getByRole('link', { name: 'Invitations' }).click();
      await page.getByText('No invitations', { exact: true }).waitFor();
      await press('Invite user');
      await page.waitForFunction(() => document.activeElement.matches('dialog input'));
      await page.keyboard.type('Dorothy@example.org');
      await dialog().getByLabel('Role').selectOption('auditor');
      await press('Send invitation', dialog());
      await notice('A mail to Dorothy@example.org is on its way');
      await row('Dorothy@example.org').getByText('pending').waitFor();
      const [invitation] = await stored();
      assert.deepEqual([invitation.email, invitation.role], ['Dorothy@example.org', 'auditor']);
      await row('Dorothy@example.org').getByRole('link', { name: `user:${invitation.invited_by}` }).click();
      await page.getByRole('heading', { name: ADMIN.name, level: 1 }).waitFor();
      const accepted = await accept(await smtp.link('Dorothy@example.org', 'invitation'));
      assert.deepEqual([accepted.status, accepted.json.role], [201, 'auditor']);
      await go(page, '#/invitations');
      await page.getByText('No invitations', { exact: true }).waitFor();
    });

    test('the form says beside its fields why an address cannot be invited', async () => {
      await storeInvitations(server, ['invited@example.org']);
      await go(page, '#/invitations');
      await press('Invite user');
      const email = dialog().getByLabel('E-mail address');
      for (const [text, message] of [
        ['', 'Enter the e-mail address of the user'],
        ['no address', undefined],
        [MEMBER.email, 'A user with this e-mail already exists'],
        ['invited@example.org', 'This address has an invitation'],
      ]) {
        await email.fill(text);
        await press('Send invitation', dialog());
        if (message) await dialog().getByText(message).waitFor();
        await page.waitForFunction(() => document.activeElement.matches('dialog input[aria-invalid=true]'));
        const described = await email.getAttribute('aria-describedby');
        assert.match(described, /-error$/, text);
        assert.equal(await dialog().getByRole('alert').count(), 0, 'the message is beside the field only');
      }
      await page.keyboard.press('Escape');
      assert.deepEqual((await stored()).map((invitation) => invitation.email), ['invited@example.org']);
    });

    test('a role that the administrator cannot give is an error of its field', async () => {
      await go(page, '#/invitations');
      await press('Invite user');
      await page.route('**/users/invitations', (route) => {
        const errors = [{ field: 'role', code: 'scope_not_held', message: 'Your credential cannot give: wiki:write.' }];
        const body = { title: 'Invalid', status: 422, code: 'invalid', detail: 'The request is invalid.', errors };
        return route.fulfill({ status: 422, contentType: 'application/problem+json', body: JSON.stringify(body) });
      });
      await dialog().getByLabel('E-mail address').fill('wiki@example.org');
      await press('Send invitation', dialog());
      await dialog().getByText('Your credential cannot give: wiki:write.').waitFor();
      await page.waitForFunction(() => document.activeElement.matches('dialog select[aria-invalid=true]'));
      await page.unroute('**/users/invitations');
      await page.keyboard.press('Escape');
    });

    test('an expired invitation is sent again after a question, and keeps its place', async () => {
      const email = 'expired@example.org';
      await storeInvitations(server, [email], { hours: -24 });
      await go(page, '#/users');
      await go(page, '#/invitations');
      await row(email).getByText('expired', { exact: true }).waitFor();
      const resend = row(email).getByRole('button', { name: `Resend to ${email}` });
      await resend.click();
      await press('Cancel', dialog());
      assert.ok(Date.parse((await find(email)).expires_at) < Date.now());
      await resend.click();
      await press('Send again', dialog());
      await notice(`A mail to ${email} is on its way`);
      await row(email).getByText('pending').waitFor();
      assert.ok(await resend.evaluate((button) => button === document.activeElement), 'the button keeps the focus');
      assert.ok(Date.parse((await find(email)).expires_at) > Date.now());
      assert.equal((await accept(await smtp.link(email, 'invitation'))).status, 201);
    });

    test('revoke asks before it acts, ends the link, and keeps the keyboard in the page', async () => {
      const email = 'revoked@example.org';
      await request(server, 'POST', '/users/invitations', { token, json: { email } });
      const link = await smtp.link(email, 'invitation');
      await go(page, '#/users');
      await go(page, '#/invitations');
      const revoke = row(email).getByRole('button', { name: `Revoke the invitation of ${email}` });
      await revoke.click();
      await page.waitForFunction(() => document.activeElement.closest('dialog'));
      await page.keyboard.press('Enter');
      await dialog().waitFor({ state: 'detached' });
      assert.ok(await find(email), 'Enter cancels');
      await revoke.click();
      await press('Revoke invitation', dialog());
      await notice('The invitation is revoked');
      await row(email).waitFor({ state: 'detached' });
      await page.waitForFunction(() => document.activeElement.matches('main'));
      assert.equal(await find(email), undefined);
      assert.equal((await accept(link)).status, 410);
    });

    test('an invitation that has ended meanwhile is an error in the dialog', async () => {
      const email = 'gone@example.org';
      await storeInvitations(server, [email]);
      await go(page, '#/users');
      await go(page, '#/invitations');
      await row(email).getByRole('button', { name: /^Resend/ }).click();
      await request(server, 'DELETE', `/users/invitations/${(await find(email)).id}`, { token });
      await press('Send again', dialog());
      await dialog().getByRole('alert').getByText('Not found').waitFor();
      await page.keyboard.press('Escape');
    });

    test('an invitation that was sent a moment ago is an error in the dialog, and no message says that a mail is on its way', async () => {
      const email = 'impatient@example.org';
      await storeInvitations(server, [email]);
      await go(page, '#/users');
      await go(page, '#/invitations');
      const detail = 'A mail was sent to this address a moment ago. Try again later.';
      const body = JSON.stringify({ title: 'Too Many Requests', status: 429, code: 'rate_limited', detail });
      const tooMany = { status: 429, headers: { 'Retry-After': '42' }, contentType: 'application/problem+json', body };
      await page.route('**/users/invitations/*/resend', (route) => route.fulfill(tooMany), { times: 1 });
      await row(email).getByRole('button', { name: /^Resend/ }).click();
      await press('Send again', dialog());
      await dialog().getByRole('alert').getByText(detail).waitFor();
      assert.equal(await page.getByText('is on its way').count(), 0);
      await page.keyboard.press('Escape');
    });

    test('a long list loads part by part, and the address holds the state', async () => {
      for (const { id } of await stored()) await request(server, 'DELETE', `/users/invitations/${id}`, { token });
      const addresses = Array.from({ length: 2 * PART + 5 }, (_, index) => `many${index}@example.org`);
      await storeInvitations(server, addresses);
      await storeInvitations(server, ['late@example.org'], { hours: -1 });
      await go(page, '#/users');
      await go(page, '#/invitations');
      await page.mouse.move(640, 450);
      const more = page.getByRole('button', { name: /^Show more/ });
      for (let turn = 0; turn < 200 && (await more.count()) > 0; turn += 1) {
        await page.mouse.wheel(0, 1500);
        await page.waitForTimeout(25);
      }
      await rows(addresses.length + 1);
      await page.getByLabel('State').selectOption('expired');
      await rows(1);
      await row('late@example.org').waitFor();
      assert.match(page.url(), /#\/invitations\?state=expired$/);
      await page.goBack();
      await page.getByText('many0@example.org').waitFor();
      await row('late@example.org').waitFor({ state: 'detached' });
    });

    test('without mail.url, the page says what the command line does, and revokes', async () => {
      const email = 'unsent@example.org';
      await storeInvitations(server, [email]);
      await go(page, '#/invitations');
      await press('Invite user');
      await dialog().getByLabel('E-mail address').fill('late-mail@example.org');
      // The server restarts with other settings while the page is open.
      await server.suspend();
      server.environment.LATCHKEY__MAIL__URL = '';
      await server.resume();
      await press('Send invitation', dialog());
      const alert = page.getByRole('alert');
      await alert.getByText('mail.url').waitFor();
      await alert.getByText('latchkey user invite EMAIL --role ROLE').waitFor();
      assert.equal(await page.getByRole('button', { name: 'Invite user' }).count(), 0);

      const narrow = await Profile.open(browser, server, { viewport: NARROW });
      await narrow.signIn(ADMIN);
      page = await narrow.tab('#/invitations');
      await page.getByText('This server sends no mails').waitFor();
      await checkAccessibility(page, 'invitations without mails');
      assert.equal(await page.getByRole('button', { name: /^(Invite|Resend)/ }).count(), 0);
      const link = await server.command(['user', 'invite', 'by-hand@example.org', '--role', 'member']);
      assert.equal((await accept(link.trim())).status, 201);
      await page.getByLabel('State').selectOption('expired');
      await row('late@example.org').getByRole('button', { name: /^Revoke/ }).click();
      await press('Revoke invitation', dialog());
      await notice('The invitation is revoked');
      assert.equal(await find('late@example.org'), undefined);
      await narrow.close();
    });
  });
}
