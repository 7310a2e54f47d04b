// A layer that nobody watches is not sent, and comes back when somebody does: of several streams,
// and of one stream with layers in it.

import { openLines } from '../lines.js';
import { until } from '../until.js';

const FRAMES = 20;
const RESTS_S = 3;
const IN_ONE_STREAM = { height: 720, kbps: 1_000, noisy: 1 / 8, codec: 'VP9', scalabilityMode: 'L3T3_KEY' };

export async function run({ browsers, check }) {
  const chromium = await browsers.chromium();
  const ada = await openLines(browsers, chromium, 'Ada');
  const bob = await openLines(browsers, chromium, 'Bob');
  await ada.publish({ height: 540, simulcast: true });

  await check('the largest layer is watched at first', async () => {
    await untilWide(bob, 960, 40);
  });
  await check('it is sent no more when its only viewer wants the smallest', async () => {
    await bob.cap('low');
    await until(`Ada rests it for ${RESTS_S} s`, 40, async () => {
      const before = await frames(ada, 'h');
      await new Promise((resolve) => setTimeout(resolve, RESTS_S * 1000));
      return (await frames(ada, 'h')) === before;
    }, () => ada.figures());
    const [smallest, shown] = [await frames(ada, 'l'), await watched(bob)];
    await until('the smallest goes on', 10, async () => {
      const now = await watched(bob);
      return (await frames(ada, 'l')) > smallest + FRAMES && now.frames > shown.frames + FRAMES;
    }, () => bob.figures());
  });
  await check('it comes back when it is wanted', async () => {
    await bob.cap('high');
    await untilWide(bob, 960, 15);
  });
  for (const { page } of [ada, bob]) await page.close();

  const eve = await openLines(browsers, chromium, 'Eve');
  const fay = await openLines(browsers, chromium, 'Fay');
  await eve.publish(IN_ONE_STREAM);
  await check('layers in one stream: all are watched at first', async () => {
    await untilWide(fay, 1280, 40);
  });
  await check('the largest is sent no more when nobody watches it', async () => {
    await fay.cap('low');
    await until('Eve sends 640 at most', 40, async () => {
      const { sent } = await eve.figures();
      return sent.every(({ width }) => width === 640);
    }, () => eve.figures());
    const shown = await untilWide(fay, 320, 10);
    await until('the smallest goes on', 10, async () =>
      (await untilWide(fay, 320, 1)).frames > shown.frames + FRAMES, () => fay.figures());
  });
  await check('and comes back when it is wanted', async () => {
    await fay.cap('high');
    await untilWide(fay, 1280, 15);
  });
}

async function frames(one, rid) {
  const { sent } = await one.figures();
  return sent.find((layer) => layer.rid === rid)?.frames ?? 0;
}

async function watched(one) {
  const { received } = await one.figures();
  return received.find((line) => line.frames > 0);
}

/** Waits until somebody decodes pictures of this width. */
function untilWide(one, width, seconds) {
  return until(`${one.name} decodes pictures ${width} wide`, seconds, async () => {
    const seen = await watched(one);
    return seen?.width === width && seen;
  }, () => one.figures());
}
