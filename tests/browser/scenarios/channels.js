// Data channels: what one says on a label, everyone else hears on theirs.

import { until } from '../until.js';
import { untilMeet } from '../participant.js';

/** Longer than an SCTP packet by far, and more in all than the server lets wait unsent. */
const LARGE = 200_000;
const PIECES = 10;

export async function run({ browsers, check }) {
  const [chromium, firefox] = await Promise.all([browsers.chromium(), browsers.firefox()]);
  const ada = await browsers.join(chromium, 'room', 'Ada');
  const bob = await browsers.join(chromium, 'room', 'Bob');
  await untilMeet(ada, bob);
  await Promise.all([listen(ada), listen(bob)]);

  await check('text is text and bytes are bytes', async () => {
    await Promise.all([open(ada, 'chat'), open(bob, 'chat')]);
    await say(ada, 'chat', 'Grüße, Bob');
    await untilHeard(bob, 'chat', ['Grüße, Bob']);
    await bob.page.evaluate(() => window.channels.chat.send(new Uint8Array([0, 1, 255])));
    await untilHeard(ada, 'chat', [[0, 1, 255]]);
  });

  await check('who has no channel of a label gets one that is alike', async () => {
    await open(ada, 'cursor', { ordered: false, maxRetransmits: 0 });
    await say(ada, 'cursor', '1,2');
    const kind = () =>
      bob.page.evaluate(() => {
        const { cursor } = window.channels;
        return cursor && [cursor.readyState, cursor.ordered, cursor.maxRetransmits].join();
      });
    await until('Bob has it', 10, async () => (await kind()) === 'open,false,0', kind);
    await untilHeard(bob, 'cursor', ['1,2']);
  });

  await check('a file arrives whole and in order', async () => {
    await ada.page.evaluate(
      async (pieces, length) => {
        const { chat } = window.channels;
        for (let n = 0; n < pieces; n += 1) {
          while (chat.bufferedAmount > length) await new Promise((r) => setTimeout(r, 5));
          chat.send(new Uint8Array(length).fill(n));
        }
      },
      PIECES,
      LARGE,
    );
    const pieces = () =>
      bob.page.evaluate(
        (length) =>
          window.heard
            .filter(([label, , size]) => label === 'chat' && size === length)
            .map(([, [first]]) => first),
        LARGE,
      );
    const all = [...Array(PIECES).keys()].join();
    await until('all of it came', 20, async () => (await pieces()).join() === all, pieces);
    return `${(PIECES * LARGE) / 1e6} MB`;
  });

  await check('Firefox, coming later, hears and is heard', async () => {
    const cy = await browsers.join(firefox, 'room', 'Cy');
    await untilMeet(cy, ada);
    await listen(cy);
    await open(cy, 'chat');
    await say(cy, 'chat', 'hello from Firefox');
    await Promise.all([ada, bob].map((p) => untilHeard(p, 'chat', ['hello from Firefox'])));
    await say(bob, 'cursor', '3,4');
    await Promise.all([ada, cy].map((p) => untilHeard(p, 'cursor', ['3,4'])));
  });

  await check('a label nobody has any more is closed', async () => {
    await ada.page.evaluate(() => window.channels.cursor.close());
    const state = () => bob.page.evaluate(() => window.channels.cursor.readyState);
    await until('it is closed', 10, async () => (await state()) === 'closed', state);
  });
}

/** Keeps what a page hears on every channel as [label, first bytes or text, length]. */
function listen({ page }) {
  return page.evaluate(() => {
    window.channels = {};
    window.heard = [];
    window.keep = (channel) => {
      channel.binaryType = 'arraybuffer';
      window.channels[channel.label] = channel;
      channel.addEventListener('message', ({ data }) => {
        const isText = typeof data === 'string';
        const content = isText ? data : [...new Uint8Array(data).slice(0, 8)];
        window.heard.push([channel.label, content, isText ? data.length : data.byteLength]);
      });
    };
    window.corelay.client.addEventListener('channel', ({ detail }) => window.keep(detail));
  });
}

async function open({ name, page }, label, options = {}) {
  await page.evaluate(
    async (wanted, how) => window.keep(await window.corelay.client.openChannel(wanted, how)),
    label,
    options,
  );
  const state = () => page.evaluate((wanted) => window.channels[wanted].readyState, label);
  await until(`${name} has ${label}`, 10, async () => (await state()) === 'open', state);
}

function say({ page }, label, text) {
  return page.evaluate((to, what) => window.channels[to].send(what), label, text);
}

function untilHeard({ name, page }, label, contents) {
  const heard = () => page.evaluate(() => window.heard.slice(-20));
  const has = async () => {
    const all = (await heard()).filter(([on]) => on === label);
    const found = all.map(([, content]) => JSON.stringify(content));
    return contents.every((content) => found.includes(JSON.stringify(content)));
  };
  return until(`${name} hears ${JSON.stringify(contents)}`, 10, has, heard);
}
