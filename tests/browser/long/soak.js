// A long call of two Chromiums, one of them on a lossy path, and a Firefox: nothing stands still.
// Not among the suites: scripts/interop soak. CORELAY_SOAK_MINUTES says how long (30).

import { readFileSync } from 'node:fs';

import { TO_LOSSY, losing } from '../network.js';
import { untilMeet } from '../participant.js';

const MINUTES = Number(process.env.CORELAY_SOAK_MINUTES ?? 30);
const LOSS = 0.01;
/** Frames a picture must gain in a minute: even a busy machine shows two a second. */
const LEAST_FRAMES = 120;
const COUNTS = ['framesReceived', 'framesDecoded', 'framesDropped', 'keyFramesDecoded',
  'freezeCount', 'nackCount', 'pliCount', 'firCount', 'packetsLost'];

export async function run({ server, browsers, check }) {
  const [near, far, fox] = await Promise.all([
    browsers.chromium(),
    browsers.chromium({ lossy: true }),
    browsers.firefox(),
  ]);
  const people = [
    await browsers.join(near, 'room', 'Ada'),
    await browsers.join(far, 'room', 'Bob'),
    await browsers.join(fox, 'room', 'Cy'),
  ];
  const [ada, bob, cy] = people;
  await Promise.all([untilMeet(ada, bob), untilMeet(ada, cy), untilMeet(bob, cy)]);

  await check(`${MINUTES} minutes with ${LOSS * 100} % loss on one path`, () =>
    losing(TO_LOSSY, LOSS, async () => {
      const first = await sample(people);
      const slow = [];
      let before = first;
      for (let minute = 1; minute <= MINUTES; minute += 1) {
        await new Promise((resolve) => setTimeout(resolve, 60_000));
        const now = await sample(people);
        const gained = difference(before, now);
        const { engine } = (await server.stats()).totals;
        console.log(JSON.stringify({ minute, gained, guarded: engine.guarded, busy: busy() }));
        for (const [stream, counts] of Object.entries(gained)) {
          if (counts.framesDecoded < LEAST_FRAMES) slow.push(`${stream} in minute ${minute}`);
        }
        before = now;
      }
      if (slow.length > 0) throw new Error(`hardly a picture: ${slow.join(', ')}`);
      return JSON.stringify(difference(first, before));
    }));
}

/** How much of the last minute something waited for a CPU, in percent: pictures wait then, too. */
function busy() {
  return Number(/avg60=([\d.]+)/.exec(readFileSync('/proc/pressure/cpu', 'utf8'))?.[1]);
}

/** By viewer and camera. */
async function sample(people) {
  const streams = {};
  for (const { page, name } of people) {
    const entries = await page.evaluate(async (counts) => {
      const { client } = window.corelay;
      const { slots } = await client.stats();
      const found = [];
      for (const [mid, { participantId, kind }] of client.slots) {
        if (kind !== 'video' || !participantId) continue;
        const raw = slots.get(mid)?.raw ?? {};
        const values = counts.map((count) => [count, raw[count] ?? 0]);
        found.push([client.participants.get(participantId)?.name, Object.fromEntries(values)]);
      }
      return found;
    }, COUNTS);
    for (const [from, values] of entries) streams[`${name} ← ${from}`] = values;
  }
  return streams;
}

function difference(before, now) {
  const gained = {};
  for (const [stream, counts] of Object.entries(now)) {
    gained[stream] = {};
    for (const count of COUNTS) gained[stream][count] = counts[count] - before[stream][count];
  }
  return gained;
}
