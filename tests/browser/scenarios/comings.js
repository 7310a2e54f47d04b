// What happens to one's own end of a call: reload, ICE restart, leaving, a server that starts again.

import { blockingTcp } from '../network.js';
import { untilMeet } from '../participant.js';
import { until } from '../until.js';

export async function run({ server, browsers, check }) {
  const chromium = await browsers.chromium();
  const ada = await browsers.join(chromium, 'room', 'Ada');
  const bob = await browsers.join(chromium, 'room', 'Bob');
  await untilMeet(ada, bob);

  await check('a reload comes back into the call', async () => {
    await bob.page.reload();
    await ada.untilTiles(['Bob/camera']);
    await server.untilParticipants(2);
    return untilMeet(ada, bob);
  });

  await check('media goes on over an ICE restart', async () => {
    const before = await ufrag(ada);
    await ada.page.evaluate(() => window.corelay.client.restartIce());
    const after = await until('new credentials are in use', 10, async () => {
      const now = await ufrag(ada);
      return now.local !== before.local && now.stable && now;
    });
    const met = await untilMeet(ada, bob);
    await ada.untilState('connected');
    return `${before.local} → ${after.local}; ${met}`;
  });

  await check('media goes on while the WebSocket is lost, and its participant comes back', async () => {
    const read = () => ada.page.evaluate(() => {
      const { client } = window.corelay;
      const isSame = client.peerConnection === (window.connection ??= client.peerConnection);
      return { id: client.participantId, isSame };
    });
    const before = await read();
    await blockingTcp(async () => {
      await ada.untilState('reconnecting', 40);
      return ada.untilMeets(bob);
    });
    await ada.untilState('connected', 40);
    const after = await read();
    if (after.id !== before.id || !after.isSame) throw new Error('another participant came back');
    return untilMeet(ada, bob);
  });

  await check('leaving by the button ends it for both', async () => {
    await bob.page.click('#leave');
    await ada.untilTiles([]);
    await server.untilParticipants(1);
    await bob.page.waitForSelector('body[data-stage="lobby"]');
  });

  await check('joining again from the lobby works', async () => {
    await bob.page.click('#join');
    return untilMeet(ada, bob);
  });

  const cleo = await browsers.join(chromium, 'room', 'Cleo', { audio: '0', video: '0' });
  await check('who has no camera and no microphone watches', async () => {
    const met = await Promise.all([cleo.untilMeets(ada), cleo.untilMeets(bob)]);
    await ada.untilTiles(['Bob/camera', 'Cleo/camera']);
    await cleo.page.close();
    return met.join('; ');
  });

  await check('a call comes back when the server starts again', async () => {
    await server.stop();
    await Promise.all([ada.untilState('reconnecting'), bob.untilState('reconnecting')]);
    await server.start();
    return untilMeet(ada, bob);
  });
}

function ufrag(participant) {
  return participant.page.evaluate(() => {
    const { peerConnection } = window.corelay.client;
    const read = ({ sdp }) => /a=ice-ufrag:(\S+)/.exec(sdp)[1];
    return {
      local: read(peerConnection.localDescription),
      remote: read(peerConnection.remoteDescription),
      stable: peerConnection.signalingState === 'stable',
    };
  });
}
