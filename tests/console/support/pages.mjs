// Every page and every dialog of the console, and pages in other states than the first one.

import { ADMIN, MEMBER } from './accounts.mjs';

/** Each page: its name, who opens it (`null`: nobody is signed in), and its route. `ids` are those of `populate`. */
export function pages(ids) {
  return [
    { name: 'sign-in', user: null, route: '#/sign-in' },
    { name: 'register', user: null, route: '#/register' },
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

/** Each dialog: the page that it belongs to, and how it is opened there. */
export function dialogs(ids) {
  const key = `#/keys/${ids.key}`;
  const user = `#/users/${ids.member}`;
  return [
    { name: 'key-create', user: MEMBER, route: '#/keys', open: button('Create key') },
    { name: 'key-rotate', user: MEMBER, route: key, open: button('Rotate key') },
    { name: 'key-revoke', user: MEMBER, route: key, open: button('Revoke key') },
    { name: 'account-delete', user: MEMBER, route: '#/profile', open: button('Delete your account') },
    { name: 'user-role', user: ADMIN, route: user, open: button('Change role') },
    { name: 'user-sign-in', user: ADMIN, route: user, open: button('End sign-in') },
    { name: 'user-disable', user: ADMIN, route: user, open: button('Disable account') },
    { name: 'user-delete', user: ADMIN, route: user, open: button('Delete account') },
    { name: 'issue-key', user: ADMIN, route: '#/issued-keys', open: button('Issue a key') },
    { name: 'issued-key-revoke', user: ADMIN, route: `#/issued-keys/${ids.issued}`, open: button('Revoke key') },
  ];
}

/** Pages after `open` did something: errors, secrets, outages. They have the properties of dialogs. */
export function states() {
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
      name: 'issued-key-secret',
      user: ADMIN,
      route: '#/issued-keys',
      open: async (page) => {
        await button('Issue a key')(page);
        await page.getByRole('dialog').getByLabel('Name').fill('Gift');
        await page.getByRole('dialog').getByLabel('Scopes').fill('translate:use');
        await page.getByRole('button', { name: 'Issue key', exact: true }).click();
        await page.getByText(/^lkk_/).waitFor();
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
