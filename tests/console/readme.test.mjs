// The pictures of the README. `UPDATE_PICTURES=1 tests/console/run --test-name-pattern=README` renews them.

import assert from 'node:assert/strict';
import { mkdir, readFile, stat, writeFile } from 'node:fs/promises';
import { after, before, describe, test } from 'node:test';

import { ADMIN, populate } from './support/accounts.mjs';
import { Profile, launch } from './support/browser.mjs';
import { CONFIGURATIONS, Server } from './support/server.mjs';
import { fillStatistics } from './support/statistics.mjs';

const ROOT = new URL('../../', import.meta.url);
const MAX_BYTES = 120_000;
const VIEWPORT = { width: 1100, height: 720 };

const PICTURES = [
  {
    path: 'docs/images/docs-page.jpg',
    open: async (profile) => {
      const page = await profile.context.newPage();
      await page.goto('/docs/');
      await page.locator('#operations-Sign-in-protectedRoute').waitFor();
      return page;
    },
  },
  { path: 'docs/images/console.jpg', open: (profile) => profile.tab('#/statistics') },
];

describe('the README', () => {
  let server;
  let browser;

  before(async () => {
    [server, browser] = await Promise.all([Server.start(CONFIGURATIONS[0]), launch()]);
    await populate(server);
    await fillStatistics(server);
  });
  after(async () => {
    await browser?.close();
    await server?.stop();
  });

  for (const { path, open } of PICTURES) {
    test(`the README shows ${path}, which is small`, async () => {
      const profile = await Profile.open(browser, server, { viewport: VIEWPORT });
      await profile.signIn(ADMIN);
      const page = await open(profile);
      const picture = await page.screenshot({ type: 'jpeg', quality: 75 });
      await profile.close();
      const file = new URL(path, ROOT);
      if (process.env.UPDATE_PICTURES) {
        await mkdir(new URL('.', file), { recursive: true });
        await writeFile(file, picture);
      }
      const { size } = await stat(file);
      assert.ok(size <= MAX_BYTES && picture.length <= MAX_BYTES, `${size} and ${picture.length} bytes`);
      const readme = await readFile(new URL('README.md', ROOT), 'utf8');
      assert.ok(readme.includes(`](${path})`), `README.md does not show ${path}`);
    });
  }
});
