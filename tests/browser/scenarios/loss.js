// A receiver that loses 3 % of what comes to it asks for it again, and goes on decoding.

import { countLost, loseIncoming, loseNothing } from '../network.js';
import { untilMeet } from '../participant.js';

const LOSS = 0.03;
const FRAMES = 250;

export async function run({ browsers, check }) {
  const [near, far] = await Promise.all([
    browsers.chromium(),
    browsers.chromium({ lossy: true }),
  ]);
  const ada = await browsers.join(near, 'room', 'Ada');
  const bob = await browsers.join(far, 'room', 'Bob');
  await untilMeet(ada, bob);

  loseIncoming(LOSS);
  await check('3 % loss is repaired', async () => {
    const before = await bob.untilSees(ada, { frames: 1 });
    const after = await bob.untilSees(ada, { frames: FRAMES, seconds: 40 });
    const lost = countLost();
    const nacks = after.nacks - before.nacks;
    const frozen = after.frozen - before.frozen;
    const figures =
      `${lost} datagrams lost, ${nacks} NACKs, ${after.frames - before.frames} frames, ` +
      `${after.freezes - before.freezes} freezes of ${frozen.toFixed(1)} s in all`;
    if (lost === 0) throw new Error(`nothing was lost: ${figures}`);
    if (nacks === 0) throw new Error(`nothing was asked for again: ${figures}`);
    if (after.freezes - before.freezes > 3) throw new Error(`the picture freezes: ${figures}`);
    return figures;
  });
  loseNothing();
}
