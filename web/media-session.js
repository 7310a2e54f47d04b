// One RTCPeerConnection from joining a room to leaving it: offers, slots, restarts, figures.

/** @typedef {import('./corelay-client.js').Source} Source */
/** @typedef {import('./corelay-client.js').Slot} Slot */

/**
 * Figures of one stream; null where the browser does not say.
 * @typedef {object} StreamFigures
 * @property {'audio' | 'video'} kind
 * @property {string | null} codec
 * @property {number | null} width
 * @property {number | null} height
 * @property {number | null} fps
 * @property {number | null} bitrate bits per second since the call before
 * @property {number | null} loss share of packets lost since the call before, 0 to 1
 * @property {number | null} jitter seconds
 * @property {RTCStats} raw
 */

/**
 * What is sent of one source: the largest of its layers, with the bitrate of all.
 * @typedef {StreamFigures & {layers: StreamFigures[]}} SentFigures
 */

/**
 * @typedef {object} Figures
 * @property {Map<string, StreamFigures>} slots by mid
 * @property {Map<Source, SentFigures>} sent by source
 * @property {number | null} rtt seconds
 */

/**
 * @typedef {object} Hooks
 * @property {(message: object) => void} send
 * @property {(slot: Slot) => void} slot
 * @property {(channel: RTCDataChannel) => void} channel
 * @property {(state: 'waiting' | 'connecting' | 'connected' | 'reconnecting') => void} state
 * @property {(code: string, message: string) => void} error
 * @property {() => void} doubt the network may be gone, and the signalling connection with it
 * @property {() => void} lost media cannot be brought back: start over
 */

/** How long ICE may be 'disconnected', which often mends itself, before it is restarted. */
const DISCONNECTED_GRACE_MS = 3_000;
/** Restarts without success after which the session is given up. */
const MAX_RESTARTS = 3;
/** How long the server may take to answer an offer. */
const ANSWER_TIMEOUT_MS = 10_000;
/** More receiving m-lines than any server should ask for. */
const MAX_WISH = 64;

/** What a large camera is sent as. */
const CAMERA_LAYERS = [
  { rid: 'q', scaleResolutionDownBy: 4, maxBitrate: 150_000 },
  { rid: 'h', scaleResolutionDownBy: 2, maxBitrate: 500_000 },
  { rid: 'f', maxBitrate: 1_700_000 },
];

/** Layers in one stream: so many spatial ones, each half as wide as the next, and three temporal. */
const MAX_SPATIAL = 3;
const LAYERS_OF_A_STREAM = 'T3_KEY';

/** Tells the server what depends on what in a stream of several layers, so that it can choose. */
const DESCRIPTOR =
  'https://aomediacodec.github.io/av1-rtp-spec/#dependency-descriptor-rtp-header-extension';

const STATES = {
  new: 'waiting',
  connecting: 'connecting',
  connected: 'connected',
  disconnected: 'reconnecting',
  failed: 'reconnecting',
};

export class MediaSession {
  /** @type {RTCPeerConnection} */
  peerConnection;
  /** The receiving m-lines the server has told about, by mid. @type {Map<string, Slot>} */
  slots = new Map();

  #codec;
  #hasChannels = false;
  /** @type {Hooks} */
  #hooks;
  /** Own sending m-lines by source. @type {Map<Source, RTCRtpTransceiver>} */
  #senders = new Map();
  /** How many receiving m-lines of each kind the server wants; null until it first says. */
  #wish = null;
  #offering = false;
  #offerWanted = false;
  /**
   * Settles the offer on its way.
   * @type {{resolve: (answer: object) => void, reject: (error: Error) => void} | null}
   */
  #answer = null;
  /** Server candidates that came before the answer they belong to. */
  #earlyCandidates = [];
  #restartTimer = 0;
  #restarts = 0;
  #closed = false;
  /** Counters of the call before, by stats id. */
  #previous = new Map();

  /**
   * @param {RTCConfiguration} config
   * @param {string | undefined} codec the only video codec to send
   * @param {Hooks} hooks
   */
  constructor(config, codec, hooks) {
    this.#codec = codec;
    this.#hooks = hooks;
    this.peerConnection = new RTCPeerConnection(config);
    this.peerConnection.onicecandidate = ({ candidate }) => {
      if (!candidate?.candidate) return;
      hooks.send({ type: 'ice-candidate', ref: 'ice-candidate', candidate: candidate.toJSON() });
    };
    this.peerConnection.ondatachannel = ({ channel }) => hooks.channel(channel);
    this.peerConnection.onconnectionstatechange = () => this.#handleConnectionState();
  }

  /**
   * Sends a track on the m-line of its source, made when there is none yet.
   * @param {MediaStreamTrack} track
   * @param {Source} source
   */
  async publish(track, source) {
    if (this.#closed) return;
    const transceiver = this.#senders.get(source);
    if (!transceiver) {
      const sendEncodings = this.#encodings(track, source);
      const init = { direction: 'sendonly', sendEncodings };
      const added = this.peerConnection.addTransceiver(track, init);
      if (this.#codec && track.kind === 'video') preferCodec(added, this.#codec);
      describeLayers(added);
      this.#senders.set(source, added);
      return this.#negotiate();
    }
    await transceiver.sender.replaceTrack(track);
    if (transceiver.direction !== 'sendonly') {
      transceiver.direction = 'sendonly';
      await this.#negotiate();
    }
  }

  /**
   * A camera in up to three sizes, where the codec is one that browsers send so. Of a small one
   * Chromium would send the smallest layers only: it gets as many as it is large enough for.
   */
  #encodings(track, source) {
    if (source !== 'camera') return [{}];
    const { width = 0, height = 0 } = track.getSettings();
    const size = Math.max(width, height);
    if (size < 480) return [{}];
    if (this.#codec && !['VP8', 'H264'].includes(this.#codec.toUpperCase())) {
      // Those that describe layers can also have them in one stream.
      if (!canDescribeLayers() || size < 960) return [{}];
      return [{ scalabilityMode: `L${MAX_SPATIAL}${LAYERS_OF_A_STREAM}` }];
    }
    return size < 960 ? CAMERA_LAYERS.slice(1) : CAMERA_LAYERS;
  }

  /** Opens a data channel; the first one of a connection needs an offer. */
  async openChannel(label, options) {
    const channel = this.peerConnection.createDataChannel(label, options);
    this.#hasChannels = true;
    if (!this.peerConnection.sctp) await this.#negotiate();
    return channel;
  }

  /** Stops sending on the m-line of a source and keeps it for the next track. */
  async unpublish(source) {
    const transceiver = this.#senders.get(source);
    if (!transceiver || this.#closed) return;
    transceiver.direction = 'inactive';
    await transceiver.sender.replaceTrack(null);
    await this.#negotiate();
  }

  /** Puts another track, or none, on the m-line of a source without negotiation. */
  async replace(source, track) {
    const transceiver = this.#senders.get(source);
    if (this.#closed) return;
    if (transceiver) await transceiver.sender.replaceTrack(track);
    else if (track) await this.publish(track, source);
  }

  /** Whether no offer is being made, or waits for its answer, and the connection has not failed. */
  get isSettled() {
    const isOver = this.#closed || this.peerConnection.connectionState === 'failed';
    return !isOver && !this.#offering && this.peerConnection.signalingState === 'stable';
  }

  /** The server wants this many receiving m-lines of each kind. */
  request({ audio = 0, video = 0 }) {
    this.#wish = { audio: Math.min(audio, MAX_WISH), video: Math.min(video, MAX_WISH) };
    this.#negotiate();
  }

  handleAnswer(message) {
    this.handleSlots(message.slots ?? {});
    this.#answer?.resolve(message);
  }

  /** @returns {boolean} whether an offer was waiting for its answer */
  handleRefusal(message) {
    if (!this.#answer) return false;
    this.#answer.reject(new Error(message));
    return true;
  }

  /** What plays in these m-lines from here on. */
  handleSlots(changes) {
    for (const [mid, content] of Object.entries(changes)) {
      const before = this.slots.get(mid);
      const trackId = content?.trackId ?? null;
      if (before && before.trackId === trackId) continue;
      const transceiver = this.peerConnection.getTransceivers().find((t) => t.mid === mid);
      if (!transceiver) continue;
      const { track } = transceiver.receiver;
      const slot = {
        mid,
        participantId: content?.participantId ?? null,
        trackId,
        kind: track.kind,
        source: content?.source ?? null,
        track,
      };
      this.slots.set(mid, slot);
      this.#hooks.slot(slot);
    }
  }

  /** Nobody watches the encodings of these RIDs, or these spatial layers; all others are wanted. */
  async handleUnwanted({ mid, rids, spatialLayers = [] }) {
    const sender = this.peerConnection.getTransceivers().find((t) => t.mid === mid)?.sender;
    const parameters = sender?.getParameters();
    const encodings = parameters?.encodings ?? [];
    if (encodings.some((encoding) => encoding.rid)) {
      for (const encoding of encodings) encoding.active = !rids.includes(encoding.rid);
    } else if (encodings[0]?.scalabilityMode?.endsWith(LAYERS_OF_A_STREAM)) {
      // Without its largest layer it is a smaller picture with fewer layers.
      const layers = MAX_SPATIAL - Math.min(spatialLayers.length, MAX_SPATIAL - 1);
      encodings[0].scalabilityMode = `L${layers}${LAYERS_OF_A_STREAM}`;
      encodings[0].scaleResolutionDownBy = 2 ** (MAX_SPATIAL - layers);
    } else {
      return;
    }
    await sender.setParameters(parameters).catch((error) => {
      if (!this.#closed) this.#hooks.error('layers', error.message);
    });
  }

  async handleCandidate(candidate) {
    if (!this.peerConnection.remoteDescription) {
      this.#earlyCandidates.push(candidate);
      return;
    }
    await this.peerConnection.addIceCandidate(candidate).catch(() => {});
  }

  restartIce() {
    if (this.#closed) return;
    this.#restarts += 1;
    if (this.#restarts > MAX_RESTARTS) return this.#hooks.lost();
    this.peerConnection.restartIce();
    this.#negotiate();
  }

  /** Ends all media for good. What played last stays readable in {@link slots}. */
  close() {
    this.#closed = true;
    clearTimeout(this.#restartTimer);
    this.#answer?.reject(new Error('the session is closed'));
    this.peerConnection.close();
  }

  /** @returns {Promise<Figures>} */
  async stats() {
    const slots = new Map();
    const sent = new Map();
    if (this.#closed) return { slots, sent, rtt: null };
    const report = await this.peerConnection.getStats();
    const previous = this.#previous;
    this.#previous = new Map();
    for (const stat of report.values()) {
      if (stat.type !== 'inbound-rtp' && stat.type !== 'outbound-rtp') continue;
      this.#previous.set(stat.id, stat);
      const transceiver = this.#owner(stat);
      if (!transceiver?.mid) continue;
      const figures = streamFigures(stat, previous.get(stat.id), report);
      if (stat.type === 'inbound-rtp') slots.set(transceiver.mid, figures);
      for (const [source, sender] of this.#senders) {
        if (sender !== transceiver || stat.type !== 'outbound-rtp') continue;
        sent.set(source, withLayer(sent.get(source), figures));
      }
    }
    return { slots, sent, rtt: roundTripTime(report) };
  }

  #owner({ mid, trackIdentifier }) {
    const transceivers = this.peerConnection.getTransceivers();
    const isOwner = (t) => (mid ? t.mid === mid : t.receiver.track.id === trackIdentifier);
    return transceivers.find(isOwner);
  }

  #handleConnectionState() {
    const { connectionState } = this.peerConnection;
    clearTimeout(this.#restartTimer);
    if (this.#closed) return;
    this.#hooks.state(STATES[connectionState] ?? 'connecting');
    if (connectionState === 'connected') this.#restarts = 0;
    if (connectionState === 'failed') this.restartIce();
    if (connectionState === 'disconnected') {
      this.#hooks.doubt();
      this.#restartTimer = setTimeout(() => this.restartIce(), DISCONNECTED_GRACE_MS);
    }
  }

  /** Offers until nothing more is wanted, one offer at a time. */
  async #negotiate() {
    this.#offerWanted = true;
    // The first offer waits for the server's wish, so that one offer says everything.
    if (this.#offering || !this.#wish) return;
    this.#offering = true;
    try {
      while (this.#offerWanted && !this.#closed) {
        this.#offerWanted = false;
        await this.#offerOnce();
      }
    } catch (error) {
      if (!this.#closed) this.#hooks.error('negotiation', error.message);
    } finally {
      this.#offering = false;
    }
  }

  async #offerOnce() {
    const pc = this.peerConnection;
    this.#addReceivers('audio');
    this.#addReceivers('video');
    if (pc.getTransceivers().length === 0 && !this.#hasChannels) return;
    await pc.setLocalDescription();
    const answer = this.#expectAnswer();
    const { sdp } = pc.localDescription;
    this.#hooks.send({ type: 'offer', ref: 'offer', sdp, tracks: this.#describeTracks() });
    try {
      await pc.setRemoteDescription({ type: 'answer', sdp: (await answer).sdp });
    } catch (error) {
      if (pc.signalingState === 'have-local-offer') {
        await pc.setLocalDescription({ type: 'rollback' });
      }
      throw error;
    }
    for (const candidate of this.#earlyCandidates.splice(0)) this.handleCandidate(candidate);
  }

  #addReceivers(kind) {
    const receives = (t) =>
      t.receiver.track.kind === kind && (t.direction === 'recvonly' || t.direction === 'sendrecv');
    const have = this.peerConnection.getTransceivers().filter(receives).length;
    for (let n = have; n < this.#wish[kind]; n += 1) {
      describeLayers(this.peerConnection.addTransceiver(kind, { direction: 'recvonly' }));
    }
  }

  #expectAnswer() {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(
        () => this.#answer?.reject(new Error('the server did not answer the offer')),
        ANSWER_TIMEOUT_MS,
      );
      const settle = (how) => (value) => {
        clearTimeout(timer);
        this.#answer = null;
        how(value);
      };
      this.#answer = { resolve: settle(resolve), reject: settle(reject) };
    });
  }

  #describeTracks() {
    const tracks = {};
    for (const [source, { mid, direction }] of this.#senders) {
      if (mid && direction === 'sendonly') tracks[mid] = { source };
    }
    return tracks;
  }
}

const canDescribeLayers = () =>
  'setHeaderExtensionsToNegotiate' in RTCRtpTransceiver.prototype;

/** Offers to say of each packet what it depends on; Chromium does so only when asked. */
function describeLayers(transceiver) {
  if (!canDescribeLayers()) return;
  const extensions = transceiver.getHeaderExtensionsToNegotiate();
  const descriptor = extensions.find(({ uri }) => uri === DESCRIPTOR);
  if (descriptor?.direction !== 'stopped') return;
  descriptor.direction = 'sendrecv';
  transceiver.setHeaderExtensionsToNegotiate(extensions);
}

/** Leaves one video codec, and what repairs it, to choose from. */
function preferCodec(transceiver, name) {
  const wanted = new Set([`video/${name}`, 'video/rtx', 'video/red', 'video/ulpfec'].map(lower));
  const { codecs } = RTCRtpSender.getCapabilities('video');
  if (!codecs.some((codec) => lower(codec.mimeType) === lower(`video/${name}`))) {
    throw new Error(`this browser cannot send ${name}`);
  }
  transceiver.setCodecPreferences(codecs.filter((codec) => wanted.has(lower(codec.mimeType))));
}

const lower = (text) => text.toLowerCase();

function streamFigures(stat, before, report) {
  const bytes = stat.bytesReceived ?? stat.bytesSent ?? 0;
  const seconds = before ? (stat.timestamp - before.timestamp) / 1000 : 0;
  const bytesBefore = before?.bytesReceived ?? before?.bytesSent ?? 0;
  const lost = (stat.packetsLost ?? 0) - (before?.packetsLost ?? 0);
  const received = (stat.packetsReceived ?? 0) - (before?.packetsReceived ?? 0);
  return {
    kind: stat.kind,
    codec: report.get(stat.codecId)?.mimeType.split('/')[1] ?? null,
    width: stat.frameWidth ?? null,
    height: stat.frameHeight ?? null,
    fps: stat.framesPerSecond ?? null,
    bitrate: seconds > 0 ? ((bytes - bytesBefore) * 8) / seconds : null,
    loss: lost + received > 0 ? Math.max(0, lost) / (lost + received) : null,
    jitter: stat.jitter ?? null,
    raw: stat,
  };
}

/** @param {SentFigures | undefined} others @param {StreamFigures} layer */
function withLayer(others, layer) {
  if (!others) return { ...layer, layers: [layer] };
  const sentWidth = ({ raw, width }) => (raw.active === false ? -1 : (width ?? 0));
  const largest = sentWidth(layer) > sentWidth(others) ? layer : others;
  const bitrates = [others.bitrate, layer.bitrate].filter((bitrate) => bitrate !== null);
  const bitrate = bitrates.length > 0 ? bitrates.reduce((sum, bits) => sum + bits) : null;
  return { ...largest, bitrate, layers: [...others.layers, layer] };
}

function roundTripTime(report) {
  for (const stat of report.values()) {
    if (stat.type !== 'candidate-pair' && stat.type !== 'remote-inbound-rtp') continue;
    const rtt = stat.currentRoundTripTime ?? stat.roundTripTime;
    if (typeof rtt === 'number') return rtt;
  }
  return null;
}
