// Layers in one stream (VP9, AV1), one viewer on a narrow path and one on a wide one: each gets what
// its path carries. Not among the suites, as layers.js is not. scripts/interop svc-layers.

import { watchNarrowAndWide } from './layers.js';

const MODES = [['VP9', 'L3T3_KEY'], ['AV1', 'L3T3_KEY']];
/** Encoders of several layers take their time: at 15 a second two cores come late with some. */
const FPS = 10;

export async function run({ browsers, check }) {
  for (const [codec, scalabilityMode] of MODES) {
    await watchNarrowAndWide({ browsers, check }, codec, { codec, scalabilityMode, fps: FPS });
  }
}
