// Layers in one stream (VP9, AV1): each viewer gets as many as it asks for.

import { openLines } from '../lines.js';
import { until } from '../until.js';

const MODES = [['VP9', 'L3T3_KEY'], ['AV1', 'L3T3']];
const SMALL = [320, 180];
const LARGE = [1280, 720];
const PICTURE = { height: 720, kbps: 1_500, noisy: 1 / 8 };
const FRAMES = 20;

export async function run({ browsers, check }) {
  for (const [codec, scalabilityMode] of MODES) {
    const chromium = await browsers.chromium();
    const ada = await openLines(browsers, chromium, 'Ada');
    const bob = await openLines(browsers, chromium, 'Bob');
    const cy = await openLines(browsers, chromium, 'Cy');
    await bob.cap('low');
    await ada.publish({ ...PICTURE, codec, scalabilityMode });

    await check(`${codec} ${scalabilityMode}: who asks for little gets ${SMALL.join('x')}, ` +
      `beside ${LARGE.join('x')}`, async () => {
      const [small, large] = await Promise.all([sees(bob, SMALL), sees(cy, LARGE)]);
      return `${small} and ${large} frames`;
    });
    await check(`${codec}: it gets more when it asks for more, and little again`, async () => {
      await bob.cap('high');
      await sees(bob, LARGE);
      await bob.cap('low');
      await sees(bob, SMALL);
    });
    for (const { page } of [ada, bob, cy]) await page.close();
  }
  // Their payloads tell as much (RFC 9628), also where layers need each other in every picture.
  for (const [codec, scalabilityMode] of [MODES[0], ['VP9', 'L3T3']]) {
    const chromium = await browsers.chromium();
    const eve = await openLines(browsers, chromium, 'Eve');
    const fay = await openLines(browsers, chromium, 'Fay');
    await eve.publish({ ...PICTURE, codec, scalabilityMode, describes: false });
    await check(`${codec} ${scalabilityMode}: layers that nobody describes are chosen from, too`,
      async () => {
        await sees(fay, LARGE);
        await fay.cap('low');
        await sees(fay, SMALL);
        await fay.cap('high');
        await sees(fay, LARGE);
      });
    for (const { page } of [eve, fay]) await page.close();
  }
}

/** Waits until pictures of this size, and some more of them, are decoded. */
async function sees(one, [width, height]) {
  let first = null;
  return until(`${one.name} decodes ${width}x${height}`, 40, async () => {
    const { received } = await one.figures();
    const seen = received.find((line) => line.width === width && line.height === height);
    if (!seen) first = null;
    first ??= seen?.frames ?? null;
    return seen && seen.frames >= first + FRAMES && seen.frames - first;
  }, () => one.figures());
}
