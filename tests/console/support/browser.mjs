// Chromium, and pages that record what must not happen: violations of the CSP, script errors, requests elsewhere.

import assert from 'node:assert/strict';

import { chromium } from 'playwright-core';

import { PASSWORD } from './server.mjs';

export const WIDE = { width: 1280, height: 900 };
export const NARROW = { width: 390, height: 844 };

/** Starts Debian's Chromium. */
export function launch() {
  return chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    args: ['--no-sandbox', '--disable-gpu', '--disable-dev-shm-usage', '--disable-background-networking'],
  });
}

/** A browser profile: its tabs share cookies. */
export class Profile {
  static async open(browser, server, options = {}) {
    const context = await browser.newContext({
      baseURL: server.origin,
      viewport: WIDE,
      colorScheme: 'light',
      locale: 'en-GB',
      timezoneId: 'Europe/Berlin',
      reducedMotion: 'reduce',
      ...options,
    });
    context.setDefaultTimeout(30_000);
    const profile = new Profile(context, server);
    await profile.#observe();
    return profile;
  }

  constructor(context, server) {
    this.context = context;
    this.server = server;
    this.faults = [];
    this.requests = [];
  }

  async #observe() {
    await this.context.exposeBinding('reportViolation', (_, violation) => this.faults.push(`CSP: ${violation}`));
    await this.context.addInitScript(() => {
      addEventListener('securitypolicyviolation', (event) => {
        window.reportViolation(`${event.violatedDirective} ${event.blockedURI} ${event.sample}`);
      });
    });
    this.context.on('request', (request) => {
      this.requests.push(request);
      if (new URL(request.url()).origin !== this.server.origin) this.faults.push(`foreign: ${request.url()}`);
    });
    this.context.on('weberror', (error) => this.faults.push(`script: ${error.error().stack}`));
    this.context.on('console', (message) => {
      // Chromium writes this line for every status from 400 on, which are answers that tests provoke.
      const isStatus = message.text().startsWith('Failed to load resource:');
      if (['error', 'warning'].includes(message.type()) && !isStatus) this.faults.push(`console: ${message.text()}`);
    });
  }

  /** Opens a route of the console, such as `#/keys`, in a new tab, and waits until it is complete. */
  async tab(route = '') {
    const page = await this.context.newPage();
    await page.goto(`/console/${route}`);
    await settled(page);
    return page;
  }

  /** Signs in with a request of the console's origin, which is faster than the form. */
  async signIn({ email }) {
    const page = await this.context.newPage();
    await page.goto('/console/');
    const status = await page.evaluate(async (body) => {
      const headers = { 'Content-Type': 'application/json' };
      return (await fetch('/session', { method: 'POST', headers, body: JSON.stringify(body) })).status;
    }, { email, password: PASSWORD });
    assert.equal(status, 201);
    await page.close();
  }

  /** Fails if a page violated the policy, threw an error or sent a request elsewhere. Closes the profile. */
  async close() {
    await this.context.close();
    assert.deepEqual(this.faults, []);
  }
}

/** Waits until the page shows its heading and all that it loads. */
export async function settled(page) {
  await page.locator('h1').first().waitFor();
  await page.waitForFunction(() => !document.querySelector('main .loading, dialog .loading'));
}

/** Follows a route in the same document. */
export async function go(page, route) {
  await page.evaluate((hash) => {
    if (location.hash === hash) return undefined;
    return new Promise((resolve) => {
      // The console renders after its own listener, which was added first.
      addEventListener('hashchange', () => requestAnimationFrame(() => setTimeout(resolve)), { once: true });
      location.hash = hash;
    });
  }, route);
  await settled(page);
}
