// The console by keyboard only: every control of every page, and the flows that matter, without a mouse.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { ADMIN, MEMBER, populate, register, request, tokenOf } from './support/accounts.mjs';
import { NARROW, Profile, go, launch, settled } from './support/browser.mjs';
import { dialogs, pages } from './support/pages.mjs';
import { CONFIGURATIONS, PASSWORD, Server } from './support/server.mjs';
import { Smtp } from './support/smtp.mjs';

/** Presses Tab until the control that `isWanted` describes has the focus. */
async function tabTo(page, role, name) {
  const wanted = page.getByRole(role, { name, exact: true }).first();
  for (let presses = 0; presses < 80; presses += 1) {
    if (await wanted.evaluate((element) => element === document.activeElement)) return;
    await page.keyboard.press('Tab');
  }
  assert.fail(`Tab does not reach the ${role} "${name}"`);
}

/** Presses Tab through the whole page. Returns what has no visible focus, and what the focus never reached. */
async function walk(page) {
  const total = await page.evaluate(() => {
    const controls = 'a[href], button, input:not([type=radio]), select, textarea, summary, [tabindex="0"]';
    const shown = [...document.querySelectorAll(controls)].filter((element) => {
      const scope = document.querySelector('dialog[open]') ?? document;
      return scope.contains(element) && element.checkVisibility({ visibilityProperty: true });
    });
    for (const [index, element] of shown.entries()) element.setAttribute('data-walk', index);
    return shown.length;
  });
  const seen = new Set();
  const faults = [];
  for (let presses = 0; presses < total * 2 + 5 && seen.size < total; presses += 1) {
    await page.keyboard.press('Tab');
    const state = await page.evaluate(() => {
      const element = document.activeElement;
      const style = getComputedStyle(element);
      const box = element.getBoundingClientRect();
      const isCovered = (() => {
        const [x, y] = [box.x + box.width / 2, box.y + box.height / 2];
        const top = document.elementFromPoint(x, y);
        return top !== null && !element.contains(top) && !top.contains(element) && top.closest('label')?.control !== element;
      })();
      const isInside = box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth;
      return {
        at: element.dataset.walk,
        html: element.outerHTML.slice(0, 160),
        isMarked: style.outlineStyle !== 'none' && Number.parseFloat(style.outlineWidth) >= 1,
        isVisible: isInside && !isCovered,
        size: [box.width, box.height],
      };
    });
    if (state.at === undefined || seen.has(state.at)) continue;
    seen.add(state.at);
    if (!state.isMarked) faults.push(`no visible focus: ${state.html}`);
    if (!state.isVisible) faults.push(`the focus is hidden: ${state.html}`);
  }
  const missed = await page.evaluate((reached) => {
    const all = [...document.querySelectorAll('[data-walk]')];
    const rest = all.filter((element) => !reached.includes(element.dataset.walk) && element.isConnected);
    for (const element of all) element.removeAttribute('data-walk');
    return rest.map((element) => `not reached: ${element.outerHTML.slice(0, 160)}`);
  }, [...seen]);
  return [...faults, ...missed];
}

describe('keyboard', () => {
  let smtp;
  let server;
  let browser;
  let ids;

  before(async () => {
    smtp = await Smtp.start();
    [server, browser] = await Promise.all([Server.start(CONFIGURATIONS[0], smtp.settings), launch()]);
    ids = await populate(server);
  });
  after(async () => {
    await browser?.close();
    await server?.stop();
    smtp?.stop();
  });

  for (const viewport of [undefined, NARROW]) {
    test(`Tab reaches every control of every page, visibly${viewport ? ', on a narrow screen' : ''}`, async () => {
      for (const user of [null, MEMBER, ADMIN]) {
        const profile = await Profile.open(browser, server, viewport ? { viewport } : {});
        if (user) await profile.signIn(user);
        const page = await profile.tab();
        for (const { name, route } of pages(ids).filter((candidate) => candidate.user === user)) {
          await go(page, route);
          assert.deepEqual(await walk(page), [], name);
        }
        await profile.close();
      }
    });
  }

  test('a dialog keeps the focus inside, closes with Escape, and returns the focus', async () => {
    for (const user of [MEMBER, ADMIN]) {
      const profile = await Profile.open(browser, server);
      await profile.signIn(user);
      const page = await profile.tab();
      for (const { name, route, open } of dialogs(ids).filter((candidate) => candidate.user === user)) {
        await go(page, route);
        await open(page);
        const dialog = page.locator('dialog[open]');
        await dialog.waitFor();
        await settled(page);
        assert.deepEqual(await walk(page), [], name);
        const isInside = await page.evaluate(() => {
          const { activeElement } = document;
          return activeElement === document.body || activeElement.closest('dialog') !== null;
        });
        assert.ok(isInside, `${name}: the focus left the dialog`);
        await page.keyboard.press('Escape');
        await dialog.waitFor({ state: 'detached' });
        const isBack = page.waitForFunction(() => document.activeElement.tagName === 'BUTTON', null, { timeout: 2000 });
        await isBack.catch(() => assert.fail(`${name}: the focus does not return`));
      }
      await profile.close();
    }
  });

  test('register, sign out and sign in', async () => {
    const profile = await Profile.open(browser, server);
    const page = await profile.tab();
    await tabTo(page, 'link', 'Register');
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: 'Register' }).waitFor();
    for (const [label, text] of [
      ['First name', 'Katherine'],
      ['Family name (optional)', 'Johnson'],
      ['E-mail address', 'katherine@example.org'],
    ]) {
      await tabTo(page, 'textbox', label);
      await page.keyboard.type(text);
    }
    const password = page.getByLabel('Password', { exact: true });
    while (!(await password.evaluate((field) => field === document.activeElement))) await page.keyboard.press('Tab');
    await page.keyboard.type(PASSWORD);
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: 'Profile' }).waitFor();
    await page.keyboard.press('Shift+Tab');
    await tabTo(page, 'button', 'Sign out');
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: 'Sign in' }).waitFor();
    await tabTo(page, 'textbox', 'E-mail address');
    await page.keyboard.type('katherine@example.org');
    await page.keyboard.press('Tab');
    await page.keyboard.type(PASSWORD);
    await page.keyboard.press('Enter');
    await page.getByRole('heading', { name: 'Profile' }).waitFor();
    await profile.close();
  });

  test('skip to the content, open a user, change the role', async () => {
    const user = await register(server, 'role@example.org');
    const profile = await Profile.open(browser, server);
    await profile.signIn(ADMIN);
    const page = await profile.tab(`#/users?search=role@example.org`);
    await page.getByRole('link', { name: 'Grace Hopper' }).waitFor();
    await page.evaluate(() => document.activeElement.blur());
    await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');
    await tabTo(page, 'link', 'Grace Hopper');
    await page.keyboard.press('Enter');
    await tabTo(page, 'button', 'Change role');
    await page.keyboard.press('Enter');
    const select = page.getByRole('combobox', { name: 'Role' });
    await select.waitFor();
    await tabTo(page, 'combobox', 'Role');
    await page.keyboard.type('auditor');
    await page.keyboard.press('Tab');
    await page.keyboard.press('Enter');
    await page.locator('dialog').waitFor({ state: 'detached' });
    const token = await tokenOf(server, ADMIN);
    assert.equal((await request(server, 'GET', `/users/${user.id}`, { token })).role, 'auditor');
    await profile.close();
  });
});
