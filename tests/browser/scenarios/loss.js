// What is lost on the way to a receiver, or on the way from a sender, is asked for again.

import { FROM_LOSSY, TO_LOSSY, losing } from '../network.js';
import { untilMeet } from '../participant.js';

const LOSS = 0.03;
const FRAMES = 200;
const WINDOW = { width: 1600, height: 900 };
const MOST_FREEZES = 3;

export async function run({ browsers, check }) {
  const [near, far] = await Promise.all([
    browsers.chromium(),
    browsers.chromium({ lossy: true }),
  ]);
  // Pictures of more than one packet, in tiles large enough to ask for them.
  const ada = await browsers.join(near, 'room', 'Ada', { height: '360' });
  const bob = await browsers.join(far, 'room', 'Bob', { height: '360' });
  await Promise.all([ada, bob].map(({ page }) => page.setViewport(WINDOW)));
  await untilMeet(ada, bob);

  await check('3 % loss on the way to a receiver is repaired by the server', () =>
    losing(TO_LOSSY, LOSS, async (lost) => {
      const before = await bob.untilSees(ada, { frames: 1 });
      const after = await bob.untilSees(ada, { frames: FRAMES, seconds: 40 });
      return judge(lost(), after.nacks - before.nacks, before, after);
    }));

  await check('3 % loss on the way from a sender is repaired by the sender', () =>
    losing(FROM_LOSSY, LOSS, async (lost) => {
      const sentBefore = await bob.sent();
      const before = await ada.untilSees(bob, { frames: 1 });
      const after = await ada.untilSees(bob, { frames: FRAMES, seconds: 40 });
      return judge(lost(), (await bob.sent()).nacks - sentBefore.nacks, before, after);
    }));
}

function judge(lost, nacks, before, after) {
  const freezes = after.freezes - before.freezes;
  const frozen = (after.frozen - before.frozen).toFixed(1);
  const figures =
    `${lost} datagrams lost, ${nacks} NACKs, ${after.frames - before.frames} frames, ` +
    `${freezes} freezes of ${frozen} s in all`;
  if (lost === 0) throw new Error(`nothing was lost: ${figures}`);
  if (nacks === 0) throw new Error(`nothing was asked for again: ${figures}`);
  if (freezes > MOST_FREEZES) throw new Error(`the picture freezes: ${figures}`);
  return figures;
}
