// Layers in one stream (VP9, AV1), one viewer on a narrow path and one on a wide one: each gets what
// its path carries. Not among the suites, as layers.js is not. scripts/interop svc-layers.

import { watchNarrowAndWide } from './layers.js';

const scalabilityMode = 'L3T3_KEY';
/**
 * Encoders of several layers take their time: at 15 a second two cores come late with some, that of
 * AV1 with as much noise as others get already at 10.
 */
const PICTURES = { VP9: { fps: 10 }, AV1: { fps: 10, kbps: 1_500, noisy: 1 / 8 } };

export async function run({ browsers, check }) {
  for (const [codec, picture] of Object.entries(PICTURES)) {
    await watchNarrowAndWide({ browsers, check }, codec, { codec, scalabilityMode, ...picture });
  }
}
