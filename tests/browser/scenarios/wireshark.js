// A call as others see it: captured, opened with the keys a debug build exports by other code than
// sealed it, and dissected by tshark.

import { execFileSync, spawn } from 'node:child_process';
import { existsSync, statSync } from 'node:fs';
import path from 'node:path';

import { FROM_LOSSY, TO_LOSSY, losing, run as execute } from '../network.js';
import { openCapture } from '../srtp.js';
import { until } from '../until.js';

const PORT = 10000;
/** So much that some picture is lost: of 100 one in 30 once were none. */
const LOSS = 0.1;
const FRAMES = 100;
/** Sender reports and the browser's clock may differ by this much. */
const CLOCK_SECONDS = 60;

const inScratch = (name) => path.join(process.env.CORELAY_SCRATCH, name);
const KEYS = inScratch('wireshark-keys');
const CAPTURE = inScratch('wireshark-sealed.pcap');
const CLEAR = inScratch('wireshark-clear.pcap');

export const serverEnvironment = { CORELAY_EXPORT_KEYS: KEYS };

export async function run({ browsers, check }) {
  const [near, far] = await Promise.all([
    browsers.chromium(),
    browsers.chromium({ lossy: true }),
  ]);
  const tcpdump = await capture();
  const ada = await browsers.join(near, 'room', 'Ada', { height: '360' });
  const bob = await browsers.join(far, 'room', 'Bob', { height: '360' });
  await bob.untilSees(ada, { frames: 1 });
  // Enough for resends to be among them, and for a report of each stream.
  await losing(TO_LOSSY, LOSS, () => bob.untilSees(ada, { frames: FRAMES, seconds: 60 }));
  const answer = await bob.page.evaluate(
    () => window.corelay.client.peerConnection.currentRemoteDescription.sdp,
  );
  await stop(tcpdump);

  await check('a debug build exports keys to a file that only its owner can read', () => {
    if (!existsSync(KEYS)) throw new Error('no keys: CORELAY_BIN must be a debug build');
    const mode = statSync(KEYS).mode & 0o777;
    if (mode !== 0o600) throw new Error(`its mode is ${mode.toString(8)}`);
  });
  await check('everything captured opens with them', () => {
    const { rtp, rtcp, unknown, profiles } = openCapture(CAPTURE, KEYS, PORT, CLEAR);
    const figures = `${rtp} RTP, ${rtcp} RTCP packets, ${unknown} of others, ${[...profiles]}`;
    if (rtp < FRAMES || rtcp < 10) throw new Error(figures);
    return figures;
  });
  await check('tshark finds no packet malformed', noneIsMalformed);
  const sent = sentRtp();
  await check('tshark reads the header extensions', () => judgeExtensions(sent, answer));
  await check('tshark reads the resends', () => judgeResends(sent, answer));
  await check('tshark reads the sender reports', () => judgeReports(sent));
}

/** Begins to capture what passes the server's end of the lossy path. */
async function capture() {
  const { namespace, device } = FROM_LOSSY;
  // Otherwise runs of datagrams are captured as one.
  execute('ip', 'netns', 'exec', namespace, 'ethtool', '-K', device, 'tx-udp-segmentation', 'off');
  const command = ['netns', 'exec', namespace, 'tcpdump', '-i', device, '-U', '-Z', 'root',
    '-w', CAPTURE, `udp port ${PORT}`];
  const tcpdump = spawn('ip', command, { stdio: ['ignore', 'ignore', 'pipe'] });
  let said = '';
  tcpdump.stderr.on('data', (text) => { said += text; });
  await until('tcpdump listens', 10, () => said.includes('listening on'), () => said);
  return tcpdump;
}

async function stop(tcpdump) {
  const ended = new Promise((resolve) => tcpdump.once('exit', resolve));
  tcpdump.kill('SIGINT');
  await ended;
}

/** What tshark prints of the packets that pass a filter: a row each. */
function dissect(filter, fields = ['frame.number']) {
  const wanted = fields.flatMap((field) => ['-e', field]);
  const text = execFileSync('tshark', ['-r', CLEAR, '-n', '-d', `udp.port==${PORT},rtp`,
    '-d', `udp.port==${PORT + 1},rtcp`, '-Y', filter, '-T', 'fields', ...wanted],
  { encoding: 'utf8', maxBuffer: 1 << 28, stdio: ['ignore', 'pipe', 'ignore'] });
  return text.split('\n').filter(Boolean).map((line) => line.split('\t'));
}

function noneIsMalformed() {
  const all = dissect('rtp || rtcp').length;
  const bad = dissect('_ws.malformed || _ws.expert.severity == "Error" || !(rtp || rtcp)');
  const wrong = dissect('rtcp && rtcp.length_check == 0');
  if (bad.length + wrong.length > 0) throw new Error(`frames ${[...bad, ...wrong].slice(0, 9)}`);
  return `${all} packets`;
}

/** Everything the server sent: payload type, SSRC, number, extensions, original number. */
function sentRtp() {
  const fields = ['rtp.p_type', 'rtp.ssrc', 'rtp.seq', 'rtp.ext.rfc5285.id',
    'rtp.ext.rfc5285.data', 'rtp.payload'];
  return dissect(`rtp && udp.srcport == ${PORT}`, fields).map(
    ([type, ssrc, seq, ids = '', data = '', payload = '']) => ({
      type: Number(type),
      ssrc: Number(ssrc),
      seq: Number(seq),
      extensions: new Map(ids.split(',').map((id, at) => [Number(id), data.split(',')[at]])),
      original: parseInt(payload.replaceAll(':', '').slice(0, 4), 16),
    }),
  );
}

function judgeExtensions(sent, answer) {
  const twcc = Number(/a=extmap:(\d+)[^\n]*transport-wide-cc/.exec(answer)[1]);
  const mid = Number(/a=extmap:(\d+)[^\n]*sdes:mid/.exec(answer)[1]);
  const numbers = sent.map(({ extensions }) => extensions.get(twcc)).filter(Boolean);
  const mids = new Set(sent.map(({ extensions }) => extensions.get(mid)).filter(Boolean));
  const figures = `${numbers.length} transport-wide numbers, mids ${[...mids]}`;
  if (new Set(numbers).size !== numbers.length || numbers.length < FRAMES || mids.size < 2) {
    throw new Error(figures);
  }
  return figures;
}

function judgeResends(sent, answer) {
  const types = new Set([...answer.matchAll(/a=rtpmap:(\d+) rtx/g)].map(([, pt]) => Number(pt)));
  const pairs = [...answer.matchAll(/a=ssrc-group:FID (\d+) (\d+)/g)];
  const mediaOf = new Map(pairs.map(([, media, rtx]) => [Number(rtx), Number(media)]));
  const before = new Set();
  let resends = 0;
  for (const { type, ssrc, seq, original } of sent) {
    if (!types.has(type)) {
      before.add(`${ssrc}/${seq}`);
      continue;
    }
    // A probe is made up with packets of padding only.
    if (Number.isNaN(original)) continue;
    resends += 1;
    if (!before.has(`${mediaOf.get(ssrc)}/${original}`)) {
      throw new Error(`SSRC ${ssrc} resends ${original}, which never left`);
    }
  }
  if (resends === 0) throw new Error(`nothing of the payload types ${[...types]} was sent`);
  return `${resends} of payload types ${[...types]}, each of a packet that left before`;
}

function judgeReports(sent) {
  const fields = ['rtcp.senderssrc', 'frame.time_epoch', 'rtcp.timestamp.ntp.msw',
    'rtcp.sender.packetcount', 'rtcp.sdes.text'];
  const filter = `rtcp.pt == 200 && udp.srcport == ${PORT + 1}`;
  const ssrcs = new Set(sent.map(({ ssrc }) => ssrc));
  const reports = dissect(filter, fields);
  for (const [ssrc, at, seconds, packets, name] of reports) {
    // RFC 868: 1900 to 1970.
    const off = Number(seconds) - 2_208_988_800 - Number(at);
    const sender = Number(ssrc.split(',')[0]);
    if (!ssrcs.has(sender) || Math.abs(off) > CLOCK_SECONDS || !name || packets === '0') {
      throw new Error(`SSRC ${ssrc}, ${off} s off, ${packets} packets, cname ${name}`);
    }
  }
  if (reports.length < 5) throw new Error(`${reports.length} reports`);
  return `${reports.length} with their names`;
}
