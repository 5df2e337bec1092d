// Browser sessions over HTTP: which requests a cookie opens, what ends it, and what an attacker can do with it.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { ADMIN, MEMBER, createAccounts, register, request, signIn, tokenOf } from './support/accounts.mjs';
import { send, sendInSession } from './support/http.mjs';
import { CONFIGURATIONS, PASSWORD, Server } from './support/server.mjs';

const OLD_AND_NEW = { current_password: PASSWORD, new_password: 'another horse battery' };

for (const configuration of CONFIGURATIONS) {
  describe(`sessions on ${configuration.database}, profile ${configuration.profile}`, () => {
    let server;
    let member;

    before(async () => {
      server = await Server.start(configuration);
      member = await createAccounts(server);
    });
    after(() => server?.stop());

    const me = (cookie, options) => sendInSession(server, cookie, 'GET', '/me', options);
    const isEnded = async (cookie) => assert.match((await me(cookie)).summary, /^40[13] (invalid_token|not_authenticated)$/);
    const isOpen = async (cookie) => assert.equal((await me(cookie)).status, 200);
    const newMember = async (email) => ({ email, ...(await register(server, email)) });

    test('the cookie has the prefix __Host- and is Secure, HttpOnly and SameSite=Strict', async () => {
      const answer = await signIn(server, MEMBER);
      const [pair, ...attributes] = answer.setCookie.split('; ');
      assert.match(pair, /^__Host-latchkey=lks_[0-9A-Za-z]{49}$/);
      assert.deepEqual(attributes.sort(), ['HttpOnly', 'Path=/', 'SameSite=Strict', 'Secure']);
      assert.equal(answer.headers['cache-control'], 'no-store');
      assert.ok(!answer.text.includes(answer.secret), 'the body must not contain the secret');
      await isOpen(answer.secret);
    });

    test('a request that another site or another port makes with the cookie is rejected', async () => {
      const { secret } = await signIn(server, MEMBER);
      const json = { surname: 'Forged' };
      for (const headers of [
        {},
        { 'Sec-Fetch-Site': 'cross-site' },
        { 'Sec-Fetch-Site': 'same-site' },
        { 'Sec-Fetch-Site': 'none' },
        { 'Sec-Fetch-Site': 'same-site', Origin: server.origin },
        { Origin: 'null' },
        { Origin: 'https://attacker.example' },
        { Origin: `http://localhost:${server.port + 1}` },
        { Origin: `https://localhost:${server.port}` },
        { Origin: `http://127.0.0.1:${server.port}` },
        { Referer: `${server.origin}/console/` },
      ]) {
        for (const [method, path, options] of [
          ['GET', '/me', {}],
          ['GET', '/session', {}],
          ['PATCH', '/me', { json }],
          ['DELETE', '/me', {}],
          ['DELETE', '/session', {}],
          ['PUT', '/me/password', { json: OLD_AND_NEW }],
        ]) {
          const answer = await send(server, method, path, { cookie: secret, headers, ...options });
          assert.equal(answer.summary, '403 cross_site_request', `${method} ${path} ${JSON.stringify(headers)}`);
        }
      }
      assert.equal((await me(secret)).json.surname, 'Lovelace');
      const own = await send(server, 'GET', '/me', { cookie: secret, headers: { Origin: server.origin } });
      assert.equal(own.status, 200, 'without Sec-Fetch-Site, the own origin is enough');
    });

    test('a page of another site cannot sign a browser in or out', async () => {
      const json = { email: MEMBER.email, password: PASSWORD };
      for (const site of ['cross-site', 'same-site', 'none']) {
        const answer = await send(server, 'POST', '/session', { json, site });
        assert.equal(answer.summary, '403 cross_site_request', site);
        assert.equal(answer.setCookie, undefined);
      }
      const { secret } = await signIn(server, MEMBER);
      const answer = await send(server, 'DELETE', '/session', { cookie: secret, site: 'cross-site' });
      assert.equal(answer.summary, '403 cross_site_request');
      await isOpen(secret);
    });

    test('no parameter turns a response into a script', async () => {
      const { secret } = await signIn(server, MEMBER);
      for (const path of ['/me', '/session', '/me/sessions', '/me/keys', '/page/', '/console/settings.json', '/openapi.json']) {
        for (const query of ['', '?callback=run', '?jsonp=run', '?cb=run&format=jsonp']) {
          const answer = await sendInSession(server, secret, 'GET', `${path}${query}`);
          assert.match(answer.headers['content-type'], /^application\/(problem\+)?json$/, `${path}${query}`);
          assert.equal(answer.headers['x-content-type-options'], 'nosniff', `${path}${query}`);
          assert.equal(typeof answer.json, 'object', `${path}${query}`);
        }
      }
    });

    test('the body of a form changes nothing', async () => {
      const { secret } = await signIn(server, MEMBER);
      const text = '{"surname":"Forged"}';
      for (const type of ['application/x-www-form-urlencoded', 'text/plain', 'multipart/form-data; boundary=b']) {
        for (const [method, path] of [['PATCH', '/me'], ['POST', '/me/keys'], ['PUT', '/me/password'], ['POST', '/session']]) {
          const answer = await sendInSession(server, secret, method, path, { text, type });
          assert.equal(answer.status, 415, `${method} ${path} ${type}`);
        }
      }
      assert.equal((await me(secret)).json.surname, 'Lovelace');
    });

    test('a sign-in ignores the secret that the browser brought, and ends its session', async () => {
      const first = (await signIn(server, MEMBER)).secret;
      const planted = `lks_${'A'.repeat(49)}`;
      for (const cookie of [planted, first, 'x', `${first}x`]) {
        const next = (await signIn(server, MEMBER, { cookie })).secret;
        assert.notEqual(next, cookie);
        await isOpen(next);
      }
      await isEnded(first);
      await isEnded(planted);
    });

    test('sign-out ends the session and clears the browser, also a second time', async () => {
      const { secret } = await signIn(server, MEMBER);
      for (let time = 0; time < 2; time += 1) {
        const answer = await sendInSession(server, secret, 'DELETE', '/session');
        assert.equal(answer.status, 204);
        assert.match(answer.setCookie, /^__Host-latchkey=;/);
        assert.match(answer.setCookie, /Max-Age=0|Expires=/);
        assert.match(answer.headers['clear-site-data'], /^"cache", "storage"$/);
        await isEnded(secret);
      }
    });

    test('an 11th session ends the one that was not used for the longest time', async () => {
      const user = await newMember('eleven@example.org');
      const secrets = [];
      for (let number = 0; number < 11; number += 1) secrets.push((await signIn(server, user)).secret);
      await isEnded(secrets[0]);
      for (const secret of secrets.slice(1)) await isOpen(secret);
      const list = (await sendInSession(server, secrets[10], 'GET', '/me/sessions')).json;
      assert.equal(list.total, 10);
      assert.equal(list.items.filter(({ current }) => current).length, 1);
    });

    test('a new password ends all sessions and gives this one a new secret', async () => {
      const user = await newMember('password@example.org');
      const stolen = (await signIn(server, user)).secret;
      const { secret } = await signIn(server, user);
      const answer = await sendInSession(server, secret, 'PUT', '/me/password', { json: OLD_AND_NEW });
      assert.equal(answer.status, 204, answer.text);
      assert.notEqual(answer.secret, secret);
      await isEnded(stolen);
      await isEnded(secret);
      await isOpen(answer.secret);
    });

    test('a stolen cookie is useless after a change of role, and the access token follows the role', async () => {
      const user = await newMember('level@example.org');
      const { secret } = await signIn(server, user);
      const token = await tokenOf(server, user);
      const admin = await tokenOf(server, ADMIN);
      for (const role of ['admin', 'member']) {
        const cookie = role === 'admin' ? secret : (await signIn(server, user)).secret;
        await request(server, 'PATCH', `/users/${user.id}`, { token: admin, json: { role } });
        await isEnded(cookie);
        const users = await send(server, 'GET', '/users', { token });
        assert.equal(users.status, role === 'admin' ? 200 : 403);
      }
    });

    test('a disabled, deleted or revoked user has no sessions, and enabling restores none', async () => {
      const admin = await tokenOf(server, ADMIN);
      const [disabled, revoked, deleted] = [
        await newMember('disabled@example.org'),
        await newMember('revoked@example.org'),
        await newMember('deleted@example.org'),
      ];
      const cookies = new Map();
      for (const user of [disabled, revoked, deleted]) cookies.set(user, (await signIn(server, user)).secret);
      await request(server, 'PATCH', `/users/${disabled.id}`, { token: admin, json: { disabled: true } });
      await request(server, 'DELETE', `/users/${revoked.id}/token`, { token: admin });
      await request(server, 'DELETE', `/users/${deleted.id}`, { token: admin });
      for (const cookie of cookies.values()) await isEnded(cookie);
      await request(server, 'PATCH', `/users/${disabled.id}`, { token: admin, json: { disabled: false } });
      await isEnded(cookies.get(disabled));
    });

    test('a session and the access token of a user do not end each other', async () => {
      const token = await tokenOf(server, MEMBER);
      const { secret } = await signIn(server, MEMBER);
      assert.equal((await send(server, 'GET', '/me', { token })).status, 200);
      await tokenOf(server, MEMBER);
      await isOpen(secret);
      await sendInSession(server, secret, 'DELETE', '/session');
      await isEnded(secret);
    });

    test('the cookie counts only without another credential, and never for services', async () => {
      const { secret } = await signIn(server, ADMIN);
      for (const headers of [{ Token: 'lkt_wrong' }, { Authorization: 'Bearer lkt_wrong' }]) {
        assert.match((await me(secret, { headers })).summary, /^40[13] invalid_token$/);
      }
      const authz = await sendInSession(server, secret, 'GET', '/authz');
      assert.equal(authz.summary, `${server.unauthenticated} not_authenticated`);
      const token = await tokenOf(server, MEMBER);
      for (const path of ['/introspect', '/revoke']) {
        const alone = await send(server, 'POST', path, { form: { token } });
        const withCookie = await sendInSession(server, secret, 'POST', path, { form: { token } });
        // A token may be revoked by its holder without another credential, so both have the same outcome.
        assert.equal(withCookie.status, alone.status, path);
      }
      for (const header of ['token', 'authorization']) {
        const answer = await send(server, 'GET', '/me', { headers: { [header]: header === 'token' ? secret : `Bearer ${secret}` } });
        assert.match(answer.summary, /^40[13] invalid_token$/, 'the secret of a session is no token');
      }
      const asCookie = await sendInSession(server, token, 'GET', '/me');
      assert.notEqual(asCookie.status, 200, 'a token is no session');
    });

    test('a user lists and ends only their own sessions', async () => {
      const user = await newMember('own@example.org');
      const [here, there] = [(await signIn(server, user)).secret, (await signIn(server, user)).secret];
      const other = (await signIn(server, MEMBER)).secret;
      const list = (await sendInSession(server, here, 'GET', '/me/sessions')).json;
      const foreign = list.items.find(({ current }) => !current);
      const refused = await sendInSession(server, other, 'DELETE', `/me/sessions/${foreign.id}`);
      assert.equal(refused.status, 404);
      await isOpen(there);
      assert.equal((await sendInSession(server, here, 'DELETE', `/me/sessions/${foreign.id}`)).status, 204);
      await isEnded(there);
      await isOpen(here);
      assert.ok(!JSON.stringify(list).includes('lks_'), 'a list contains no secret');
    });

    test('the responses to another origin never allow credentials', async () => {
      const { secret } = await signIn(server, MEMBER);
      for (const method of ['OPTIONS', 'GET']) {
        const headers = { Origin: 'https://attacker.example', 'Access-Control-Request-Method': 'PATCH' };
        const answer = await send(server, method, '/me', { cookie: secret, headers });
        assert.equal(answer.headers['access-control-allow-credentials'], undefined);
        assert.notEqual(answer.headers['access-control-allow-origin'], headers.Origin);
      }
    });

    test('scopes are those of the role, and the server rejects what the console hides from members', async () => {
      const { secret } = await signIn(server, MEMBER);
      for (const [method, path, options] of [
        ['GET', '/users'],
        ['GET', `/users/${member.id}`],
        ['PATCH', `/users/${member.id}`, { json: { role: 'admin' } }],
        ['DELETE', `/users/${member.id}`],
        ['DELETE', `/users/${member.id}/token`],
        ['GET', '/keys'],
        ['POST', '/keys', { json: { name: 'Gift', scopes: ['a:b'] } }],
        ['GET', '/audit'],
        ['GET', '/stats'],
      ]) {
        const answer = await sendInSession(server, secret, method, path, options);
        assert.equal(answer.summary, '403 insufficient_scope', `${method} ${path}`);
      }
    });
  });
}
