// Calls of real browsers are recorded, and every frame of every file can be decoded.

import { spawnSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';
import path from 'node:path';

import { FROM_LOSSY, SERVER_ADDRESS, losing } from '../network.js';
import { until } from '../until.js';

const RECORDINGS = path.join(process.env.CORELAY_SCRATCH, 'recordings');
/** How much of a call is recorded. */
const SECONDS = 4;
/** How far a file's length may be from what the manifest says, in seconds. */
const TOLERANCE = 0.1;
/** The share of datagrams that a sender with a bad line loses. */
const LOSS = 0.03;
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
      return checkFiles(manifest, { audio: 2, [codec.toLowerCase()]: 2 });
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
      return `${lost()} lost; ${checkFiles(await untilFinished(recordingId), { vp8: 2 })}`;
    }));
  await Promise.all([fay.page.close(), gil.page.close()]);

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
    return checkFiles(manifest, {});
  });

  await check('a killed server leaves files that play, and repairs them', async () => {
    const { recordingId } = await api('POST', '/api/rooms/recorded-mixed/recording/start');
    await playing(cy, dan, SECONDS);
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
    return checkFiles(manifest, {});
  });
  await Promise.all([cy.page.close(), dan.page.close()]);

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

/** Waits until so many more seconds of someone's pictures were seen. */
function playing(viewer, other, seconds) {
  return viewer.untilSees(other, { frames: seconds * 20, seconds: seconds * 10 });
}

async function untilFinished(id) {
  return until(
    `${id} is finished`,
    10,
    async () => {
      const manifest = await api('GET', `/api/recordings/${id}`);
      return manifest.state === 'finished' && manifest;
    },
    () => api('GET', `/api/recordings/${id}`),
  );
}

/** Decodes every file, and counts codecs. @returns {string} figures */
function checkFiles(manifest, wanted) {
  const counts = {};
  const figures = [];
  for (const { kind, source, files, gaps } of manifest.tracks) {
    if (files.length === 0) throw new Error(`nothing was recorded of a ${source}`);
    for (const { name, codec, durationMs, frames } of files) {
      const { seconds, codec: found } = decode(path.join(RECORDINGS, manifest.directory, name));
      expect(found, codec);
      if (Math.abs(seconds - durationMs / 1000) > TOLERANCE) {
        throw new Error(`${name} lasts ${seconds} s, the manifest says ${durationMs} ms`);
      }
      counts[kind] = (counts[kind] ?? 0) + 1;
      counts[codec] = (counts[codec] ?? 0) + 1;
      figures.push(`${source} ${codec} ${seconds.toFixed(2)} s ${frames} frames ${gaps.length} gaps`);
    }
  }
  for (const [what, count] of Object.entries(wanted)) {
    if ((counts[what] ?? 0) < count) throw new Error(`${counts[what] ?? 0} files of ${what}`);
  }
  return figures.join('; ');
}

/** Decodes every frame: ffmpeg has nothing to say about a file that is whole. */
function decode(file) {
  const args = ['-v', 'error', '-i', file, '-f', 'null', '-'];
  const { status, stderr } = spawnSync('ffmpeg', args, { encoding: 'utf8' });
  if (status !== 0 || stderr !== '') throw new Error(`${path.basename(file)}: ${stderr}`);
  return probe(file);
}

/** How long a file plays, by its last packet, and its codec. */
function probe(file) {
  const args = ['-v', 'error', '-of', 'json', '-show_entries',
    'format=duration:stream=codec_name:packet=pts_time,duration_time', '-show_packets', file];
  const { status, stdout, stderr } = spawnSync('ffprobe', args, {
    encoding: 'utf8',
    maxBuffer: 1 << 26,
  });
  if (status !== 0) throw new Error(`${path.basename(file)}: ${stderr}`);
  const { format, streams, packets } = JSON.parse(stdout);
  const last = packets.at(-1);
  const end = Number(last.pts_time) + Number(last.duration_time ?? 0);
  return { seconds: Number(format.duration ?? end), codec: streams[0].codec_name };
}

async function api(method, address) {
  const response = await fetch(`http://${SERVER_ADDRESS}:8080${address}`, {
    method,
    signal: AbortSignal.timeout(5_000),
  });
  if (!response.ok) throw new Error(`${method} ${address}: ${response.status} ${await response.text()}`);
  return response.json();
}

function expect(found, wanted) {
  if (found !== wanted) throw new Error(`${found}, not ${wanted}`);
}
