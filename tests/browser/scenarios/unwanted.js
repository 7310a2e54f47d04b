// A layer that nobody watches is not sent, and comes back when somebody does.

import { openLines } from '../lines.js';
import { until } from '../until.js';

const FRAMES = 20;
const RESTS_S = 3;

export async function run({ browsers, check }) {
  const chromium = await browsers.chromium();
  const ada = await openLines(browsers, chromium, 'Ada');
  const bob = await openLines(browsers, chromium, 'Bob');
  await ada.publish({ height: 540, simulcast: true });

  await check('the largest layer is watched at first', async () => {
    await until('Bob decodes it', 40, async () => (await watched(bob))?.width === 960,
      () => bob.figures());
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
    await until('Bob decodes it again', 15, async () => (await watched(bob))?.width === 960,
      () => bob.figures());
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
