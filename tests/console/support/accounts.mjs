// Accounts and data for tests, made through the API.

import assert from 'node:assert/strict';

import { send } from './http.mjs';
import { PASSWORD } from './server.mjs';

export const ADMIN = { email: 'admin@example.org', name: 'Augusta', role: 'admin' };
export const AUDITOR = { email: 'auditor@example.org', name: 'Abraham', role: 'auditor' };
export const MEMBER = { email: 'ada@example.org', name: 'Adaline', role: 'member' };

/** Sends a request that must succeed, and returns its JSON. */
export async function request(server, method, path, options) {
  const answer = await send(server, method, path, options);
  assert.ok(answer.status < 300, `${method} ${path}: ${answer.status} ${answer.text}`);
  return answer.text ? answer.json : null;
}

/** Registers a member. Returns the user. */
export function register(server, email, fields = {}) {
  const json = { name: 'Grace', surname: 'Hopper', email, website: '', password: PASSWORD, ...fields };
  return request(server, 'POST', '/register', { json });
}

/** Returns a sign-in token. */
export async function tokenOf(server, { email }) {
  const form = { grant_type: 'password', username: email, password: PASSWORD };
  return (await request(server, 'POST', '/token', { form })).access_token;
}

/** Signs in like the console. Returns the response, which sets the cookie. */
export async function signIn(server, { email }, options = {}) {
  const json = { email, password: PASSWORD };
  const answer = await send(server, 'POST', '/session', { json, site: 'same-origin', ...options });
  assert.equal(answer.status, 201, answer.text);
  return answer;
}

/** Stores invitations by the admin that end after `hours`, and sends no mail. */
export async function storeInvitations(server, emails, { role = 'member', hours = 72 } = {}) {
  const at = (offset) => new Date(Date.now() + offset * 3_600_000).toISOString().slice(0, 19).replace('T', ' ');
  const texts = emails.map((email) => `'${email.replaceAll("'", "''")}'`);
  const statements = texts.map((text) => `
    INSERT INTO invitations (email, email_key, role, locale, invited_by, created_at, expires_at)
    SELECT ${text}, ${text}, '${role}', 'en', id, '${at(hours - 72)}', '${at(hours)}'
    FROM users WHERE email_key = '${ADMIN.email}';`);
  await server.sql(statements.join(''));
}

/** Creates the admin and a member, and nothing else. Returns the member. */
export async function createAccounts(server) {
  await server.createUser(ADMIN.email, ADMIN.name, 'admin');
  return register(server, MEMBER.email, { name: MEMBER.name, surname: 'Lovelace' });
}

/**
 * Creates accounts with keys, sessions, issued keys, invitations, pages and entries of all outcomes, so that no page of
 * the console is empty.
 * Returns the ids that routes need.
 */
export async function populate(server) {
  await server.createUser(ADMIN.email, ADMIN.name, 'admin');
  await server.createUser(AUDITOR.email, AUDITOR.name, 'auditor');
  const member = await register(server, MEMBER.email, {
    name: MEMBER.name,
    surname: 'Lovelace',
    website: 'https://ada.example.org',
  });
  const disabled = await register(server, 'disabled@example.org', { name: 'Donald', surname: 'Inactive' });
  const [admin, ada] = [await tokenOf(server, ADMIN), await tokenOf(server, MEMBER)];
  await request(server, 'PATCH', `/users/${disabled.id}`, { token: admin, json: { disabled: true } });

  const keys = {};
  for (const token of [admin, ada]) {
    keys[token] = await request(server, 'POST', '/me/keys', {
      token,
      json: { name: 'Backup script', scopes: ['pages:read'], expires_at: '2029-01-01T00:00:00Z' },
    });
    await request(server, 'POST', '/me/keys', { token, json: { name: 'Laptop', scopes: ['pages:read', 'keys:read'] } });
  }
  await request(server, 'GET', '/me', { token: keys[ada].key });
  const firefox = 'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0';
  for (const headers of [{ 'User-Agent': firefox }, {}]) await signIn(server, MEMBER, { headers });

  const issue = (json) => request(server, 'POST', '/keys', { token: admin, json });
  const issued = await issue({
    name: 'Subscription of Ada',
    scopes: ['translate:use'],
    order: 'order-1042',
    metadata: { plan: 'basic' },
  });
  await issue({ name: 'Gift', scopes: ['translate:use'], order: 'order-1043', delivery: 'claim' });
  const revoked = await issue({ name: 'Refunded', scopes: ['translate:use'], order: 'order-1044' });
  await request(server, 'DELETE', `/keys/${revoked.id}`, { token: admin });
  await storeInvitations(server, ['dorothy@example.org']);
  await storeInvitations(server, ['mary@example.org'], { role: 'auditor', hours: -24 });

  const page = await request(server, 'POST', '/page/', { token: ada, json: { title: 'Notes', body: 'First text' } });
  await request(server, 'PATCH', `/page/${page.id}`, { token: ada, json: { body: 'Second text' } });
  await send(server, 'PATCH', `/page/${page.id}`, { token: admin, json: { body: 'Not mine' } });
  for (const password of ['wrong password', 'another wrong one']) {
    await send(server, 'POST', '/token', { form: { grant_type: 'password', username: MEMBER.email, password } });
  }
  await send(server, 'GET', '/users', { token: ada });
  const entries = await request(server, 'GET', '/audit?limit=5&outcome=failure', { token: admin });
  return {
    member: member.id,
    disabled: disabled.id,
    key: keys[ada].id,
    adminKey: keys[admin].id,
    issued: issued.id,
    page: page.id,
    entry: entries.items[0].id,
  };
}
