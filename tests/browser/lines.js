// A tab with lines.html: m-lines that the test adds and stops.

import { readFileSync } from 'node:fs';

import { until } from './until.js';

const PAGE = readFileSync(new URL('lines.html', import.meta.url), 'utf8');

/** Opens the page under the server's origin, in the place of one of the server's own. */
export async function openLines(browsers, browser, name) {
  const address = `/health?room=lines&name=${name}`;
  const { page } = await browsers.open(browser, address, name, { bypassesPolicy: true });
  await page.setContent(PAGE);
  await page.waitForFunction(() => window.lines);
  return new Lines(page, name);
}

class Lines {
  constructor(page, name) {
    this.page = page;
    this.name = name;
  }

  publish(options) {
    return this.page.evaluate((wanted) => window.lines.publish(wanted), options);
  }

  cap(quality) {
    return this.page.evaluate((wanted) => window.lines.cap(wanted), quality);
  }

  stop() {
    return this.page.evaluate(() => window.lines.stop());
  }

  figures() {
    return this.page.evaluate(() => window.lines.figures());
  }

  /**
   * Waits until so many m-lines each decode so many more frames than now.
   * @returns {Promise<object>} the figures then
   */
  async untilReceives(count, frames, seconds = 30) {
    const { received } = await this.figures();
    const before = new Map(received.map((line) => [line.mid, line.frames]));
    return until(
      `${this.name} decodes ${frames} more frames on each of ${count} m-lines`,
      seconds,
      async () => {
        const now = await this.figures();
        const moving = now.received.filter(
          (line) => line.frames >= (before.get(line.mid) ?? 0) + frames,
        );
        return moving.length >= count && now;
      },
      () => this.figures(),
    );
  }
}
