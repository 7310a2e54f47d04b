// The plain client that the protocol reference prints: it offers when asked to, with the m-lines
// its own tracks make and no others.

import { readFileSync } from 'node:fs';

import { until } from '../until.js';

const PAGE = readFileSync(new URL('../plain-client.html', import.meta.url), 'utf8');
const FRAMES = 30;
const SAMPLES = 24_000;

export async function run({ browsers, check }) {
  const chromium = await browsers.chromium();
  const ada = await open(browsers, chromium, 'Ada');
  const bob = await open(browsers, chromium, 'Bob');
  await check('two plain clients see and hear each other', async () => {
    const both = await Promise.all([untilReceives(ada), untilReceives(bob)]);
    return both.map(({ frames, samples }) => `${frames} frames, ${samples} samples`).join('; ');
  });
}

/** Puts the page in the place of one of the server's own, so that it has the server's origin. */
async function open(browsers, browser, name) {
  const address = `/health?room=plain&name=${name}`;
  const participant = await browsers.open(browser, address, name, { bypassesPolicy: true });
  await participant.page.setContent(PAGE);
  await participant.page.waitForFunction(() => window.received);
  return participant;
}

async function untilReceives({ page, name }) {
  const read = () => page.evaluate(() => window.received());
  const first = await until(`${name} decodes`, 20, async () => {
    const now = await read();
    return now.frames > 0 && now;
  }, read);
  return until(`${name} goes on decoding video and hearing sound`, 20, async () => {
    const { frames, samples, energy } = await read();
    const more = frames >= first.frames + FRAMES && samples >= first.samples + SAMPLES;
    return more && energy > 0 && { frames, samples };
  }, read);
}
