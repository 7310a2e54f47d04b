// A disk that is full in the middle of a recording ends the recording, and the call goes on.

import { closeSync, mkdirSync, openSync, rmSync, statfsSync, writeSync } from 'node:fs';
import path from 'node:path';

import { run as execute } from '../network.js';
import { api, checkFiles, expect, playing, untilFinished } from '../recordings.js';
import { Server } from '../server.js';

const RECORDINGS = path.join(process.env.CORELAY_SCRATCH, 'small-disk');
const FILLER = path.join(RECORDINGS, 'filler');
const DISK_MIB = 16;
const FLOOR_MIB = 4;
/** How much of a call is recorded before the disk is full. */
const SECONDS = 4;

const recordingWith = (floor) => ({
  CORELAY_RECORDING_ENABLED: 'true',
  CORELAY_RECORDING_PATH: RECORDINGS,
  CORELAY_RECORDING_MIN_FREE_SPACE: String(floor),
});

export async function run({ server, browsers, check }) {
  // A server sees what was mounted before it began; and these two have errors to log.
  await server.stop();
  const bare = new Server('full-disk-bare', [], recordingWith(0));
  const careful = new Server('full-disk-careful', [], recordingWith(FLOOR_MIB));
  mkdirSync(RECORDINGS, { recursive: true });
  execute('mount', '-t', 'tmpfs', '-o', `size=${DISK_MIB}m`, 'tmpfs', RECORDINGS);
  await bare.start();
  const chromium = await browsers.chromium();
  const ada = await browsers.join(chromium, 'full', 'Ada');
  const bob = await browsers.join(chromium, 'full', 'Bob');
  await Promise.all([ada.untilSees(bob), bob.untilSees(ada)]);

  /** Records the call until the disk has no more than this left. */
  const recordUntil = async (leftBytes) => {
    const { recordingId } = await api('POST', '/api/rooms/full/recording/start');
    await playing(bob, ada, SECONDS);
    fill(leftBytes);
    const manifest = await untilFinished(recordingId);
    expect(manifest.endReason, 'disk-full');
    return manifest;
  };

  await check('a disk without a free byte ends the recording with files that play', async () => {
    const manifest = await recordUntil(0);
    const figures = checkFiles(manifest, RECORDINGS, { audio: 2, vp8: 2 });
    await Promise.all([bob.untilSees(ada), ada.untilSees(bob)]);
    return `${figures}; ${free()} bytes free`;
  });
  await check('with room again the next recording is as any other', async () => {
    rmSync(FILLER);
    const { recordingId } = await api('POST', '/api/rooms/full/recording/start');
    await playing(bob, ada, 1);
    await api('POST', '/api/rooms/full/recording/stop');
    const manifest = await untilFinished(recordingId);
    expect(manifest.endReason, 'stopped');
    return checkFiles(manifest, RECORDINGS, { audio: 2, vp8: 2 });
  });

  await bare.stop();
  await careful.start();
  await Promise.all([ada.untilSees(bob), bob.untilSees(ada)]);
  await check('a disk with less free space than the floor is not filled further', async () => {
    const manifest = await recordUntil((FLOOR_MIB << 20) - (64 << 10));
    const left = free();
    if (left < (FLOOR_MIB - 1) << 20) throw new Error(`${left} bytes are free`);
    await Promise.all([bob.untilSees(ada), ada.untilSees(bob)]);
    return `${checkFiles(manifest, RECORDINGS, { audio: 2, vp8: 2 })}; ${left} bytes free`;
  });
  await careful.stop();
  await server.start();
  await Promise.all([ada.page.close(), bob.page.close()]);
}

function free() {
  const { bavail, bsize } = statfsSync(RECORDINGS);
  return bavail * bsize;
}

/** Writes a file until no more than this is left on the disk. */
function fill(leftBytes) {
  const file = openSync(FILLER, 'a');
  const page = Buffer.alloc(4096);
  try {
    while (free() > leftBytes) writeSync(file, page);
  } catch (error) {
    if (error.code !== 'ENOSPC') throw error;
  } finally {
    closeSync(file);
  }
}
