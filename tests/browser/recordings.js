// What the server has recorded, and whether it can be played.

import { spawnSync } from 'node:child_process';
import path from 'node:path';

import { SERVER_ADDRESS } from './network.js';
import { until } from './until.js';

/** How far a file's length may be from what the manifest says, in seconds. */
const TOLERANCE = 0.1;

/** Waits until so many more seconds of someone's pictures were seen. */
export function playing(viewer, other, seconds) {
  return viewer.untilSees(other, { frames: seconds * 20, seconds: seconds * 10 });
}

/** Waits until a recording is finished. @returns {Promise<object>} its manifest */
export async function untilFinished(id) {
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

/**
 * Decodes every file, and counts codecs.
 * @param {object} manifest
 * @param {string} directory that of all recordings
 * @param {Record<string, number>} wanted how many files of a kind or codec there are at least
 * @returns {string} figures
 */
export function checkFiles(manifest, directory, wanted) {
  const counts = {};
  const figures = [];
  for (const { kind, source, files, gaps } of manifest.tracks) {
    if (files.length === 0) throw new Error(`nothing was recorded of a ${source}`);
    for (const { name, codec, durationMs, frames } of files) {
      const { seconds, codec: found } = decode(path.join(directory, manifest.directory, name));
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
export function decode(file) {
  const args = ['-v', 'error', '-i', file, '-f', 'null', '-'];
  const { status, stderr } = spawnSync('ffmpeg', args, { encoding: 'utf8' });
  if (status !== 0 || stderr !== '') throw new Error(`${path.basename(file)}: ${stderr}`);
  return probe(file);
}

/** How long a file plays, by its last packet, and its codec. */
export function probe(file) {
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

/** Asks the server. */
export async function api(method, address) {
  const response = await fetch(`http://${SERVER_ADDRESS}:8080${address}`, {
    method,
    signal: AbortSignal.timeout(5_000),
  });
  if (!response.ok) throw new Error(`${method} ${address}: ${response.status} ${await response.text()}`);
  return response.json();
}

/** Fails where something is another than it should be. */
export function expect(found, wanted) {
  if (found !== wanted) throw new Error(`${found}, not ${wanted}`);
}
