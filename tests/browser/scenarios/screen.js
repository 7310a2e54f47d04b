// A shared screen is a second video of the same participant, and goes again; muting and switching
// the camera off and on reach the other side.

import { untilMeet } from '../participant.js';
import { until } from '../until.js';

export async function run({ browsers, check }) {
  const chromium = await browsers.chromium();
  const ada = await browsers.join(chromium, 'room', 'Ada');
  const bob = await browsers.join(chromium, 'room', 'Bob');
  await untilMeet(ada, bob);

  await check('a shared screen appears beside the camera', async () => {
    await press(ada, '#screen');
    await bob.untilTiles(['Ada/camera', 'Ada/screen']);
    const screen = await bob.untilSees(ada, { source: 'screen', frames: 10 });
    const camera = await bob.untilSees(ada);
    return `screen ${screen.frames} frames ${screen.width} wide, camera ${camera.frames} frames`;
  });

  const lines = await countLines(ada);
  await check('a screen no longer shared goes, the camera stays', async () => {
    await press(ada, '#screen');
    await bob.untilTiles(['Ada/camera']);
    return `camera ${(await bob.untilSees(ada)).frames} frames`;
  });

  await check('sharing again takes the same m-line', async () => {
    await press(ada, '#screen');
    const screen = await bob.untilSees(ada, { source: 'screen', frames: 10 });
    const now = await countLines(ada);
    if (now !== lines) throw new Error(`${lines} m-lines became ${now}`);
    await press(ada, '#screen');
    await bob.untilTiles(['Ada/camera']);
    return `screen ${screen.frames} frames, ${now} m-lines`;
  });

  await check('the others are told of a muted microphone', async () => {
    await press(ada, '#microphone');
    await bob.page.waitForSelector('#grid .tile[data-microphone="muted"]', { timeout: 10_000 });
    await press(ada, '#microphone');
    const selector = '#grid .tile[data-source="camera"]:not([data-participant="own"])';
    await bob.page.waitForSelector(`${selector}[data-microphone="on"]`, { timeout: 10_000 });
    return `${(await bob.untilHears(ada)).samples} samples`;
  });

  await check('a camera switched off and on again is seen again', async () => {
    await press(ada, '#camera');
    const shown = () =>
      bob.page.evaluate(() => {
        const tiles = [...document.querySelectorAll('#grid .tile')];
        return tiles.find(({ dataset }) => dataset.participant !== 'own').dataset.video;
      });
    await until('the picture is gone', 10, async () => (await shown()) === 'off');
    await press(ada, '#camera');
    await until('the picture is back', 10, async () => (await shown()) === 'on');
    return `${(await bob.untilSees(ada)).frames} frames`;
  });
}

/** Presses a button as a person does: in the tab in front. */
async function press({ page }, button) {
  await page.bringToFront();
  await page.waitForSelector(`${button}:not(:disabled)`);
  await page.click(button);
}

function countLines({ page }) {
  return page.evaluate(
    () => window.corelay.client.peerConnection.localDescription.sdp.match(/^m=/gm).length,
  );
}
