// Every page and every dialog of the console.

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
