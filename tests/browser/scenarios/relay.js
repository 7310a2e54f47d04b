// Browsers that may only speak through a TURN server: the real coturn, as config/turnserver.conf
// sets it up, with credentials that corelay makes.

import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';

import { SERVER_ADDRESS } from '../network.js';
import { untilMeet } from '../participant.js';
import { until } from '../until.js';
import { open, untilReceives } from './dialects.js';

const SECRET = 'a-secret-of-the-test';
const RELAY = { iceTransportPolicy: 'relay' };

const scratch = (name) => path.join(process.env.CORELAY_SCRATCH, name);

const CONFIG = scratch('relay.yaml');
writeFileSync(CONFIG, `webrtc:
  turn: {urls: ["turn:${SERVER_ADDRESS}:3478"], secret: ${SECRET}}
`);

export const serverArguments = ['--config', CONFIG];

export async function run({ browsers, check }) {
  const turn = startTurn();
  try {
    await until('coturn listens', 15, () => turn.log().includes('Relay ports initialization done'), turn.log);
    const chromium = await browsers.chromium();
    await check('a call through the relay, with credentials from `connected`', async () => {
      const ada = await browsers.join(chromium, 'room', 'Ada', {}, RELAY);
      const bob = await browsers.join(chromium, 'room', 'Bob', {}, RELAY);
      const met = await untilMeet(ada, bob);
      const routes = await Promise.all([ada, bob].map((participant) => participant.route()));
      if (routes.join() !== 'relay/udp,relay/udp') throw new Error(`media goes by ${routes}`);
      await Promise.all([ada, bob].map(({ page }) => page.close()));
      return met;
    });
    await check('two of a mesh through the relay', async () => {
      const pair = [];
      for (const name of ['ann', 'ben']) {
        const query = `?token=${name}`;
        const client = await open(browsers, chromium, 'webrtc', name, query, undefined, RELAY);
        await client.page.evaluate((user) => window.client.join('mesh', user), name);
        pair.push(client);
      }
      const figures = await Promise.all(pair.map((client) => untilReceives(client, 1)));
      const kinds = figures.flat().map(({ local }) => local);
      if (kinds.join() !== 'relay,relay') throw new Error(`media goes by ${kinds}`);
      await Promise.all(pair.map(({ page }) => page.close()));
    });
    await check('credentials that corelay did not make are refused', async () => {
      const { page } = await browsers.open(chromium, '/health', 'Eve');
      const gathered = await page.evaluate(async (urls) => {
        const username = `${Math.floor(Date.now() / 1000) + 3600}:eve`;
        const iceServers = [{ urls, username, credential: 'guessed' }];
        const pc = new RTCPeerConnection({ iceServers, iceTransportPolicy: 'relay' });
        pc.createDataChannel('any');
        const codes = [];
        pc.onicecandidateerror = ({ errorCode }) => codes.push(errorCode);
        const complete = new Promise((resolve) => {
          pc.onicegatheringstatechange = () => pc.iceGatheringState === 'complete' && resolve();
        });
        await pc.setLocalDescription();
        await complete;
        return { codes, candidates: pc.localDescription.sdp.match(/a=candidate/g)?.length ?? 0 };
      }, `turn:${SERVER_ADDRESS}:3478`);
      if (gathered.candidates > 0) throw new Error('it was given a relay');
      return `errors ${gathered.codes.join(', ')}`;
    });
  } finally {
    await turn.stop();
  }
}

/** coturn in the server's namespace, with the shipped configuration made to fit it. */
function startTurn() {
  const shipped = new URL('../../../config/turnserver.conf', import.meta.url);
  const config = readFileSync(shipped, 'utf8').replace('=CHANGE-ME', `=${SECRET}`);
  const file = scratch('turnserver.conf');
  // The relay's own address is a private one here, and so is the server's.
  writeFileSync(file, `${config}
listening-ip=${SERVER_ADDRESS}
relay-ip=${SERVER_ADDRESS}
allowed-peer-ip=${SERVER_ADDRESS}
pidfile=${scratch('turnserver.pid')}
`);
  const logFile = scratch('turnserver.log');
  const log = openSync(logFile, 'a');
  const running = spawn('ip', ['netns', 'exec', 'server', 'turnserver', '-c', file],
    { stdio: ['ignore', log, log] });
  closeSync(log);
  const ended = new Promise((resolve) => running.once('exit', resolve));
  return {
    log: () => readFileSync(logFile, 'utf8'),
    stop: () => running.kill('SIGTERM') && ended,
  };
}
