// A source that beeps and flashes at one time, and how far apart that is in a recording.

import { spawnSync } from 'node:child_process';
import path from 'node:path';

import { until } from './until.js';

/** Beeps and flashes of one measurement: the last of a recording. */
const PAIRS = 3;
/** For how many seconds the source must have been steady: at least one sender report came since. */
const STEADY = 10;
/** How far a beep may be from a flash for the two to be of one moment, in seconds. */
const NEAR = 0.5;
/** The rate that sound is decoded to, in samples per second. */
const RATE = 48_000;
/** How loud a sample of a beep is at least, of 1. */
const LOUD = 0.1;
/** How bright the picture of a flash is at least, of 255. */
const BRIGHT = 128;

/**
 * In a page, before its scripts run: its camera flashes and its microphone beeps, for a fifth of
 * every second. The picture is drawn by the clock that makes the sound, so both begin together.
 * `window.flashes` has how late each flash was drawn, and how far that clock was behind then: it
 * stands still while a busy machine does not run it.
 */
export function beepAndFlash() {
  window.flashes = [];
  let source = null;
  navigator.mediaDevices.getUserMedia = async ({ video }) => {
    source ??= begin();
    return video ? source.canvas.captureStream(60) : source.sound.stream;
  };

  function begin() {
    const context = new AudioContext();
    const sound = context.createMediaStreamDestination();
    const buffer = context.createBuffer(1, context.sampleRate, context.sampleRate);
    const samples = buffer.getChannelData(0);
    for (let n = 0; n < samples.length / 5; n += 1) {
      samples[n] = 0.5 * Math.sin((2 * Math.PI * 1000 * n) / context.sampleRate);
    }
    const beeps = new AudioBufferSourceNode(context, { buffer, loop: true });
    beeps.connect(sound);
    beeps.start(1);
    const canvas = document.createElement('canvas');
    canvas.width = 320;
    canvas.height = 240;
    const pen = canvas.getContext('2d');
    let isWhite = false;
    const draw = () => {
      const time = context.currentTime;
      const late = time % 1;
      const wasWhite = isWhite;
      isWhite = time >= 1 && late < 0.2;
      pen.fillStyle = isWhite ? 'white' : 'black';
      pen.fillRect(0, 0, canvas.width, canvas.height);
      if (isWhite && !wasWhite) {
        window.flashes.push({ late, behind: performance.now() / 1000 - time });
      }
      requestAnimationFrame(draw);
    };
    draw();
    return { canvas, sound };
  }
}

/** Waits until the source in a page has been steady for long enough to measure by it. */
export function untilSteady({ page, name }) {
  return until(
    `what ${name} sends is steady: on a machine with less to do it would be`,
    90,
    () => page.evaluate((seconds) => {
      const last = window.flashes.slice(-seconds);
      const behind = last.map((flash) => flash.behind);
      const isSteady = Math.max(...behind) - Math.min(...behind) < 0.015;
      return last.length === seconds && isSteady && last.every(({ late }) => late < 0.025);
    }, STEADY),
    () => page.evaluate(() => window.flashes.slice(-10)),
  );
}

/**
 * How much later than the flash each of the last beeps of a recorded participant is.
 * @param {object} manifest of the recording
 * @param {string} directory the recording's
 * @param {string} participantId whose
 * @returns {number[]} in milliseconds
 */
export function offsets(manifest, directory, participantId) {
  const begins = (source, find) => {
    const isIt = (track) => track.participantId === participantId && track.source === source;
    const { files } = manifest.tracks.find(isIt);
    return files.flatMap(({ name, offsetMs }) =>
      find(path.join(directory, name)).map((seconds) => seconds + offsetMs / 1000));
  };
  const beeps = begins('microphone', beepsOf);
  const flashes = begins('camera', flashesOf);
  const pairs = flashes.flatMap((flash) =>
    beeps.filter((beep) => Math.abs(beep - flash) < NEAR).map((beep) => 1000 * (beep - flash)));
  if (pairs.length < PAIRS) {
    throw new Error(`beeps at ${beeps.join()} s, flashes at ${flashes.join()} s`);
  }
  return pairs.slice(-PAIRS);
}

/** When beeps begin in a file, in seconds. */
function beepsOf(file) {
  const filter = ['-af', 'aresample=async=1:min_hard_comp=0.01:first_pts=0', '-ac', '1', '-ar', String(RATE)];
  const sound = run('ffmpeg', ['-v', 'error', '-i', file, ...filter, '-f', 'f32le', '-']);
  const samples = new Float32Array(sound.buffer, sound.byteOffset, sound.length >> 2);
  const found = [];
  let quietSince = 0;
  samples.forEach((sample, index) => {
    if (Math.abs(sample) < LOUD) return;
    // What is loud at the very beginning began before.
    if (index - quietSince > RATE / 2) found.push(index / RATE);
    quietSince = index;
  });
  return found;
}

/** When flashes begin in a file, in seconds. */
function flashesOf(file) {
  const entries = 'frame=pts_time:frame_tags=lavfi.signalstats.YAVG';
  const told = run('ffprobe', ['-v', 'error', '-f', 'lavfi', '-i', `movie=${file},signalstats`,
    '-show_entries', entries, '-of', 'csv=p=0']);
  const frames = String(told).trim().split('\n').map((line) => line.split(',').map(Number));
  return frames
    .filter(([, light], index) => light >= BRIGHT && frames[index - 1]?.[1] < BRIGHT)
    .map(([seconds]) => seconds);
}

function run(program, args) {
  const { status, stdout, stderr } = spawnSync(program, args, { maxBuffer: 1 << 28 });
  if (status !== 0) throw new Error(`${program} ${args.join(' ')}: ${stderr}`);
  return stdout;
}
