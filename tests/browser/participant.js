// One tab in a call, and what can be measured in it.

import { until } from './until.js';

/** New frames that prove that a picture moves. */
const FRAMES = 30;
/** New sound samples that prove that sound comes: half a second. */
const SAMPLES = 24_000;

export class Participant {
  page;
  name;
  /** What the page wrote to its console. @type {string[]} */
  console = [];

  constructor(page, name) {
    this.page = page;
    this.name = name;
    page.on('console', (message) => this.console.push(message.text()));
    page.on('pageerror', (error) => this.console.push(`uncaught: ${error.message}`));
  }

  /** Waits until the page's connection is in this state. */
  untilState(state, seconds = 20) {
    return until(
      `${this.name} is ${state}`,
      seconds,
      () => this.page.evaluate((wanted) => window.corelay?.client.state === wanted, state),
      () => this.page.evaluate(() => window.corelay?.client.state),
    );
  }

  /**
   * What is received, one entry for each slot in use.
   * @returns {Promise<object[]>}
   */
  received() {
    return this.page.evaluate(async () => {
      const { client } = window.corelay;
      const { slots } = await client.stats();
      const entries = [];
      for (const [mid, { participantId, source, kind }] of client.slots) {
        if (!participantId) continue;
        const figures = slots.get(mid);
        const raw = figures?.raw ?? {};
        entries.push({
          mid,
          name: client.participants.get(participantId)?.name,
          source,
          kind,
          codec: figures?.codec ?? null,
          frames: raw.framesDecoded ?? 0,
          width: raw.frameWidth ?? 0,
          samples: (raw.totalSamplesReceived ?? 0) - (raw.concealedSamples ?? 0),
          energy: raw.totalAudioEnergy ?? 0,
          nacks: raw.nackCount ?? 0,
          lost: raw.packetsLost ?? 0,
          freezes: raw.freezeCount ?? 0,
          frozen: raw.totalFreezesDuration ?? 0,
        });
      }
      return entries;
    });
  }

  /** What is said about the own camera's stream, all its layers, by those who receive it. */
  sent() {
    return this.page.evaluate(async () => {
      const { layers } = (await window.corelay.client.stats()).sent.get('camera');
      const sum = (name) => layers.reduce((total, { raw }) => total + (raw[name] ?? 0), 0);
      return {
        nacks: sum('nackCount'),
        resent: sum('retransmittedPacketsSent'),
        plis: sum('pliCount'),
      };
    });
  }

  /**
   * The way its media takes; for a page that was opened with a configuration.
   * @returns {Promise<string>} kind and protocol of the local candidate
   */
  route() {
    return this.page.evaluate(async () => {
      const stats = await window.connections.at(-1).getStats();
      const transport = [...stats.values()].find(({ type }) => type === 'transport');
      const pair = stats.get(transport.selectedCandidatePairId);
      const { candidateType, protocol, relayProtocol } = stats.get(pair.localCandidateId);
      return `${candidateType}/${relayProtocol ?? protocol}`;
    });
  }

  async #receives(name, source) {
    const entries = await this.received();
    // Who came back is there twice until the server has given up the first.
    return entries.findLast((entry) => entry.name === name && entry.source === source);
  }

  /**
   * Waits until someone's pictures move here.
   * @param {Participant} other
   * @returns {Promise<object>} the figures of the slot it plays in
   */
  async untilSees(other, { source = 'camera', frames = FRAMES, seconds = 30 } = {}) {
    const first = await until(
      `${this.name} decodes the ${source} of ${other.name}`,
      seconds,
      async () => {
        const entry = await this.#receives(other.name, source);
        return entry?.frames > 0 && entry;
      },
      () => this.received(),
    );
    return until(
      `${this.name} decodes ${frames} more frames of the ${source} of ${other.name}`,
      seconds,
      async () => {
        const entry = await this.#receives(other.name, source);
        return entry?.frames >= first.frames + frames && entry;
      },
      () => this.received(),
    );
  }

  /** Waits until someone's voice is heard here. */
  async untilHears(other, seconds = 30) {
    const before = (await this.#receives(other.name, 'microphone'))?.samples ?? 0;
    return until(
      `${this.name} hears ${other.name}`,
      seconds,
      async () => {
        const entry = await this.#receives(other.name, 'microphone');
        return entry?.energy > 0 && entry.samples >= before + SAMPLES && entry;
      },
      () => this.received(),
    );
  }

  /** Waits until someone is both seen and heard here. @returns {Promise<string>} figures */
  async untilMeets(other) {
    const [video, audio] = await Promise.all([this.untilSees(other), this.untilHears(other)]);
    const picture = `${video.frames} frames ${video.width} wide ${video.codec}`;
    return `${this.name} ← ${other.name} ${picture}, ${audio.samples} samples`;
  }

  /** The tiles of the others on the page: `name/source`. @returns {Promise<string[]>} */
  tiles() {
    return this.page.evaluate(() => {
      const tiles = [...document.querySelectorAll('#grid .tile')];
      const others = tiles.filter(({ dataset }) => dataset.participant !== 'own');
      return others.map((tile) => {
        const name = tile.querySelector('.name').textContent.replace(' (screen)', '');
        return `${name}/${tile.dataset.source}`;
      });
    });
  }

  /** Waits until the page shows exactly these tiles of others. */
  untilTiles(wanted, seconds = 20) {
    const key = [...wanted].sort().join();
    return until(
      `${this.name} shows the tiles ${key || '(none)'}`,
      seconds,
      async () => (await this.tiles()).sort().join() === key,
      () => this.tiles(),
    );
  }
}

/** Waits until both see and hear each other. @returns {Promise<string>} figures */
export async function untilMeet(one, other) {
  const both = await Promise.all([one.untilMeets(other), other.untilMeets(one)]);
  return both.join('; ');
}
