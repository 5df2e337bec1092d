// The links in mails, opened in Chromium.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { register, request, tokenOf } from './support/accounts.mjs';
import { NARROW, Profile, go, launch, settled } from './support/browser.mjs';
import { send } from './support/http.mjs';
import { CONFIGURATIONS, PASSWORD, Server } from './support/server.mjs';
import { Smtp } from './support/smtp.mjs';

const NEW_PASSWORD = 'another horse battery';
/** What the page of each link says about a link that is not valid. */
const NEW_LINK = {
  'password-reset': 'Request a new one',
  'email-verification': 'Send it again in your profile',
  registration: 'Register again',
  'email-change': 'Request the change again in your profile',
  'email-undo': 'Request a new one',
  invitation: 'Ask the person who invited you',
};

const PERSON = { name: 'Grace', surname: '', password: PASSWORD };

/** Verifies an address with the link that was sent to it. Only a verified address can undo a change. */
async function verify(server, smtp, email) {
  const secret = (await smtp.link(email, 'email-verification')).split('/').at(-1);
  await request(server, 'POST', '/email-verification/confirm', { json: { secret, password: PASSWORD } });
}

/** Requests the change of an address. Returns the new one. */
async function requestChange(server, email) {
  await register(server, email);
  const json = { email: `new-${email}`, current_password: PASSWORD };
  await request(server, 'PATCH', '/me', { token: await tokenOf(server, { email }), json });
  return json.email;
}

/** What links do. `request` causes a mail with one and returns its address; `path` and `fields` are what the page sends. */
const PURPOSES = [
  {
    name: 'password-reset',
    request: async (server, email) => {
      await register(server, email);
      await request(server, 'POST', '/password-reset', { json: { email } });
      return email;
    },
    path: '/password-reset/confirm',
    fields: { new_password: NEW_PASSWORD },
  },
  {
    name: 'email-verification',
    request: async (server, email) => (await register(server, email)).email,
    path: '/email-verification/confirm',
    fields: { password: PASSWORD },
  },
  {
    name: 'registration',
    request: async (server, email) => {
      await register(server, email);
      return email;
    },
    path: '/registration/confirm',
    fields: PERSON,
  },
  { name: 'email-change', request: requestChange, path: '/email-change/confirm', fields: { password: PASSWORD } },
  {
    name: 'email-undo',
    request: async (server, email, smtp) => {
      const link = await smtp.link(await requestChange(server, email), 'email-change');
      await verify(server, smtp, email);
      const json = { secret: link.split('/').at(-1), password: PASSWORD };
      await request(server, 'POST', '/email-change/confirm', { json });
      return email;
    },
    path: '/email-change/undo',
    fields: {},
  },
  {
    name: 'invitation',
    request: async (server, email) => {
      const token = await tokenOf(server, { email: 'inviter@example.org' });
      await request(server, 'POST', '/users/invitations', { token, json: { email } });
      return email;
    },
    path: '/invitations/accept',
    fields: PERSON,
  },
];

for (const configuration of CONFIGURATIONS.slice(0, 2)) {
  describe(`links in mails on ${configuration.database}, profile ${configuration.profile}`, () => {
    let smtp;
    let server;
    let browser;

    before(async () => {
      smtp = await Smtp.start();
      [server, browser] = await Promise.all([Server.start(configuration, smtp.settings), launch()]);
    });
    after(async () => {
      await browser?.close();
      await server?.stop();
      smtp?.stop();
    });

    const press = (page, name) => page.getByRole('button', { name, exact: true }).click();
    const signIn = async (email, password) => {
      const form = { grant_type: 'password', username: email, password };
      return (await send(server, 'POST', '/token', { form })).status;
    };

    test('a forgotten password is replaced', async () => {
      const email = 'forgotten@example.org';
      await register(server, email);
      const profile = await Profile.open(browser, server);
      let page = await profile.tab('#/sign-in');
      await page.getByRole('link', { name: 'Forgotten password?' }).click();
      await page.getByLabel('E-mail address').fill(email);
      await press(page, 'Send the link');
      await page.getByText('a mail is on its way').waitFor();
      const link = await smtp.link(email, 'password-reset');
      page = await profile.tab(link);
      assert.equal(new URL(page.url()).hash, '#/password-reset', 'the secret is not in the address bar');
      await page.reload();
      await page.getByRole('heading', { name: 'Open the link again' }).waitFor();
      await page.getByRole('link', { name: 'Request a new one' }).waitFor();
      await go(page, link);
      await page.getByLabel('New password', { exact: true }).fill(NEW_PASSWORD);
      await press(page, 'Set the password');
      await page.getByText('Your password is changed').waitFor();
      assert.equal(await signIn(email, NEW_PASSWORD), 200);
      page = await profile.tab(link);
      await page.getByLabel('New password', { exact: true }).fill(PASSWORD);
      await press(page, 'Set the password');
      await page.getByText('The link is not valid').waitFor();
      await go(page, link);
      await page.waitForFunction(() => location.hash === '#/password-reset');
      await page.getByRole('link', { name: 'Request a new one' }).click();
      await page.getByRole('button', { name: 'Send the link' }).waitFor();
      await profile.close();
    });

    const fillRegistration = async (page, email) => {
      await page.getByLabel('First name').fill('Grace');
      await page.getByLabel('E-mail address').fill(email);
      await page.getByLabel('Password', { exact: true }).fill(PASSWORD);
      await page.getByRole('main').getByRole('button', { name: 'Register' }).click();
    };

    test('a registration signs in, and names the address to which the mail was sent', async () => {
      const email = 'fresh@example.org';
      const profile = await Profile.open(browser, server);
      const page = await profile.tab('#/register');
      await fillRegistration(page, email);
      await page.getByRole('heading', { name: 'Profile' }).waitFor();
      await page.getByRole('status').getByText(`Open the link in the mail to ${email}.`).waitFor();
      await smtp.link(email, 'email-verification');
      await profile.close();
    });

    test('a registration that requires a verified address signs in only after the link in the mail', async () => {
      const strict = await Server.start(configuration, { ...smtp.settings, LATCHKEY__AUTH__REQUIRE_VERIFIED_EMAIL: 'true' });
      try {
        const email = 'strict@example.org';
        const profile = await Profile.open(browser, strict);
        const page = await profile.tab('#/register');
        await fillRegistration(page, email);
        await page.getByRole('heading', { name: 'Sign in' }).waitFor();
        await page.getByText(`Open the link in the mail to ${email}. Then sign in.`).waitFor();
        assert.equal(profile.requests.filter((request) => request.method() === 'POST').length, 1, 'no sign-in is refused');
        await go(page, await smtp.link(email, 'email-verification'));
        await page.getByText('Sign in: the server then sends a new one').waitFor();
        await page.getByLabel('Password', { exact: true }).fill(PASSWORD);
        await press(page, 'Verify the address');
        await page.getByRole('main').getByRole('link', { name: 'Sign in' }).click();
        await page.getByLabel('E-mail address').fill(email);
        await page.getByLabel('Password', { exact: true }).fill(PASSWORD);
        await press(page, 'Sign in');
        await page.getByRole('heading', { name: 'Profile' }).waitFor();
        await profile.close();
      } finally {
        await strict.stop();
      }
    });

    test('programs that open links and run the scripts of their pages use none up', async () => {
      const verified = await Server.start(configuration, { ...smtp.settings, LATCHKEY__REGISTRATION__MODE: 'verified' });
      try {
        await server.createUser('inviter@example.org', 'Augusta', 'admin');
        for (const purpose of PURPOSES) {
          const on = purpose.name === 'registration' ? verified : server;
          const email = `scanned-${purpose.name}@example.org`;
          const link = await smtp.link(await purpose.request(on, email, smtp), purpose.name);
          const profile = await Profile.open(browser, on);
          for (let opened = 0; opened < 2; opened += 1) {
            const scanner = await profile.tab(link);
            await scanner.waitForLoadState('networkidle');
            await scanner.close();
          }
          const changes = profile.requests.filter((sent) => sent.method() !== 'GET');
          assert.deepEqual(changes.map((sent) => sent.url()), [], purpose.name);
          await profile.close();
          const json = { secret: link.split('/').at(-1), ...purpose.fields };
          const used = await send(on, 'POST', purpose.path, { json });
          assert.ok(used.status < 300, `${purpose.name}: ${used.status} ${used.text}`);
        }
      } finally {
        await verified.stop();
      }
    });

    test('the profile sends the link that verifies the address again', async () => {
      const email = 'again@example.org';
      await register(server, email);
      await smtp.link(email, 'email-verification');
      const profile = await Profile.open(browser, server);
      await profile.signIn({ email });
      let page = await profile.tab('#/profile');
      await page.getByRole('heading', { name: 'Verify your e-mail address' }).waitFor();
      const [answer] = await Promise.all([
        page.waitForResponse((response) => response.url().endsWith('/email-verification')),
        press(page, 'Send the link again'),
      ]);
      assert.equal(answer.status(), 202);
      await page.getByText('a link is on its way').waitFor();
      page = await profile.tab(await smtp.link(email, 'email-verification'));
      await page.getByLabel('Password', { exact: true }).fill(PASSWORD);
      await press(page, 'Verify the address');
      await page.getByText('Your e-mail address is verified').waitFor();
      page = await profile.tab('#/profile');
      await page.getByRole('heading', { name: 'Change your e-mail address' }).waitFor();
      assert.equal(await page.getByRole('button', { name: 'Send the link again' }).count(), 0);
      await profile.close();
    });

    test('the page of each link says how to get a new one, before and after an error and a reload', async () => {
      const profile = await Profile.open(browser, server, { viewport: { ...NARROW, width: 360 } });
      const page = await profile.tab();
      for (const [purpose, text] of Object.entries(NEW_LINK)) {
        await go(page, `#/${purpose}/lkm_0`);
        await page.getByRole('paragraph').filter({ hasText: `Is the link not valid any more? ${text}` }).waitFor();
        // "e-" on one line and "mail" on the next one would be hard to read.
        for (const word of await page.locator('h1 span').all()) {
          assert.equal(await word.evaluate((element) => element.getClientRects().length), 1, purpose);
        }
      }
      await go(page, '#/email-undo/lkm_0');
      await press(page, 'Restore the address');
      await page.getByText('The link is not valid').waitFor();
      for (const [purpose, text] of Object.entries(NEW_LINK)) {
        await go(page, `#/${purpose}`);
        await page.getByRole('heading', { name: 'Open the link again' }).waitFor();
        await page.getByRole('paragraph').filter({ hasText: `Is the link not valid any more? ${text}` }).waitFor();
      }
      await profile.close();
    });

    test('an address is verified with a click and the password', async () => {
      const email = 'verify@example.org';
      await register(server, email);
      const link = await smtp.link(email, 'email-verification');
      const profile = await Profile.open(browser, server);
      const page = await profile.tab(link);
      await page.getByLabel('Password', { exact: true }).fill(NEW_PASSWORD);
      await press(page, 'Verify the address');
      await page.getByText('The current password is wrong').waitFor();
      await page.getByLabel('Password', { exact: true }).fill(PASSWORD);
      await press(page, 'Verify the address');
      await page.getByText('Your e-mail address is verified').waitFor();
      // The message has the focus, so that screen readers read it, and the keyboard goes on from there.
      await page.waitForFunction(() => document.activeElement.textContent === 'Your e-mail address is verified.');
      await page.keyboard.press('Tab');
      assert.equal(await page.evaluate(() => document.activeElement.textContent), 'Sign in');
      assert.equal(await page.getByText('Is the link not valid any more?').count(), 0);
      await profile.close();
    });

    test('a new address is confirmed at it, and restored at the old one with a new password', async () => {
      const [old, other] = ['old@example.org', 'new@example.org'];
      const user = { email: old, ...(await register(server, old)) };
      await verify(server, smtp, old);
      const profile = await Profile.open(browser, server);
      await profile.signIn(user);
      let page = await profile.tab('#/profile');
      await page.getByRole('heading', { name: 'Mails to you' }).waitFor();
      const hint = page.getByText('To end this change, enter your present address');
      for (const [address, message] of [
        ['third@example.org', 'Until then, your present address stays'],
        [old, `Your e-mail address stays ${old}`],
        [other, 'Until then, your present address stays'],
      ]) {
        await page.getByLabel('New e-mail address').fill(address);
        await page.getByLabel('Current password', { exact: true }).fill(PASSWORD);
        await press(page, 'Change e-mail address');
        await page.getByText(message).waitFor();
        assert.equal(await hint.count(), address === old ? 0 : 1, address);
      }
      page = await profile.tab(await smtp.link(other, 'email-change'));
      await page.getByLabel('Password', { exact: true }).fill(PASSWORD);
      await press(page, 'Use this address');
      await page.getByText('Your e-mail address is changed').waitFor();
      assert.equal(await signIn(other, PASSWORD), 200);
      page = await profile.tab(await smtp.link(old, 'email-undo'));
      await press(page, 'Restore the address');
      await page.getByText('Your e-mail address is restored').waitFor();
      assert.notEqual(await signIn(old, PASSWORD), 200);
      await page.getByLabel('New password', { exact: true }).fill(NEW_PASSWORD);
      await press(page, 'Set the password');
      await page.getByText('Your password is changed').waitFor();
      assert.equal(await signIn(old, NEW_PASSWORD), 200);
      await profile.close();
    });

    test('a link that waits for a busy server says so', async () => {
      const email = 'busy@example.org';
      await register(server, email);
      const profile = await Profile.open(browser, server);
      const page = await profile.tab(await smtp.link(email, 'email-verification'));
      const body = JSON.stringify({ title: 'Busy', status: 503, code: 'busy', detail: 'The server is busy.' });
      const busy = { status: 503, headers: { 'Retry-After': '3' }, contentType: 'application/problem+json', body };
      await page.route('**/email-verification/confirm', (route) => route.fulfill(busy), { times: 1 });
      await page.getByLabel('Password', { exact: true }).fill(PASSWORD);
      await press(page, 'Verify the address');
      await page.getByText('The server is busy. The console tries again').waitFor();
      await page.getByText('Your e-mail address is verified').waitFor();
      await profile.close();
    });

    test('a registration with a verified address is completed by the holder of the link', async () => {
      const verified = await Server.start(configuration, { ...smtp.settings, LATCHKEY__REGISTRATION__MODE: 'verified' });
      try {
        const email = 'complete@example.org';
        const profile = await Profile.open(browser, verified);
        let page = await profile.tab('#/register');
        await page.getByLabel('E-mail address').fill(email);
        assert.equal(await page.getByRole('textbox').count(), 1, 'only the address is kept');
        await page.getByRole('main').getByRole('button', { name: 'Register' }).click();
        await page.getByText(`Open the link in the mail to ${email}`).waitFor();
        await page.waitForFunction(() => document.activeElement.textContent.startsWith('Open the link in the mail'));
        page = await profile.tab(await smtp.link(email, 'registration'));
        await page.getByLabel('First name').fill('Grace');
        await page.getByLabel('Password', { exact: true }).fill(PASSWORD);
        await press(page, 'Create the account');
        await page.getByText('Your account is created').waitFor();
        const form = { grant_type: 'password', username: email, password: PASSWORD };
        assert.equal((await send(verified, 'POST', '/token', { form })).status, 200);
        await profile.close();
      } finally {
        await verified.stop();
      }
    });

    test('an invited person creates an account', async () => {
      await server.createUser('root@example.org', 'Augusta', 'admin');
      const form = { grant_type: 'password', username: 'root@example.org', password: PASSWORD };
      const token = (await send(server, 'POST', '/token', { form })).json.access_token;
      const email = 'invited@example.org';
      assert.equal((await send(server, 'POST', '/users/invitations', { token, json: { email } })).status, 201);
      const profile = await Profile.open(browser, server);
      const page = await profile.tab(await smtp.link(email, 'invitation'));
      await settled(page);
      await page.getByLabel('First name').fill('Dorothy');
      await page.getByLabel('Password', { exact: true }).fill(PASSWORD);
      await press(page, 'Create the account');
      await page.getByText('Your account is created').waitFor();
      assert.equal(await signIn(email, PASSWORD), 200);
      await profile.close();
    });
  });
}
