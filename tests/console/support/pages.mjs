// Every page and every dialog of the console, and pages in other states than the first one. sources.test.mjs compares
// these lists with the sources of the console.

import { ADMIN, MEMBER } from './accounts.mjs';

/** The first parts of the paths of links in mails. */
export const LINKS = ['password-reset', 'email-verification', 'registration', 'email-change', 'email-undo', 'invitation'];

/** Each page: its name, who opens it (`null`: nobody is signed in), and its route. `ids` are those of `populate`. */
export function pages(ids) {
  return [
    { name: 'sign-in', user: null, route: '#/sign-in' },
    { name: 'register', user: null, route: '#/register' },
    { name: 'forgotten-password', user: null, route: '#/forgotten-password' },
    { name: 'link-without-secret', user: null, route: '#/password-reset' },
    ...LINKS.map((purpose) => ({ name: `link-${purpose}`, user: null, route: `#/${purpose}/lkm_0` })),
    { name: 'profile', user: MEMBER, route: '#/profile' },
    { name: 'password', user: MEMBER, route: '#/password' },
    { name: 'sessions', user: MEMBER, route: '#/sessions' },
    { name: 'keys', user: MEMBER, route: '#/keys' },
    { name: 'key', user: MEMBER, route: `#/keys/${ids.key}` },
    { name: 'activity', user: MEMBER, route: '#/activity' },
    { name: 'no-such-page', user: MEMBER, route: '#/no-such-page' },
    { name: 'pages', user: ADMIN, route: '#/pages' },
    { name: 'page-history', user: ADMIN, route: `#/pages/${ids.page}/history` },
    { name: 'users', user: ADMIN, route: '#/users' },
    { name: 'user', user: ADMIN, route: `#/users/${ids.member}` },
    { name: 'user-disabled', user: ADMIN, route: `#/users/${ids.disabled}` },
    { name: 'invitations', user: ADMIN, route: '#/invitations' },
    { name: 'invitations-expired', user: ADMIN, route: '#/invitations?state=expired' },
    { name: 'issued-keys', user: ADMIN, route: '#/issued-keys' },
    { name: 'issued-key', user: ADMIN, route: `#/issued-keys/${ids.issued}` },
    { name: 'audit', user: ADMIN, route: '#/audit' },
    { name: 'audit-filtered', user: ADMIN, route: '#/audit?outcome=failure&actor=anonymous' },
    { name: 'audit-empty', user: ADMIN, route: '#/audit?user=999999' },
    { name: 'audit-entry', user: ADMIN, route: `#/audit/${ids.entry}` },
    { name: 'statistics', user: ADMIN, route: '#/statistics' },
    { name: 'statistics-month', user: ADMIN, route: '#/statistics?period=month' },
  ];
}

const button = (name) => (page) => page.getByRole('main').getByRole('button', { name, exact: true }).first().click();

const act = (name, email) => (page) => page.getByRole('row').filter({ hasText: email }).getByRole('button', { name }).click();

const submit = (name) => (page) => page.getByRole('dialog').getByRole('button', { name, exact: true }).click();

/** Shows the warning: the server says once, when the console reads the session after a change, that its end is near. */
async function nearEnd(page) {
  await page.route(
    '**/session',
    async (route) => {
      // Playwright sends this request itself, without the headers of the browser, and perhaps on a connection that the
      // server is closing.
      const headers = { ...route.request().headers(), 'sec-fetch-site': 'same-origin' };
      const response = await route.fetch({ headers, maxRetries: 1 });
      await route.fulfill({ response, json: { ...(await response.json()), idle_seconds: 115 } });
    },
    { times: 1 },
  );
  await button('Save')(page);
}

const files = {
  key: 'pages/account/key.tsx',
  keys: 'pages/account/keys.tsx',
  profile: 'pages/account/profile.tsx',
  sessions: 'pages/account/sessions.tsx',
  user: 'pages/admin/user.tsx',
  role: 'pages/admin/role-dialog.tsx',
  invite: 'pages/admin/invite-dialog.tsx',
  invitation: 'pages/admin/invitation-acts.tsx',
  issue: 'pages/admin/issue-dialog.tsx',
  issued: 'pages/admin/issued-key.tsx',
  watch: 'components/session-watch.tsx',
};

/**
 * Each dialog: the page that it belongs to, and how it is opened there. `title` is its heading, with `#` for a number,
 * and `file` is its source.
 */
export function dialogs(ids) {
  const member = (route, file) => ({ user: MEMBER, route, file });
  const admin = (route, file) => ({ user: ADMIN, route, file });
  const key = member(`#/keys/${ids.key}`, files.key);
  const sessions = member('#/sessions', files.sessions);
  const profile = member('#/profile', files.profile);
  const user = admin(`#/users/${ids.member}`, files.user);
  const issued = admin(`#/issued-keys/${ids.issued}`, files.issued);
  const invite = admin('#/invitations', files.invite);
  const invitation = admin('#/invitations', files.invitation);
  return [
    { name: 'key-create', ...member('#/keys', files.keys), title: 'Create a key', open: button('Create key') },
    { name: 'key-rotate', ...key, title: 'Rotate this key', open: button('Rotate key') },
    { name: 'key-revoke', ...key, title: 'Revoke this key?', open: button('Revoke key') },
    { name: 'session-end', ...sessions, title: 'End this session?', open: button('End') },
    { name: 'sessions-end', ...sessions, title: 'End # sessions?', open: button('End all others') },
    { name: 'session-warning', ...profile, file: files.watch, title: 'Your session is about to end', open: nearEnd },
    { name: 'account-delete', ...profile, title: 'Delete your account?', open: button('Delete your account') },
    { name: 'user-role', ...user, file: files.role, title: 'Change the role', open: button('Change role') },
    { name: 'user-sign-in', ...user, title: 'End the sign-in of this user?', open: button('End sign-in') },
    { name: 'user-disable', ...user, title: 'Disable this account?', open: button('Disable account') },
    { name: 'user-delete', ...user, title: 'Delete this account?', open: button('Delete account') },
    { name: 'invite', ...invite, title: 'Invite a user', open: button('Invite user') },
    { name: 'invitation-resend', ...invitation, title: 'Send this invitation again?', open: act(/Resend/, 'dorothy@') },
    { name: 'invitation-revoke', ...invitation, title: 'Revoke this invitation?', open: act(/Revoke/, 'dorothy@') },
    { name: 'issue-key', ...admin('#/issued-keys', files.issue), title: 'Issue a key', open: button('Issue a key') },
    { name: 'issued-key-revoke', ...issued, title: 'Revoke this key?', open: button('Revoke key') },
  ];
}

/**
 * Pages after `open` did something: errors, secrets, outages. They have the properties of dialogs, but a `title` and a
 * `file` only where they are dialogs.
 */
export function states(ids) {
  return [
    {
      name: 'sign-in-errors',
      user: null,
      route: '#/sign-in',
      open: async (page) => {
        await page.getByRole('button', { name: 'Sign in', exact: true }).click();
        await page.locator('[aria-invalid=true]').first().waitFor();
      },
    },
    {
      name: 'register-errors',
      user: null,
      route: '#/register',
      open: async (page) => {
        await page.getByRole('main').getByRole('button', { name: 'Register' }).click();
        await page.locator('[aria-invalid=true]').first().waitFor();
      },
    },
    {
      name: 'link-error',
      user: null,
      route: '#/email-undo/lkm_0',
      open: async (page) => {
        await button('Restore the address')(page);
        await page.getByRole('alert').waitFor();
      },
    },
    {
      name: 'menu',
      user: ADMIN,
      route: '#/profile',
      open: async (page) => {
        const menu = page.getByRole('button', { name: 'Menu' });
        if (await menu.isVisible()) await menu.click();
      },
    },
    {
      name: 'statistics-table',
      user: ADMIN,
      route: '#/statistics',
      open: (page) => page.getByRole('button', { name: /^Show table/ }).first().click(),
    },
    {
      name: 'audit-filter-errors',
      user: ADMIN,
      route: '#/audit?outcome=failure',
      open: async (page) => {
        await page.getByLabel('Actor').fill('nobody');
        await page.getByRole('button', { name: 'Apply filters' }).click();
        await page.locator('[aria-invalid=true]').waitFor();
      },
    },
    {
      name: 'invite-errors',
      user: ADMIN,
      route: '#/invitations',
      open: async (page) => {
        await button('Invite user')(page);
        await page.getByRole('dialog').getByLabel('E-mail address').fill(MEMBER.email);
        await submit('Send invitation')(page);
        await page.getByText('A user with this e-mail already exists').waitFor();
      },
    },
    {
      name: 'key-secret',
      user: MEMBER,
      route: '#/keys',
      file: files.keys,
      title: 'The key is created',
      open: async (page) => {
        await button('Create key')(page);
        await page.getByRole('dialog').getByLabel('Name').fill('Laptop');
        await page.getByRole('dialog').getByLabel('pages:read').check();
        await submit('Create key')(page);
        await page.getByRole('dialog').getByText(/^lkk_/).waitFor();
      },
    },
    {
      name: 'key-new-secret',
      user: MEMBER,
      route: `#/keys/${ids.key}`,
      file: files.key,
      title: 'The key has a new secret',
      open: async (page) => {
        await button('Rotate key')(page);
        await submit('Rotate key')(page);
        await page.getByText('The old secret is valid until').waitFor();
      },
    },
    {
      name: 'issued-key-secret',
      user: ADMIN,
      route: '#/issued-keys',
      file: files.issue,
      title: 'The key is issued',
      open: async (page) => {
        await button('Issue a key')(page);
        await page.getByRole('dialog').getByLabel('Name').fill('Gift');
        await page.getByRole('dialog').getByLabel('Scopes').fill('translate:use');
        await submit('Issue key')(page);
        await page.getByRole('dialog').getByText(/^lkk_/).waitFor();
      },
    },
    {
      name: 'invitations-without-mail',
      user: ADMIN,
      route: '#/invitations',
      open: async (page) => {
        const body = { title: 'Not Found', status: 404, code: 'not_configured', detail: 'mail.url is not set.', request_id: '5f0c' };
        await page.route(
          '**/users/invitations/*/resend',
          (route) => route.fulfill({ status: 404, contentType: 'application/problem+json', body: JSON.stringify(body) }),
          { times: 1 },
        );
        await act(/Resend/, 'dorothy@')(page);
        await page.getByRole('button', { name: 'Send again' }).click();
        await page.getByText('This server sends no mails').waitFor();
      },
    },
    {
      name: 'user-server-error',
      user: ADMIN,
      route: '#/users',
      open: async (page) => {
        const body = { title: 'Error', status: 500, code: 'internal', detail: 'The disk is full.', request_id: '5f0c3c9e' };
        await page.route('**/keys?*', (route) => {
          return route.fulfill({ status: 500, contentType: 'application/problem+json', body: JSON.stringify(body) });
        });
        await page.evaluate(() => {
          location.hash = '#/issued-keys';
        });
        await page.getByText('The disk is full').waitFor();
      },
    },
  ];
}
