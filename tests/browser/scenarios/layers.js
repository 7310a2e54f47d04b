// Three layers, one viewer on a narrow path and one on a wide one: each gets what its path carries.

import { openLines } from '../lines.js';
import { FROM_LOSSY, limit } from '../network.js';
import { until } from '../until.js';

const HEIGHT = 720;
const WIDTH = 1280;
/** Of the smallest layer, a quarter each way. */
const SMALL_WIDTH = WIDTH / 4;
const NARROW_KBPS = 500;
const WATCHED_S = 30;
/** The time it takes to find out how narrow the path is may cost one. */
const FREEZES = 1;

export async function run({ browsers, check }) {
  const [near, far] = await Promise.all([
    browsers.chromium(),
    browsers.chromium({ lossy: true }),
  ]);
  const ada = await openLines(browsers, near, 'Ada');
  await ada.publish({ height: HEIGHT, simulcast: true });
  limit(FROM_LOSSY, NARROW_KBPS);
  const bob = await openLines(browsers, far, 'Bob');
  const cy = await openLines(browsers, near, 'Cy');

  await check(`a path of ${NARROW_KBPS} kbit/s gets the small layer, smoothly`, async () => {
    const small = await untilWide(bob, SMALL_WIDTH, 30);
    await new Promise((resolve) => setTimeout(resolve, WATCHED_S * 1000));
    const after = await seenBy(bob);
    const [frames, freezes] = [after.frames - small.frames, after.freezes - small.freezes];
    const told = `${frames} frames ${after.width} wide in ${WATCHED_S} s, ${freezes} freezes`;
    if (freezes > FREEZES || after.width > WIDTH / 2) throw new Error(told);
    return told;
  });
  await check(`a wide path beside it gets ${WIDTH}x${HEIGHT}`, async () => {
    const { frames } = await untilWide(cy, WIDTH, 10);
    return `${frames} frames`;
  });
  await check(`and so does the narrow one when it is wide again`, async () => {
    limit(FROM_LOSSY, null);
    await untilWide(bob, WIDTH, 30);
  });
}

function untilWide(one, wanted, seconds) {
  return until(`${one.name} decodes pictures ${wanted} wide`, seconds, async () => {
    const seen = await seenBy(one);
    return seen?.width === wanted && seen;
  }, () => one.figures());
}

/** The one picture that somebody watches. */
async function seenBy(one) {
  const { received } = await one.figures();
  return received.find(({ frames }) => frames > 0);
}
