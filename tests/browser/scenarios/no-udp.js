// A browser whose network lets no UDP through comes in over TCP, and the others stay on UDP.

import { blockingUdp } from '../network.js';
import { untilMeet } from '../participant.js';
import { until } from '../until.js';

export async function run({ server, browsers, check }) {
  const [near, far] = await Promise.all([
    browsers.chromium(),
    browsers.chromium({ lossy: true }),
  ]);
  await blockingUdp(async () => {
    const ada = await browsers.join(near, 'room', 'Ada');
    const bob = await browsers.join(far, 'room', 'Bob', {}, {});
    await check('a browser without UDP sees and is seen', async () => {
      const met = await untilMeet(ada, bob);
      const route = await bob.route();
      if (!route.endsWith('/tcp')) throw new Error(`its media goes by ${route}`);
      const { tcp_in_packets: came, tcp_out_packets: left } = (await server.stats()).totals.shard;
      return `${met}; by ${route}, ${came} packets in and ${left} out`;
    });
    await check('TCP connections end with those who made them', async () => {
      await Promise.all([ada, bob].map(({ page }) => page.close()));
      await server.untilParticipants(0);
      const open = async () => (await server.stats()).totals.shard.tcp_open;
      await until('no TCP connection is open', 20, async () => (await open()) === 0, open);
    });
  });
}
