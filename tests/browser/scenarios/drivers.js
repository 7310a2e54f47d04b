// A call of two on each of the two drivers.

import { untilMeet } from '../participant.js';

export async function run({ server, browsers, check }) {
  const chromium = await browsers.chromium();
  for (const driver of ['glommio', 'epoll']) {
    await server.stop();
    await server.start(['--driver', driver]);
    const ada = await browsers.join(chromium, driver, 'Ada');
    const bob = await browsers.join(chromium, driver, 'Bob');
    await check(`a call of two on ${driver}`, () => untilMeet(ada, bob));
    await Promise.all([ada.page.close(), bob.page.close()]);
  }
}
