// The grid of tiles: one for each person, one more for each shared screen.

/** @typedef {import('./media-session.js').StreamFigures} StreamFigures */

/** The shape a tile likes to have: width over height. */
const TILE_ASPECT = 4 / 3;

/** One picture with a name under it. */
class Tile {
  element;
  #video;

  /**
   * @param {HTMLTemplateElement} template
   * @param {{participantId: string, source: string, name: string, own?: boolean}} facts
   */
  constructor(template, { participantId, source, name, own = false }) {
    this.element = template.content.firstElementChild.cloneNode(true);
    this.element.dataset.participant = participantId;
    this.element.dataset.source = source;
    this.element.dataset.own = String(own && source === 'camera');
    this.element.style.setProperty('--hue', String(hue(participantId)));
    this.#video = this.element.querySelector('video');
    this.rename(name);
  }

  rename(name) {
    const shown = this.element.dataset.source === 'screen' ? `${name} (screen)` : name;
    this.element.setAttribute('aria-label', shown);
    this.element.querySelector('.name').textContent = shown;
    this.element.querySelector('.avatar').textContent = initials(name);
  }

  /** Plays this track, or shows the initials when there is none. */
  show(track) {
    const playing = this.#video.srcObject?.getVideoTracks()[0] ?? null;
    if (playing !== track) this.#video.srcObject = track ? new MediaStream([track]) : null;
    this.element.dataset.video = track ? 'on' : 'off';
  }

  /** @param {'on' | 'muted' | 'none'} state */
  setMicrophone(state) {
    this.element.dataset.microphone = state;
    const label = state === 'muted' ? 'Microphone muted' : 'Microphone on';
    this.element.querySelector('.mic').setAttribute('aria-label', label);
  }

  setSpeaking(speaking) {
    this.element.dataset.speaking = String(speaking);
  }

  /** @param {string | null} text */
  setFigures(text) {
    const figures = this.element.querySelector('.figures');
    figures.hidden = text === null;
    figures.textContent = text ?? '';
  }
}

/** All tiles, laid out so that they are as large as the space allows. */
export class Grid {
  #element;
  #template;
  /** @type {Map<string, Tile>} */
  #tiles = new Map();

  /**
   * @param {HTMLElement} element
   * @param {HTMLTemplateElement} template
   */
  constructor(element, template) {
    this.#element = element;
    this.#template = template;
    new ResizeObserver(() => this.#layOut()).observe(element);
  }

  /** The tile of someone's camera or screen, made when it is not there yet. */
  tile(participantId, source, name, own = false) {
    const key = `${participantId}/${source}`;
    let tile = this.#tiles.get(key);
    if (!tile) {
      tile = new Tile(this.#template, { participantId, source, name, own });
      this.#tiles.set(key, tile);
      this.#element.append(tile.element);
      this.#layOut();
    }
    return tile;
  }

  /** @returns {Tile | undefined} */
  find(participantId, source) {
    return this.#tiles.get(`${participantId}/${source}`);
  }

  remove(participantId, source) {
    this.find(participantId, source)?.element.remove();
    this.#tiles.delete(`${participantId}/${source}`);
    this.#layOut();
  }

  clear() {
    for (const tile of this.#tiles.values()) tile.element.remove();
    this.#tiles.clear();
  }

  [Symbol.iterator]() {
    return this.#tiles.values();
  }

  #layOut() {
    const { clientWidth: width, clientHeight: height } = this.#element;
    const columns = bestColumns(this.#tiles.size, width, height);
    this.#element.style.setProperty('--columns', String(columns));
    this.#element.style.setProperty('--rows', String(Math.ceil(this.#tiles.size / columns) || 1));
  }
}

/** Figures as a few short lines. @param {StreamFigures} figures */
export function describeFigures({ codec, width, height, fps, bitrate, loss, jitter }, rtt) {
  const lines = [];
  if (width) lines.push(`${width}×${height} ${fps === null ? '' : `${Math.round(fps)} fps`}`);
  const rate = bitrate === null ? '' : `${Math.round(bitrate / 1000)} kbit/s`;
  lines.push(`${codec ?? '–'} ${rate}`);
  if (loss !== null) lines.push(`loss ${(loss * 100).toFixed(1)} %`);
  if (jitter !== null) lines.push(`jitter ${(jitter * 1000).toFixed(0)} ms`);
  if (rtt !== null) lines.push(`rtt ${(rtt * 1000).toFixed(0)} ms`);
  return lines.join('\n');
}

/** What the server says it sends in a slot. @param {object | null} service its `stats` */
export function describeService(service, mid) {
  const sent = service?.subscriptions.find((subscription) => subscription.mid === mid);
  if (!sent) return '';
  const layer = sent.layer === null ? 'paused' : `layer ${sent.layer}`;
  const freezes = sent.freezes > 0 ? `, ${sent.freezes} freezes` : '';
  return `${layer}${sent.reason ? ` (${sent.reason})` : ''}${freezes}`;
}

/** What the server says the path to here carries. @param {object | null} service its `stats` */
export function describePath(service) {
  const estimate = service?.connection.estimate ?? null;
  return estimate === null ? '' : `path down ${estimate} kbit/s`;
}

/** How many columns make the largest picture in each of `count` equal tiles. */
function bestColumns(count, width, height) {
  let best = { columns: 1, area: 0 };
  for (let columns = 1; columns <= count; columns += 1) {
    const tileWidth = width / columns;
    const tileHeight = height / Math.ceil(count / columns);
    const pictureWidth = Math.min(tileWidth, tileHeight * TILE_ASPECT);
    const area = pictureWidth ** 2 / TILE_ASPECT;
    if (area > best.area) best = { columns, area };
  }
  return best.columns;
}

function initials(name) {
  const words = name.split(/\s+/).filter((word) => /^[\p{L}\p{N}]/u.test(word));
  if (words.length === 0) return '?';
  return words.slice(0, 2).map((word) => [...word][0].toUpperCase()).join('');
}

/** A colour that stays the same for the same person. */
function hue(text) {
  let sum = 0;
  for (const character of text) sum = (sum * 31 + character.codePointAt(0)) % 360;
  return sum;
}
