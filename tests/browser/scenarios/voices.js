// A call of sound alone: three who speak and one who only listens. Then one of the three repeats
// itself in every packet (RED), which who cannot read that must not notice.

import { until } from '../until.js';

const OPTIONS = { video: '0' };
/** A packet that repeats the one before is clearly bigger. */
const GROWS = 1.4;
const MEASURED_S = 3;

export async function run({ server, browsers, check }) {
  const [chromium, firefox] = await Promise.all([browsers.chromium(), browsers.firefox()]);
  const ada = await browsers.join(chromium, 'voices', 'Ada', OPTIONS);
  const ben = await browsers.join(chromium, 'voices', 'Ben', OPTIONS);
  const cy = await browsers.join(firefox, 'voices', 'Cy', OPTIONS);
  const dan = await browsers.join(chromium, 'voices', 'Dan', { ...OPTIONS, audio: '0' });
  const speakers = [ada, ben, cy];
  const heardBy = (one) => speakers.filter((speaker) => speaker !== one);

  await check('each of three hears the two others', async () => {
    const pairs = speakers.flatMap((one) => heardBy(one).map((other) => one.untilHears(other)));
    return `${(await Promise.all(pairs)).map(({ samples }) => samples)} samples`;
  });
  await check('one who only listens hears all three', async () => {
    const heard = await Promise.all(speakers.map((speaker) => dan.untilHears(speaker)));
    return `${heard.map(({ samples }) => samples)} samples`;
  });
  await check('nothing but sound is sent', async () => {
    const { audio_tracks: sounds, video_tracks: pictures } = (await server.stats()).totals.engine;
    if (sounds !== 3 || pictures !== 0) throw new Error(`${sounds} sounds, ${pictures} pictures`);
  });
  await check('all are told who speaks', async () => {
    await until('Dan was told of a speaker', 20, () => dan.page.evaluate(() =>
      document.querySelectorAll('.tile[data-speaking="true"]').length > 0));
  });
  await check('redundancy (RED) passes, and who does not take it gets what it protects', async () => {
    const plain = await sizes(ada, ben, cy);
    await ada.page.evaluate(preferRedundancy);
    const doubled = await until('what Ada sends has grown', 20, async () => {
      const now = await sizes(ada, ben, cy);
      return now.sent > plain.sent * GROWS && now;
    }, () => sizes(ada, ben, cy));
    const told = JSON.stringify({ plain, doubled });
    if (doubled.atBen < plain.atBen * GROWS || doubled.atCy > plain.atCy * GROWS) throw new Error(told);
    await Promise.all([ben, cy, dan].map((one) => one.untilHears(ada)));
    return told;
  });
}

/** In a page: the microphone is offered with redundancy first. */
function preferRedundancy() {
  const { client } = window.corelay;
  const isVoice = ({ sender }) => sender.track?.kind === 'audio';
  const transceiver = client.peerConnection.getTransceivers().find(isVoice);
  const { codecs } = RTCRtpSender.getCapabilities('audio');
  const isRed = ({ mimeType }) => mimeType.toLowerCase() === 'audio/red';
  transceiver.setCodecPreferences([...codecs.filter(isRed), ...codecs.filter((c) => !isRed(c))]);
  client.restartIce();
}

/** Bytes in a packet of Ada's voice, on average over some seconds: as sent, and as two others get it. */
async function sizes(ada, ben, cy) {
  const before = await Promise.all([sent(ada), got(ben, ada), got(cy, ada)]);
  await new Promise((resolve) => setTimeout(resolve, MEASURED_S * 1000));
  const after = await Promise.all([sent(ada), got(ben, ada), got(cy, ada)]);
  const size = (at) =>
    Math.round((after[at].bytes - before[at].bytes) / (after[at].packets - before[at].packets));
  return { sent: size(0), atBen: size(1), atCy: size(2) };
}

function sent(one) {
  return one.page.evaluate(async () => {
    const { raw } = (await window.corelay.client.stats()).sent.get('microphone');
    return { bytes: raw.bytesSent, packets: raw.packetsSent };
  });
}

function got(one, speaker) {
  return one.page.evaluate(async (name) => {
    const { client } = window.corelay;
    const isWanted = ({ participantId }) => client.participants.get(participantId)?.name === name;
    const { mid } = [...client.slots.values()].find(isWanted);
    const { raw } = (await client.stats()).slots.get(mid);
    return { bytes: raw.bytesReceived, packets: raw.packetsReceived };
  }, speaker.name);
}
