// A layer that nobody watches is not sent, and comes back when somebody does: of several streams,
// and of one stream with layers in it.

import { openLines } from '../lines.js';
import { until } from '../until.js';

const FRAMES = 20;
const RESTS_S = 3;
const IN_ONE_STREAM = { height: 720, kbps: 1_000, noisy: 1 / 8, scalabilityMode: 'L3T3_KEY' };
/** AV1 takes its encoder longer. */
const CODECS = [['VP9', 15], ['AV1', 10]];

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

  for (const [codec, fps] of CODECS) {
    const eve = await openLines(browsers, chromium, 'Eve');
    const fay = await openLines(browsers, chromium, 'Fay');
    await eve.publish({ ...IN_ONE_STREAM, codec, fps });
    await check(`${codec}, layers in one stream: all are watched at first`, async () => {
      await untilWide(fay, 1280, 40);
    });
    await check(`${codec}: the largest is sent no more when nobody watches it`, async () => {
      await fay.cap('low');
      await until('Eve sends 640 at most', 40, () => sendsAtMost(eve, 640), () => eve.figures());
      const shown = await untilWide(fay, 320, 10);
      await until('the smallest goes on', 10, async () =>
        (await untilWide(fay, 320, 1)).frames > shown.frames + FRAMES, () => fay.figures());
    });
    await check(`${codec}: and comes back when it is wanted`, async () => {
      await fay.cap('high');
      await untilWide(fay, 1280, 15);
    });
    for (const { page } of [eve, fay]) await page.close();
  }
}

async function frames(one, rid) {
  const { sent } = await one.figures();
  return sent.find((layer) => layer.rid === rid)?.frames ?? 0;
}

/** Whether none of many looks in a second finds a wider frame: each shows the latest layer's. */
async function sendsAtMost(one, widest) {
  for (let look = 0; look < 20; look += 1) {
    const { sent } = await one.figures();
    if (sent.some(({ width }) => width > widest)) return false;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  return true;
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
