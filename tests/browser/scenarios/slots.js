// Twenty-five pictures in one browser, each in a slot of its own.

import { openLines } from '../lines.js';

const SLOTS = 25;
const FRAMES = 10;

export const serverEnvironment = { CORELAY_ROOMS_MAX_VIDEO_SLOTS: String(SLOTS) };

export async function run({ server, browsers, check }) {
  const chromium = await browsers.chromium();
  const ada = await openLines(browsers, chromium, 'Ada');
  await ada.publish({ count: SLOTS });
  const bob = await openLines(browsers, chromium, 'Bob');
  await check(`${SLOTS} pictures move in one browser`, async () => {
    const { received, lines } = await bob.untilReceives(SLOTS, FRAMES, 60);
    const least = Math.min(...received.map(({ frames }) => frames));
    const { engine } = (await server.stats()).totals;
    return `${lines} m-lines, at least ${least} frames on each, ${engine.resent} resent`;
  });
}
