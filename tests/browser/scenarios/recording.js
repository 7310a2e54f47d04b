// Calls of real browsers are recorded, and every frame of every file can be decoded.

import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import path from 'node:path';

import { beepAndFlash, offsets, untilSteady } from '../beeps.js';
import { FROM_LOSSY, losing } from '../network.js';
import { api, checkFiles, decode, expect, playing, probe, untilFinished } from '../recordings.js';
import { Server } from '../server.js';
import { until } from '../until.js';

const RECORDINGS = path.join(process.env.CORELAY_SCRATCH, 'recordings');
/** How much of a call is recorded. */
const SECONDS = 4;
/** The share of datagrams that a sender with a bad line loses. */
const LOSS = 0.03;
/** How far sound and picture of one participant may be apart in its files, in milliseconds. */
const APART_MS = 40;
/** How often a room is recorded one time after the other. */
const TIMES = 100;

export const serverEnvironment = {
  CORELAY_RECORDING_ENABLED: 'true',
  CORELAY_RECORDING_PATH: RECORDINGS,
  CORELAY_RECORDING_MIN_FREE_SPACE: '1',
};

export async function run({ server, browsers, check }) {
  mkdirSync(RECORDINGS, { recursive: true });
  const chromium = await browsers.chromium();
  for (const codec of ['VP8', 'VP9', 'H264', 'AV1']) {
    const room = `recorded-${codec.toLowerCase()}`;
    const ada = await browsers.join(chromium, room, 'Ada', { codec });
    const bob = await browsers.join(chromium, room, 'Bob', { codec });
    await Promise.all([ada.untilSees(bob), bob.untilSees(ada)]);
    await check(`${codec} and Opus are recorded`, async () => {
      const { recordingId } = await api('POST', `/api/rooms/${room}/recording/start`);
      await playing(bob, ada, SECONDS);
      await api('POST', `/api/rooms/${room}/recording/stop`);
      const manifest = await untilFinished(recordingId);
      expect(manifest.participants.map(({ name }) => name).sort().join(), 'Ada,Bob');
      return checkFiles(manifest, RECORDINGS, { audio: 2, [codec.toLowerCase()]: 2 });
    });
    if (codec === 'VP8') {
      await check(`a room is recorded ${TIMES} times one after the other`, async () => {
        for (let time = 0; time < TIMES; time += 1) {
          await api('POST', `/api/rooms/${room}/recording/start`);
          await api('POST', `/api/rooms/${room}/recording/stop`);
        }
        return until('all are finished', 20, async () => {
          const { recordings } = await api('GET', '/api/recordings');
          const finished = recordings.filter(({ state }) => state === 'finished');
          return finished.length > TIMES && `${finished.length} recordings`;
        });
      });
    }
    await Promise.all([ada.page.close(), bob.page.close()]);
  }

  const far = await browsers.chromium({ lossy: true });
  const fay = await browsers.join(far, 'recorded-lossy', 'Fay', { height: '360' });
  const gil = await browsers.join(chromium, 'recorded-lossy', 'Gil');
  await gil.untilMeets(fay);
  await check('3 % loss on the way from a sender leaves no picture that cannot be decoded', () =>
    losing(FROM_LOSSY, LOSS, async (lost) => {
      const { recordingId } = await api('POST', '/api/rooms/recorded-lossy/recording/start');
      await playing(gil, fay, 2 * SECONDS);
      await api('POST', '/api/rooms/recorded-lossy/recording/stop');
      if (lost() === 0) throw new Error('nothing was lost');
      return `${lost()} lost; ${checkFiles(await untilFinished(recordingId), RECORDINGS, { vp8: 2 })}`;
    }));
  await Promise.all([fay.page.close(), gil.page.close()]);

  // Headless Firefox sends no steady flashes: within 90 s there were none to measure.
  const alone = await browsers.chromium();
  await check('what Chromium sends at one time is together in the files', async () => {
    const hal = await browsers.join(alone, 'recorded-beeps', 'Hal', {}, null, beepAndFlash);
    await hal.untilState('connected');
    const { recordingId } = await api('POST', '/api/rooms/recorded-beeps/recording/start');
    await hal.page.evaluate(() => window.flashes.splice(0));
    await untilSteady(hal);
    await api('POST', '/api/rooms/recorded-beeps/recording/stop');
    const manifest = await untilFinished(recordingId);
    checkFiles(manifest, RECORDINGS, { vp8: 1, opus: 1 });
    const [{ id }] = manifest.participants;
    const apart = offsets(manifest, path.join(RECORDINGS, manifest.directory), id);
    const figures = `beeps are later by ${apart.map(Math.round).join(', ')} ms`;
    if (apart.some((ms) => Math.abs(ms) > APART_MS)) throw new Error(figures);
    await hal.page.close();
    return figures;
  });

  const firefox = await browsers.firefox();
  const cy = await browsers.join(chromium, 'recorded-mixed', 'Cy');
  const dan = await browsers.join(firefox, 'recorded-mixed', 'Dan');
  await Promise.all([cy.untilMeets(dan), dan.untilMeets(cy)]);
  await check('Chromium and Firefox are recorded, and one who looked in', async () => {
    const { recordingId } = await api('POST', '/api/rooms/recorded-mixed/recording/start');
    const eve = await browsers.join(chromium, 'recorded-mixed', 'Eve');
    await eve.untilState('connected');
    await new Promise((resolve) => setTimeout(resolve, 300));
    await eve.page.close();
    await playing(cy, dan, SECONDS);
    await api('POST', '/api/rooms/recorded-mixed/recording/stop');
    const manifest = await untilFinished(recordingId);
    const left = manifest.participants.find(({ name }) => name === 'Eve').leftMs;
    if (!(left > 0)) throw new Error('nobody noticed that Eve left');
    return checkFiles(manifest, RECORDINGS, {});
  });

  await check('a killed server leaves files that play, and repairs them', () =>
    killAndRepair(server, 'recorded-mixed', () => playing(cy, dan, SECONDS)));
  await Promise.all([cy.page.close(), dan.page.close()]);

  await server.stop();
  const fragmented = new Server('recording-mp4', [], {
    ...serverEnvironment,
    CORELAY_RECORDING_FORMAT: 'mp4',
  });
  await fragmented.start();
  const ivy = await browsers.join(chromium, 'fragmented', 'Ivy', { codec: 'H264' });
  const jon = await browsers.join(chromium, 'fragmented', 'Jon', { codec: 'H264' });
  await Promise.all([ivy.untilSees(jon), jon.untilSees(ivy)]);
  await check('H264 and Opus are recorded in fragmented MP4', async () => {
    const { recordingId } = await api('POST', '/api/rooms/fragmented/recording/start');
    await playing(jon, ivy, SECONDS);
    await api('POST', '/api/rooms/fragmented/recording/stop');
    const manifest = await untilFinished(recordingId);
    const names = manifest.tracks.flatMap(({ files }) => files.map(({ name }) => name));
    expect(names.filter((name) => !name.endsWith('.mp4')).join(), '');
    return checkFiles(manifest, RECORDINGS, { audio: 2, h264: 2 });
  });
  await check('a killed server leaves fragmented MP4 that plays, and repairs it', () =>
    killAndRepair(fragmented, 'fragmented', () => playing(jon, ivy, SECONDS)));
  await Promise.all([ivy.page.close(), jon.page.close()]);
  await fragmented.stop();
  await server.start();

  await check('a recording is composed with everyone in it', async () => {
    const { recordings } = await api('GET', '/api/recordings');
    const mixed = recordings.findLast(({ room }) => room === 'recorded-mixed');
    const directory = path.join(RECORDINGS, mixed.directory);
    const figures = [];
    for (const [layout, ending] of [['grid', 'webm'], ['speaker', 'mp4']]) {
      const out = path.join(directory, `all.${ending}`);
      const { status, stderr } = spawnSync(
        process.env.CORELAY_BIN,
        ['record', 'compose', directory, '--layout', layout, '-o', out],
        { encoding: 'utf8' },
      );
      if (status !== 0) throw new Error(`${layout}: ${stderr}`);
      const { seconds } = decode(out);
      figures.push(`${layout} ${seconds.toFixed(1)} s`);
    }
    return figures.join(', ');
  });
}

/** Kills a server in the middle of a recording, and starts it again. @returns {Promise<string>} figures */
async function killAndRepair(server, room, untilRecorded) {
  const { recordingId } = await api('POST', `/api/rooms/${room}/recording/start`);
  await untilRecorded();
  const { recordings } = await api('GET', '/api/recordings');
  const live = recordings.find(({ id }) => id === recordingId);
  await server.kill();
  for (const { name } of live.tracks.flatMap(({ files }) => files)) {
    const file = path.join(RECORDINGS, live.directory, name);
    const { seconds } = probe(file);
    if (seconds < SECONDS - 2.5) throw new Error(`${name} has ${seconds} s left`);
  }
  await server.start();
  const manifest = await api('GET', `/api/recordings/${recordingId}`);
  expect(manifest.state, 'interrupted');
  return checkFiles(manifest, RECORDINGS, {});
}
