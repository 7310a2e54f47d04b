// Clients that send their media to one another: the server only passes on what they say.

import { readFileSync } from 'node:fs';

import { until } from '../until.js';

const PAGE = readFileSync(new URL('../peers.html', import.meta.url), 'utf8');
/** Frames that prove that a picture moves. */
const FRAMES = 15;
/** Samples that prove that sound comes: a quarter of a second. */
const SAMPLES = 12_000;
const FILE_BYTES = 300_001;

export async function run({ server, browsers, check }) {
  const chromium = await browsers.chromium();
  await meshByUser(browsers, chromium, check);
  await meshByConnection(browsers, chromium, check);
  await calls(browsers, chromium, check);
  await check('one sends and the other one receives', async () => {
    const receiver = await open(browsers, chromium, 'p2p', 'Receiver', '?room=tv', null);
    await receiver.page.evaluate(() => window.client.take('receiver'));
    await untilTold(receiver, 'connected');
    const sender = await open(browsers, chromium, 'p2p', 'Sender', '?room=tv');
    await sender.page.evaluate(() => window.client.take('sender'));
    const [figures] = await untilReceives(receiver, 1);
    await close([sender, receiver]);
    return `${figures.videos} frames`;
  });
  await check('no dialect keeps anything of those who have left', async () => {
    await until('all are gone', 10, async () => (
      Object.values(await server.dialects()).every(({ sockets, meetings }) => (
        sockets === 0 && meetings === 0))), () => server.dialects());
    const { refused } = Object.values(await server.dialects())
      .reduce((sum, dialect) => ({ refused: sum.refused + dialect.refused }));
    if (refused > 0) throw new Error(`${refused} messages were refused`);
  });
}

async function meshByUser(browsers, browser, check) {
  const all = [];
  for (const name of ['ada', 'bob', 'cid']) {
    const client = await open(browsers, browser, 'webrtc', name, `?token=${name}`);
    await client.page.evaluate((user) => window.client.join('mesh', user), name);
    all.push(client);
  }
  await check('three users in a mesh see and hear one another', async () => {
    const figures = await Promise.all(all.map((client) => untilReceives(client, 2)));
    return figures.flat().map(({ videos }) => `${videos} frames`).join(', ');
  });
  await check('who is left is told who has gone, and goes on', async () => {
    await all[0].page.close();
    await Promise.all(all.slice(1).map(async (client) => {
      await untilTold(client, 'user-left', ({ userId }) => userId === 'ada');
      await untilReceives(client, 1);
    }));
  });
  await close(all.slice(1));
}

async function meshByConnection(browsers, browser, check) {
  const all = [];
  for (const name of ['Ada', 'Bob', 'Cid']) {
    const client = await open(browsers, browser, 'mesh', name, '');
    await client.page.evaluate(() => window.client.join('mesh'));
    all.push(client);
  }
  await check('three connections in a mesh see and hear one another', async () => {
    await Promise.all(all.map((client) => untilReceives(client, 2)));
  });
  const [ada, bob, cid] = all;
  await check('a file goes from one to another', async () => {
    const [, to] = await Promise.all([ada, bob].map(nameOf));
    await ada.page.evaluate(async (name, length) => {
      await window.client.links.get(name).sendFile(new Uint8Array(length).map((_, at) => at * 7));
    }, to, FILE_BYTES);
    const from = await nameOf(ada);
    const read = () => bob.page.evaluate((name) => {
      const [file] = window.client.links.get(name).received;
      const wrong = file?.bytes.findIndex((byte, at) => byte !== ((at * 7) & 255));
      return { announced: file?.length, came: file?.bytes.length, wrong };
    }, from);
    await until('the file is there', 20, async () => (await read()).came === FILE_BYTES, read);
    const { announced, wrong } = await read();
    if (announced !== FILE_BYTES || wrong !== -1) throw new Error(`byte ${wrong} is wrong`);
  });
  await check('offers that cross are settled, and both changes happen', async () => {
    await cid.page.close();
    const pair = await Promise.all([ada, bob].map(async (client, at, both) => (
      { client, other: await nameOf(both[1 - at]) })));
    await Promise.all(pair.map(({ client, other }) => client.page.evaluate(async (name) => {
      const link = window.client.links.get(name);
      link.hold();
      const stream = await window.film({ video: true });
      link.pc.addTrack(stream.getVideoTracks()[0], stream);
    }, other)));
    await Promise.all(pair.map(({ client, other }) => until('it has an offer', 10, () => (
      client.page.evaluate((name) => window.client.links.get(name).holds, other)))));
    await Promise.all(pair.map(({ client, other }) => (
      client.page.evaluate((name) => window.client.links.get(name).release(), other))));
    await Promise.all([ada, bob].map((client) => untilReceives(client, 1, 2)));
    const counts = await Promise.all(pair.map(crossings));
    const [takenBack, ignored] = [0, 1].map((kind) => (
      counts.reduce((sum, count) => sum + count[kind], 0)));
    if (takenBack !== 1 || ignored !== 1) {
      throw new Error(`${takenBack} offers were taken back, ${ignored} ignored`);
    }
  });
  await close([ada, bob]);
}

async function calls(browsers, browser, check) {
  const ann = await open(browsers, browser, 'call', 'ann', '?token=ann', { audio: true });
  const ben = await open(browsers, browser, 'call', 'ben', '?token=ben', { audio: true });
  await Promise.all([ann, ben].map((client) => untilTold(client, 'connected')));
  const initiate = (id) => ann.page.evaluate((call) => {
    window.client.initiate(call, ['ben'], 'audio');
  }, id);
  const act = (client, what) => client.page.evaluate((name) => window.client[name](), what);

  await check('a call that is rejected rings no longer', async () => {
    await initiate('first');
    await untilTold(ben, 'incoming-call', ({ initiatorId }) => initiatorId === 'ann');
    await act(ben, 'reject');
    await untilTold(ann, 'call-rejected', ({ userId }) => userId === 'ben');
  });
  await check('a call that is answered is heard on both sides', async () => {
    await initiate('second');
    await untilTold(ben, 'incoming-call', ({ callId }) => callId === 'second');
    await act(ben, 'answer');
    const figures = await Promise.all([ann, ben].map((client) => untilReceives(client, 1, 0)));
    return figures.flat().map(({ samples }) => `${samples} samples`).join(', ');
  });
  await check('a picture is added to the call', async () => {
    await ben.page.evaluate(async () => {
      const stream = await window.film({ video: true });
      window.client.links.get('ann').pc.addTrack(stream.getVideoTracks()[0], stream);
    });
    await untilTold(ann, 'renegotiate');
    await untilReceives(ann, 1, 1);
  });
  await check('a call that one ends is over for the other one', async () => {
    await act(ben, 'end');
    await untilTold(ann, 'call-ended', ({ endedBy }) => endedBy === 'ben');
    await untilReceives(ann, 0);
  });
  await check('a user who goes away ends its calls', async () => {
    await initiate('third');
    await untilTold(ben, 'incoming-call', ({ callId }) => callId === 'third');
    await act(ben, 'answer');
    await untilReceives(ben, 1, 0);
    await ann.page.close();
    await untilTold(ben, 'call-ended', ({ callId }) => callId === 'third');
  });
  await close([ben]);
}

/** Opens a client of a dialect on a page of the server's origin. */
export async function open(browsers, browser, dialect, name, query, wanted, configuration) {
  const media = wanted === undefined ? { video: true, audio: true } : wanted;
  const client = await browsers.open(browser, '/health', name, { bypassesPolicy: true });
  await client.page.setContent(PAGE);
  await client.page.waitForFunction(() => window.start);
  const start = (...args) => window.start(...args);
  await client.page.evaluate(start, dialect, query, media, configuration);
  return client;
}

/** Waits until media of exactly so many others comes in, with so many pictures of each. */
export function untilReceives(client, others, pictures = 1) {
  const read = () => client.page.evaluate(() => window.client.figures());
  const moves = ({ state, videos, samples }) => state === 'connected'
    && videos.filter((frames) => frames >= FRAMES).length >= pictures
    && (pictures > 0 || samples >= SAMPLES);
  const what = `${client.name} receives ${pictures} pictures of each of ${others}`;
  return until(what, 30, async () => {
    const links = Object.values(await read());
    return links.length === others && links.every(moves) && links;
  }, read);
}

/** Waits until the client has been told something of this kind. */
export function untilTold({ page, name }, type, fits = () => true) {
  const told = () => page.evaluate(() => window.client.line.told.map(({ sdp, ...rest }) => rest));
  const found = async () => (await told()).find((message) => (
    message.type === type && fits(message)));
  return until(`${name} is told ${type}`, 15, found, told);
}

const nameOf = ({ page }) => page.evaluate(() => window.client.name);

/** How often it has taken an offer back, and ignored one. */
function crossings({ client, other }) {
  return client.page.evaluate((name) => {
    const { takenBack, ignored } = window.client.links.get(name);
    return [takenBack, ignored];
  }, other);
}

const close = (clients) => Promise.all(clients.map(({ page }) => page.close()));
