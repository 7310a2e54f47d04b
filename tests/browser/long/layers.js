// Three layers, one viewer on a narrow path and one on a wide one: each gets what its path carries.
// Not among the suites: two cores do not encode and decode all of it in time. scripts/interop layers.

import { openLines } from '../lines.js';
import { FROM_LOSSY, limit } from '../network.js';
import { until } from '../until.js';

const HEIGHT = 720;
const WIDTH = 1280;
const NARROW_KBPS = 500;
/** Noise in a part of it, or every layer would fit through the narrow path. */
const PICTURE = { height: HEIGHT, kbps: 2_000, noisy: 1 / 4 };
/** By then it is known how narrow the path is. */
const FRAMES = 60;
const WATCHED_S = 30;
const FREEZES = 1;

export async function run({ browsers, check }) {
  await watchNarrowAndWide({ browsers, check }, 'simulcast', { simulcast: true });
}

/** Publishes a picture with these layers, and checks what each of the two viewers gets of it. */
export async function watchNarrowAndWide({ browsers, check }, what, layers) {
  const [near, far] = await Promise.all([
    browsers.chromium(),
    browsers.chromium({ lossy: true }),
  ]);
  const ada = await openLines(browsers, near, 'Ada');
  await ada.publish({ ...PICTURE, ...layers });
  limit(FROM_LOSSY, NARROW_KBPS);
  const bob = await openLines(browsers, far, 'Bob');
  const cy = await openLines(browsers, near, 'Cy');

  await check(`${what}: a path of ${NARROW_KBPS} kbit/s gets a smaller layer, smoothly`, async () => {
    await untilWide(bob, 30, (width) => width < WIDTH);
    await bob.untilReceives(1, FRAMES);
    const before = await Promise.all([bob, cy].map(seenBy));
    await new Promise((resolve) => setTimeout(resolve, WATCHED_S * 1000));
    const after = await Promise.all([bob, cy].map(seenBy));
    const grown = (at, what) => after[at][what] - before[at][what];
    const told = [0, 1].map((at) =>
      `${grown(at, 'frames')} frames ${after[at].width} wide, ${grown(at, 'freezes')} freezes`);
    // How it is on the wide path tells a slow encoder from a bad choice.
    const text = `in ${WATCHED_S} s ${told[0]}; on the wide path ${told[1]}`;
    if (grown(0, 'freezes') > FREEZES || after[0].width === WIDTH) throw new Error(text);
    return text;
  });
  await check(`${what}: a wide path beside it gets ${WIDTH}x${HEIGHT}`, async () => {
    const { frames } = await untilWide(cy, 10, (width) => width === WIDTH);
    return `${frames} frames`;
  });
  await check(`${what}: and so does the narrow one when it is wide again`, async () => {
    limit(FROM_LOSSY, null);
    await untilWide(bob, 60, (width) => width === WIDTH);
  });
  await Promise.all([near, far].map((browser) => browser.close()));
}

function untilWide(one, seconds, isRight) {
  return until(`${one.name} decodes pictures of the right width`, seconds, async () => {
    const seen = await seenBy(one);
    return seen && isRight(seen.width) && seen;
  }, () => one.figures());
}

/** The one picture that somebody watches. */
async function seenBy(one) {
  const { received } = await one.figures();
  return received.find(({ frames }) => frames > 0);
}
