// Firefox sends a camera in three layers, and Chromium decodes the one that it asks for.

import { until } from '../until.js';

const ROOM = 'firefox-layers';
const RIDS = 'f,h,q';
const FRAMES = 30;

export async function run({ browsers, check }) {
  const [firefox, chromium] = await Promise.all([browsers.firefox(), browsers.chromium()]);
  const ada = await browsers.join(firefox, ROOM, 'Ada', { height: '540' });
  const bob = await browsers.join(chromium, ROOM, 'Bob');

  await check('Firefox sends three layers', async () => {
    const sent = await until(`Ada sends ${RIDS}`, 40, async () => {
      const layers = (await sentBy(ada)).filter(({ frames }) => frames > FRAMES);
      return layers.map(({ rid }) => rid).sort().join() === RIDS && layers;
    }, () => sentBy(ada));
    return sent.map(({ rid, width }) => `${rid} ${width}`).sort().join(', ');
  });
  await check('Chromium decodes the smallest and the largest of them', async () => {
    const widths = [];
    for (const quality of ['low', 'high']) {
      await bob.page.evaluate((wanted) => window.corelay.client.setQuality(wanted), quality);
      const seen = await until(`Bob decodes quality ${quality}`, 40, async () => {
        const camera = await bob.untilSees(ada);
        const isRight = widths.length === 0 ? camera.width <= 320 : camera.width > widths[0];
        return isRight && camera;
      }, () => bob.received());
      widths.push(seen.width);
    }
    return widths.join(' and then ');
  });
}

/** The layers of the camera that somebody sends. */
function sentBy(one) {
  return one.page.evaluate(async () => {
    const stats = await window.corelay.client.peerConnection?.getStats();
    const layers = [...(stats?.values() ?? [])].filter(
      ({ type, kind, rid }) => type === 'outbound-rtp' && kind === 'video' && rid,
    );
    return layers.map(({ rid, framesEncoded, frameWidth }) => (
      { rid, frames: framesEncoded ?? 0, width: frameWidth ?? 0 }
    ));
  });
}
