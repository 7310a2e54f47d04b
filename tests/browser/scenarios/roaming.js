// A browser whose machine gets another address, as on the way out of a Wi-Fi, comes back by itself.

import { moveLossy } from '../network.js';
import { untilMeet } from '../participant.js';

export async function run({ server, browsers, check }) {
  const [near, far] = await Promise.all([
    browsers.chromium(),
    browsers.chromium({ lossy: true }),
  ]);
  const ada = await browsers.join(near, 'room', 'Ada');
  const bob = await browsers.join(far, 'room', 'Bob');
  await untilMeet(ada, bob);

  await check('a browser that gets another address is back in the call', async () => {
    moveLossy('10.77.2.9');
    await bob.untilState('reconnecting', 20);
    await bob.untilState('connected', 20);
    return untilMeet(ada, bob);
  });
  await check('the server gives up who was there before', async () => {
    await ada.untilTiles(['Bob/camera'], 60);
    await server.untilParticipants(2);
  });
  await browsers.close();
  moveLossy();
}
