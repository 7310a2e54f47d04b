// Three layers are published beside watching, and each side decodes the other.

import { openLines } from '../lines.js';
import { until } from '../until.js';

const RIDS = ['h', 'l', 'm'];
const FRAMES = 40;

export async function run({ browsers, check }) {
  const chromium = await browsers.chromium();
  const ada = await openLines(browsers, chromium, 'Ada');
  const bob = await openLines(browsers, chromium, 'Bob');
  await ada.publish({ height: 540, simulcast: true });
  await bob.publish({ height: 540, simulcast: true });

  await check('all three layers are sent while the other is watched', async () => {
    const sends = (one) => until(`${one.name} sends ${RIDS}`, 40, async () => {
      const { sent } = await one.figures();
      const moving = sent.filter(({ frames }) => frames > FRAMES);
      return moving.map(({ rid }) => rid).sort().join() === RIDS.join() && sent;
    }, () => one.figures());
    const both = await Promise.all([sends(ada), sends(bob)]);
    const text = (sent) => sent.map(({ rid, width }) => `${rid} ${width}`).sort().join(', ');
    return both.map(text).join('; ');
  });
  await check('both decode what the other publishes', async () => {
    const both = await Promise.all([ada.untilReceives(1, FRAMES), bob.untilReceives(1, FRAMES)]);
    return both.map(({ received: [{ frames, width }] }) => `${frames} frames ${width} wide`)
      .join('; ');
  });
}
