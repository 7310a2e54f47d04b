// m-lines that are stopped and used again: the pictures go on, on the connection there was.

import { openLines } from '../lines.js';

const ROUNDS = 5;
/** What is stopped can be used again once that was answered: one offer later. */
const SPARE_LINES = 2;

export async function run({ server, browsers, check }) {
  const chromium = await browsers.chromium();
  const ada = await openLines(browsers, chromium, 'Ada');
  const bob = await openLines(browsers, chromium, 'Bob');
  // Two, so that the first stays: with the first m-line of a bundle Chromium gives up the whole
  // transport (libwebrtc, JsepTransportController::HandleRejectedContent).
  await ada.publish({ count: 2 });
  await bob.publish();
  await Promise.all([ada.untilReceives(1, 15), bob.untilReceives(2, 15)]);
  const before = { ada: await ada.figures(), bob: await bob.figures() };
  const { connected } = (await server.stats()).totals.engine;

  await check('m-lines that are stopped are used again and the pictures go on', async () => {
    for (let round = 0; round < ROUNDS; round += 1) {
      await ada.stop();
      await ada.publish();
      await Promise.all([ada.untilReceives(1, 15), bob.untilReceives(2, 15)]);
    }
    const [one, two] = [await ada.figures(), await bob.figures()];
    const figures = `${before.ada.lines} and ${before.bob.lines} m-lines became ${one.lines} ` +
      `and ${two.lines} in ${ROUNDS} rounds`;
    if (one.lines > before.ada.lines + SPARE_LINES || two.lines !== before.bob.lines) {
      throw new Error(figures);
    }
    return figures;
  });
  await check('there is no new connection', async () => {
    const now = { ada: await ada.figures(), bob: await bob.figures() };
    const { engine } = (await server.stats()).totals;
    const ufrags = ['ada', 'bob'].map((name) => [before[name].ufrag, now[name].ufrag]);
    const figures = `${connected} connected before, ${engine.connected} after; ` +
      `ICE ${ufrags.map((pair) => pair.join(' then ')).join(', ')}`;
    const same = ufrags.every(([one, other]) => one === other);
    if (!same || engine.connected !== connected) throw new Error(figures);
    return figures;
  });
}
