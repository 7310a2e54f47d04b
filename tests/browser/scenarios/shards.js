// Two calls on two shards, on each driver and with each way of bringing packets to their shard.

import { untilMeet } from '../participant.js';

const WAYS = [
  { driver: 'glommio', steering: 'auto' },
  { driver: 'epoll', steering: 'auto' },
  { driver: 'glommio', steering: 'cbpf' },
  { driver: 'epoll', steering: 'none' },
];

export async function run({ server, browsers, check }) {
  const chromium = await browsers.chromium();
  for (const { driver, steering } of WAYS) {
    await server.stop();
    await server.start(['--driver', driver, '--steering', steering]);
    await check(`two calls with --driver ${driver} --steering ${steering}`, async () => {
      const calls = await Promise.all([call(browsers, chromium, 1), call(browsers, chromium, 2)]);
      const chosen = server.log().split('\n').findLast((line) => line.includes('driver'));
      if (!chosen.includes(driver)) throw new Error(`another driver runs: ${chosen}`);
      await Promise.all(calls.flat().map(({ page }) => page.close()));
      return chosen.trim().replace(/\s+/g, ' ');
    });
  }
}

async function call(browsers, browser, number) {
  const room = `room-${number}`;
  const ada = await browsers.join(browser, room, `Ada-${number}`);
  const bob = await browsers.join(browser, room, `Bob-${number}`);
  await untilMeet(ada, bob);
  return [ada, bob];
}
