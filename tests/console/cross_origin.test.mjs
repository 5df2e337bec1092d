// Pages of other origins in the same browser as a signed-in console: another port, and another host.

import assert from 'node:assert/strict';
import http from 'node:http';
import { after, before, describe, test } from 'node:test';

import { MEMBER, createAccounts, request, tokenOf } from './support/accounts.mjs';
import { Profile, launch, settled } from './support/browser.mjs';
import { COOKIE } from './support/http.mjs';
import { CONFIGURATIONS, Server } from './support/server.mjs';

/** A server of the attacker. Its pages are empty, except for what the test evaluates in them. */
async function attacker() {
  const server = http.createServer((incoming, response) => {
    if (incoming.url === '/plant') {
      const planted = `lks_${'A'.repeat(49)}`;
      response.setHeader('Set-Cookie', `${COOKIE}=${planted}; Path=/; Secure; HttpOnly; SameSite=Strict`);
    }
    response.setHeader('Content-Type', 'text/html');
    response.end('<!doctype html><title>Other site</title><h1>Other site</h1>');
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return server;
}

for (const configuration of CONFIGURATIONS.slice(0, 2)) {
  describe(`other origins, on ${configuration.database}, profile ${configuration.profile}`, () => {
    let server;
    let browser;
    let evil;
    let profile;

    before(async () => {
      [server, browser, evil] = await Promise.all([Server.start(configuration), launch(), attacker()]);
      await createAccounts(server);
    });
    after(async () => {
      await browser?.close();
      evil?.close();
      await server?.stop();
    });

    /** Opens a page of the attacker beside a console in which the member is signed in. */
    async function openAttack(host) {
      profile = await Profile.open(browser, server);
      await profile.signIn(MEMBER);
      const page = await profile.context.newPage();
      await page.goto(`http://${host}:${evil.address().port}/`);
      return page;
    }

    /** Closes the profile. That of an attack sends requests to other origins on purpose. */
    const finish = () => profile.context.close();

    /** What happens to each request that the page sends: the cookie that it carried, and whether the page got a response. */
    async function attack(page, requests) {
      const cookies = [];
      // Playwright shows no cookies of a request whose response the browser blocks.
      const debug = await page.context().newCDPSession(page);
      await debug.send('Network.enable');
      debug.on('Network.requestWillBeSentExtraInfo', ({ headers }) => cookies.push(headers.Cookie ?? ''));
      const responses = await page.evaluate(
        async ([origin, list]) => {
          const results = [];
          for (const [path, options] of list) {
            const sent = fetch(`${origin}${path}`, { credentials: 'include', ...options });
            results.push(await sent.then(() => true, () => false));
          }
          return results;
        },
        [server.origin, requests],
      );
      return { cookies, responses };
    }

    const surname = async () => (await request(server, 'GET', '/me', { token: await tokenOf(server, MEMBER) })).surname;

    // session_http.test.mjs checks that the server rejects these requests.
    const REQUESTS = [
      ['/me', {}],
      ['/me', { mode: 'no-cors' }],
      ['/session', { mode: 'no-cors', method: 'POST', body: '{"surname":"Forged"}' }],
      ['/me/keys', { mode: 'no-cors', method: 'POST', body: '{"name":"Forged","scopes":["pages:read"]}' }],
    ];

    test('a page on another port of the same host gets the cookie sent, and no response', async () => {
      const page = await openAttack('localhost');
      const { cookies, responses } = await attack(page, REQUESTS);
      assert.ok(cookies.length > 0 && cookies.every((cookie) => cookie.includes(COOKIE)), 'ports share cookies');
      assert.deepEqual(responses, REQUESTS.map(() => false));
      const keys = await request(server, 'GET', '/me/keys', { token: await tokenOf(server, MEMBER) });
      assert.deepEqual(keys.items, []);
      await finish();
    });

    test('a page of another host does not get the cookie sent, and no response', async () => {
      const page = await openAttack('127.0.0.1');
      const { cookies, responses } = await attack(page, REQUESTS);
      assert.ok(cookies.length > 0 && !cookies.some((cookie) => cookie.includes(COOKIE)));
      assert.deepEqual(responses, REQUESTS.map(() => false));
      await finish();
    });

    for (const host of ['localhost', '127.0.0.1']) {
      test(`a form that ${host} posts changes nothing`, async () => {
        const page = await openAttack(host);
        for (const path of ['/me/keys', '/session', '/register', '/me/password']) {
          for (const enctype of ['text/plain', 'application/x-www-form-urlencoded', 'multipart/form-data']) {
            const [response] = await Promise.all([
              page.waitForResponse((answer) => answer.url() === `${server.origin}${path}`),
              page.evaluate(([action, type]) => {
                const form = document.createElement('form');
                Object.assign(form, { action, method: 'post', enctype: type });
                const input = document.createElement('input');
                Object.assign(input, { name: '{"surname":"Forged","x":"', value: '"}' });
                form.append(input);
                document.body.append(form);
                form.submit();
              }, [`${server.origin}${path}`, enctype]),
            ]);
            assert.ok(response.status() >= 400, `${path} ${enctype}: ${response.status()}`);
            await page.waitForURL(`${server.origin}${path}`);
            await page.goto(`http://${host}:${evil.address().port}/`);
          }
        }
        assert.equal(await surname(), 'Lovelace');
        await finish();
      });
    }

    test('the console is not displayed in a frame, and a page that opened it has no handle of it', async () => {
      const page = await openAttack('localhost');
      const [framed] = await Promise.all([
        page.waitForEvent('requestfailed', { predicate: (sent) => sent.url().startsWith(server.origin), timeout: 5000 })
          .catch(() => null),
        page.evaluate((origin) => {
          const frame = document.createElement('iframe');
          frame.src = `${origin}/console/`;
          document.body.append(frame);
        }, server.origin),
      ]);
      assert.ok(framed, 'the frame is blocked');
      const [popup] = await Promise.all([
        page.waitForEvent('popup'),
        page.evaluate((origin) => {
          window.handle = open(`${origin}/console/`);
        }, server.origin),
      ]);
      await settled(popup);
      assert.equal(await popup.evaluate(() => opener), null);
      assert.equal(await page.evaluate(() => window.handle.closed), true, 'the handle is cut off');
      await finish();
    });

    test('a page on another port exchanges no messages with the tabs of the console', async () => {
      const page = await openAttack('localhost');
      const tab = await profile.tab('#/profile');
      await page.evaluate(() => {
        window.received = [];
        window.tabs = new BroadcastChannel('latchkey-session');
        window.tabs.addEventListener('message', ({ data }) => window.received.push(data));
      });
      const second = await profile.tab('#/keys');
      await page.evaluate(() => window.tabs.postMessage({ is: 'signed-out', at: Date.now() }));
      await page.waitForTimeout(200);
      for (const [name, open] of [['Profile', tab], ['API keys', second]]) {
        await open.getByRole('heading', { name, level: 1 }).waitFor();
      }
      await second.getByRole('button', { name: 'Sign out' }).click();
      await tab.getByRole('heading', { name: 'Sign in', level: 1 }).waitFor();
      assert.deepEqual(await page.evaluate(() => window.received), []);
      await finish();
    });

    test('a cookie that another port planted does not become a session at sign-in', async () => {
      profile = await Profile.open(browser, server);
      const page = await profile.context.newPage();
      await page.goto(`http://localhost:${evil.address().port}/plant`);
      const planted = (await profile.context.cookies()).find(({ name }) => name === COOKIE).value;
      await profile.signIn(MEMBER);
      const current = (await profile.context.cookies()).find(({ name }) => name === COOKIE).value;
      assert.notEqual(current, planted);
      await finish();
    });
  });
}
