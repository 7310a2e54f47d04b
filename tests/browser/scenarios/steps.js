// A viewer's path that narrows and widens: what it is sent follows, and the picture goes on.

import { openLines } from '../lines.js';
import { FROM_LOSSY, limit } from '../network.js';
import { until } from '../until.js';

const WIDE_KBPS = 2_000;
const NARROW_KBPS = 500;
/** Pictures that fit through the wide path together, and not through the narrow one. */
const PICTURES = { count: 6, height: 90, kbps: 180 };
/** What a wide path must carry. */
const MORE_KBPS = 900;

export async function run({ server, browsers, check }) {
  const [near, far] = await Promise.all([
    browsers.chromium(),
    browsers.chromium({ lossy: true }),
  ]);
  limit(FROM_LOSSY, WIDE_KBPS);
  const ada = await openLines(browsers, near, 'Ada');
  await ada.publish(PICTURES);
  const bob = await openLines(browsers, far, 'Bob');
  await bob.untilReceives(1, 20);
  const rate = rateOf(bob);

  const wide = (seconds) => until(`more than ${MORE_KBPS} kbit/s arrive`, seconds, async () => {
    const kbps = await rate();
    return kbps > MORE_KBPS && told(server, kbps);
  }, async () => told(server, await rate()));

  await check(`a path of ${WIDE_KBPS} kbit/s is used`, () => wide(25));
  await check(`what is sent fits ${NARROW_KBPS} kbit/s within 8 s of a drop to that`, async () => {
    limit(FROM_LOSSY, NARROW_KBPS);
    const figures = await until('estimate and rate fit', 8, async () => {
      const kbps = await rate();
      const estimate = await estimateOf(server);
      return kbps <= NARROW_KBPS * 1.05 && estimate <= NARROW_KBPS * 1.1 && told(server, kbps);
    }, async () => told(server, await rate()));
    await bob.untilReceives(1, 20, 15);
    return figures;
  });
  await check(`a path that is wide again is used again`, () => {
    limit(FROM_LOSSY, WIDE_KBPS);
    return wide(30);
  });
  limit(FROM_LOSSY, null);
}

async function told(server, kbps) {
  return `${Math.round(kbps)} kbit/s arrive, ${Math.round(await estimateOf(server))} estimated`;
}

/** Only one participant watches: what the server estimates in all is its path. */
async function estimateOf(server) {
  return (await server.stats()).totals.engine.estimated_bps / 1000;
}

/** Gives what arrived per second since it was last asked, over half a second and more. */
function rateOf({ page }) {
  const read = () => page.evaluate(async () => {
    const sum = { bytes: 0, at: performance.now() };
    for (const { type, bytesReceived } of (await window.lines.stats()).values()) {
      if (type === 'inbound-rtp') sum.bytes += bytesReceived;
    }
    return sum;
  });
  let before = null;
  return async () => {
    before ??= await read();
    await new Promise((resolve) => setTimeout(resolve, 1_000));
    const now = await read();
    const kbps = ((now.bytes - before.bytes) * 8) / (now.at - before.at);
    before = now;
    return kbps;
  };
}
