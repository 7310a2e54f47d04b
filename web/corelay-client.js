// The signalling and media client of corelay: a WebSocket, an RTCPeerConnection, no DOM.

import { MediaSession } from './media-session.js';
import { Signalling } from './signalling.js';

/** @typedef {'microphone' | 'camera' | 'screen' | 'screen-audio'} Source */
/** @typedef {'idle' | 'connecting' | 'waiting' | 'connected' | 'reconnecting' | 'closed'} State */

/**
 * What someone in the room publishes.
 * @typedef {object} TrackInfo
 * @property {string} trackId
 * @property {'audio' | 'video'} kind
 * @property {Source} source
 * @property {boolean} muted
 */

/**
 * Someone in the room.
 * @typedef {object} Participant
 * @property {string} id
 * @property {string} name
 * @property {unknown} metadata
 * @property {Map<string, TrackInfo>} tracks by track id
 */

/**
 * A receiving m-line and what plays in it. `participantId` is null when it is free.
 * @typedef {object} Slot
 * @property {string} mid
 * @property {string | null} participantId
 * @property {string | null} trackId
 * @property {'audio' | 'video'} kind
 * @property {Source | null} source
 * @property {MediaStreamTrack} track
 */

/**
 * @typedef {object} Options
 * @property {string} [codec] the only video codec to send: VP8, VP9, H264 or AV1
 * @property {RTCConfiguration} [rtc] merged over what the server says
 */

/** Errors that ended the stay in the room, and after which coming back may well work. */
const STARTS_OVER = new Set(['connection-lost', 'internal-error']);
/** Errors that ended the stay in the room for good. */
const ENDS = new Set(['connect-timeout', 'misbehaved', 'removed', 'server-full']);

/** Close codes after which coming back makes no sense: RFC 6455 §7.4.1 and private ones. */
const isFinal = (code) => code === 1000 || code === 1008 || code === 1009 || code >= 4000;

/**
 * One participant of one room.
 *
 * Events, each a `CustomEvent` with its `detail`:
 * - `state` `{state: State, reason?: string}`
 * - `participant` {@link Participant}: someone came, or what they publish changed
 * - `participant-left` {@link Participant}
 * - `slot` {@link Slot}: what plays in a receiving m-line changed
 * - `speakers` `string[]`: who speaks, longest first, by participant id
 * - `quality` `{trackId, layer: number | null, reason}`: what is sent of a track changed
 * - `warning` `{kind, value, severity}`: the connection has become bad, worse or better
 * - `channel` {@link RTCDataChannel}: another participant opened a label that this one has not
 * - `error` `{code: string, message: string}`
 */
export class CorelayClient extends EventTarget {
  /** Everyone else in the room, by id. @type {Map<string, Participant>} */
  participants = new Map();
  /** This participant's id once joined. @type {string | null} */
  participantId = null;
  /** @type {State} */
  state = 'idle';

  #options;
  /** @type {Signalling | null} */
  #signalling = null;
  /** @type {MediaSession | null} */
  #session = null;
  /** Own tracks by source; they outlive a session. */
  #local = new Map();
  /** Own track ids by source, as the server named them. */
  #ownIds = new Map();
  #iceServers = [];
  /** @type {{room: string, name: string} | null} */
  #membership = null;
  /** What to come back with as the same participant. @type {string | null} */
  #resumeToken = null;
  /** Whether the signalling connection is down. */
  #isLost = false;
  /** Whether the media session can go on when the signalling connection is back. */
  #keepsMedia = false;
  /** What the media session last said of itself. @type {State} */
  #mediaState = 'waiting';
  /** Sources that were muted or unmuted while nobody heard it. @type {Set<Source>} */
  #unsaid = new Set();
  /** @type {{resolve: () => void, reject: (error: Error) => void} | null} */
  #joining = null;

  /** @param {Options} [options] */
  constructor(options = {}) {
    super();
    this.#options = options;
  }

  /**
   * Opens the signalling connection; it comes back by itself when it is lost later.
   * @param {string} url such as `wss://example.org/ws`
   * @returns {Promise<void>} rejected when the server cannot be reached
   */
  connect(url) {
    this.#setState('connecting');
    this.#signalling = new Signalling(url, {
      message: (message) => this.#handleMessage(message),
      lost: () => this.#handleLost(),
      closed: (code, reason) =>
        this.#finish(reason || `the server closed the connection (${code})`),
      isFinal,
    });
    return this.#signalling.open().catch((error) => {
      this.#finish(error.message);
      throw error;
    });
  }

  /**
   * Enters a room and publishes what {@link publish} was given.
   * @param {string} room 1 to 64 of letters, digits, `_` and `-`
   * @param {string} name shown to the others
   * @returns {Promise<void>} rejected with the server's reason
   */
  join(room, name) {
    this.#membership = { room, name };
    return new Promise((resolve, reject) => {
      this.#joining = { resolve, reject };
      this.#sendJoin();
    });
  }

  /**
   * Publishes a track, or puts another in the place of the one its source has.
   * @param {MediaStreamTrack} track
   * @param {Source} source
   */
  async publish(track, source) {
    const muted = this.#local.get(source)?.muted ?? false;
    track.enabled = !muted;
    this.#local.set(source, { track, muted });
    await this.#session?.publish(track, source);
  }

  /**
   * Takes a track out of the room. Its m-line is kept for the next track of its source.
   * @param {Source} source
   */
  async unpublish(source) {
    if (this.#local.delete(source)) await this.#session?.unpublish(source);
  }

  /**
   * Silences a source without taking it out of the room, and tells the others.
   * @param {Source} source
   * @param {boolean} muted
   */
  async mute(source, muted) {
    const local = this.#local.get(source);
    if (!local) return;
    local.muted = muted;
    if (local.track) local.track.enabled = !muted;
    this.#sendMute(source, muted);
  }

  /**
   * Pauses a source by letting go of its track, so that the device can be switched off, or
   * resumes it with a fresh one. Needs no negotiation.
   * @param {Source} source
   * @param {MediaStreamTrack | null} track
   */
  async replace(source, track) {
    const local = this.#local.get(source);
    if (!local) {
      if (track) await this.publish(track, source);
      return;
    }
    local.track = track;
    local.muted = track === null;
    if (track) track.enabled = true;
    await this.#session?.replace(source, track);
    this.#sendMute(source, local.muted);
  }

  /**
   * Opens a data channel. What is sent on it reaches everyone else in the room who has data
   * channels, on theirs of the same label.
   * @param {string} label
   * @param {RTCDataChannelInit} [options]
   * @returns {Promise<RTCDataChannel>} gone when the connection is: see `state`
   */
  async openChannel(label, options) {
    if (!this.#session) throw new Error('not in a room');
    return this.#session.openChannel(label, options);
  }

  /**
   * Tells how large each track is shown, so that it is sent as large as that. Tracks that are not
   * named are sent as thumbnails.
   * @param {{trackId: string, width: number, height: number, priority?: number}[]} slots sizes in
   *   device pixels; 0 where a track is not seen
   */
  setLayout(slots) {
    this.#signalling?.send({ type: 'set-layout', slots });
  }

  /**
   * Caps how good a track is sent, or every track.
   * @param {'low' | 'medium' | 'high' | 'auto'} quality
   * @param {string} [trackId]
   */
  setQuality(quality, trackId) {
    this.#signalling?.send({ type: 'update-quality', quality, trackId });
  }

  /** Gathers fresh ICE credentials and candidates; media goes on meanwhile. */
  restartIce() {
    this.#session?.restartIce();
  }

  /** Leaves the room and closes the connection. The client can then connect again. */
  leave() {
    this.#signalling?.send({ type: 'leave' });
    this.#finish();
  }

  /** The receiving m-lines, by mid. @returns {ReadonlyMap<string, Slot>} */
  get slots() {
    return this.#session?.slots ?? new Map();
  }

  /** The connection underneath, to look at. @returns {RTCPeerConnection | null} */
  get peerConnection() {
    return this.#session?.peerConnection ?? null;
  }

  /**
   * Figures of every slot and every published track, rates counted since the call before.
   * @returns {Promise<import('./media-session.js').Figures>}
   */
  async stats() {
    return (await this.#session?.stats()) ?? { slots: new Map(), sent: new Map(), rtt: null };
  }

  /**
   * How the server sees this participant: `stats` of the protocol.
   * @returns {Promise<{connection: object, subscriptions: object[], tracks: object[]}>}
   */
  async service() {
    if (!this.#signalling) throw new Error('not in a room');
    return this.#signalling.ask({ type: 'stats' });
  }

  #handleMessage(message) {
    switch (message.type) {
      case 'connected':
        this.#iceServers = message.iceServers ?? [];
        if (this.#membership) this.#rejoin();
        break;
      case 'joined':
        this.#handleJoined(message);
        break;
      case 'request-offer':
        this.#session?.request(message);
        break;
      case 'answer':
        this.#session?.handleAnswer(message);
        break;
      case 'slots':
        this.#session?.handleSlots(message.slots);
        break;
      case 'ice-candidate':
        this.#session?.handleCandidate(message.candidate);
        break;
      case 'participant-joined':
        this.#addParticipant(message.participant);
        break;
      case 'participant-left':
        this.#removeParticipant(message.participantId);
        break;
      case 'track-published':
      case 'track-unpublished':
      case 'track-muted':
        this.#handleTrack(message);
        break;
      case 'active-speakers':
        this.#emit('speakers', message.speakers);
        break;
      case 'quality':
        this.#emit('quality', message);
        break;
      case 'quality-warning':
        this.#emit('warning', message);
        break;
      case 'unwanted-layers':
        this.#session?.handleUnwanted(message);
        break;
      case 'kicked':
        this.#finish(message.reason);
        break;
      case 'room-closed':
        this.#handleRoomClosed(message.reason);
        break;
      case 'error':
        this.#handleError(message);
        break;
    }
  }

  #handleJoined({ participantId, participants = [], resumeToken, resumed }) {
    this.participantId = participantId;
    this.#resumeToken = resumeToken ?? null;
    this.#isLost = false;
    this.#signalling?.settle();
    const present = new Set(participants.map((participant) => participant.id));
    for (const id of [...this.participants.keys()]) {
      if (!present.has(id)) this.#removeParticipant(id);
    }
    for (const participant of participants) this.#addParticipant(participant);
    if (resumed && this.#keepsMedia) {
      this.#goOn();
    } else {
      this.#ownIds.clear();
      this.#startSession();
    }
    this.#joining?.resolve();
    this.#joining = null;
  }

  /** The same participant on a new connection: its media never stopped. */
  #goOn() {
    this.#keepsMedia = false;
    this.#setState(this.#mediaState);
    for (const source of this.#unsaid) {
      this.#sendMute(source, this.#local.get(source)?.muted ?? false);
    }
    this.#unsaid.clear();
  }

  #startSession() {
    this.#session?.close();
    this.#keepsMedia = false;
    this.#unsaid.clear();
    const { codec, rtc } = this.#options;
    const config = { iceServers: this.#iceServers, bundlePolicy: 'max-bundle', ...rtc };
    const session = new MediaSession(config, codec, {
      send: (message) => {
        // An offer that nobody hears is not answered: only a new connection helps then.
        if (this.#isLost && message.type === 'offer') this.#keepsMedia = false;
        this.#signalling?.send(message);
      },
      slot: (slot) => this.#emit('slot', slot),
      channel: (channel) => this.#emit('channel', channel),
      state: (state) => {
        if (session !== this.#session) return;
        this.#mediaState = state;
        if (!this.#isLost) this.#setState(state);
      },
      error: (code, message) => this.#emit('error', { code, message }),
      doubt: () => this.#signalling?.probe(),
      lost: () => this.#startOver(),
    });
    this.#session = session;
    for (const [source, { track }] of this.#local) {
      if (!track) continue;
      const complain = ({ message }) => this.#emit('error', { code: 'publish', message });
      session.publish(track, source).catch(complain);
    }
    this.#mediaState = 'waiting';
    this.#setState('waiting');
  }

  #handleTrack(message) {
    const { participantId, trackId, kind, source } = message;
    if (participantId === this.participantId) {
      if (message.type === 'track-published') this.#handleOwnTrack(trackId, source);
      return;
    }
    const participant = this.participants.get(participantId);
    if (!participant) return;
    if (message.type === 'track-published') {
      participant.tracks.set(trackId, { trackId, kind, source, muted: false });
    } else if (message.type === 'track-unpublished') {
      participant.tracks.delete(trackId);
    } else if (participant.tracks.has(trackId)) {
      participant.tracks.get(trackId).muted = message.muted ?? true;
    }
    this.#emit('participant', participant);
  }

  #handleOwnTrack(trackId, source) {
    this.#ownIds.set(source, trackId);
    if (this.#local.get(source)?.muted) this.#sendMute(source, true);
  }

  #addParticipant({ id, name, metadata, tracks }) {
    const participant = {
      id,
      name: name ?? '',
      metadata,
      tracks: new Map(tracks.map((track) => [track.trackId, { muted: false, ...track }])),
    };
    if (participant.id === this.participantId) return;
    this.participants.set(participant.id, participant);
    this.#emit('participant', participant);
  }

  #removeParticipant(id) {
    const participant = this.participants.get(id);
    if (!participant) return;
    this.participants.delete(id);
    this.#emit('participant-left', participant);
  }

  #handleRoomClosed(reason) {
    // A server that stops is usually one that starts again.
    if (reason === 'server-shutdown') this.#startOver();
    else this.#finish(reason);
  }

  #handleError({ code, message, ref }) {
    if (code === 'resume-failed') {
      this.#forgetStay();
      this.#sendJoin();
    } else if (this.#joining && ref === 'join') {
      const { reject } = this.#joining;
      this.#joining = null;
      this.#membership = null;
      reject(new Error(message));
    } else if (STARTS_OVER.has(code) || (code === 'server-busy' && ref === 'offer')) {
      this.#startOver();
    } else if (ENDS.has(code)) {
      this.#finish(message);
    } else if (code === 'bad-candidate' || ref === 'ice-candidate') {
      // A candidate the server cannot use costs one path, not the call.
    } else if (ref !== 'offer' || !this.#session?.handleRefusal(message)) {
      this.#emit('error', { code, message });
    }
  }

  #handleLost() {
    this.#isLost = true;
    // The server keeps the participant for a while, and what it sends and is sent goes on.
    this.#keepsMedia = Boolean(this.#resumeToken && this.#session?.isSettled);
    if (!this.#keepsMedia) this.#session?.close();
    this.#setState('reconnecting');
  }

  /** Comes back as a new participant, with fresh media. */
  #startOver() {
    this.#forgetStay();
    this.#signalling?.restart();
  }

  #forgetStay() {
    this.#resumeToken = null;
    this.#keepsMedia = false;
    this.#session?.close();
  }

  /** Back after a lost connection: the same room, as the same participant if that is possible. */
  #rejoin() {
    this.#joining = { resolve: () => {}, reject: (error) => this.#finish(error.message) };
    this.#sendJoin();
  }

  #finish(reason) {
    this.#signalling?.close();
    this.#signalling = null;
    this.#session?.close();
    this.#session = null;
    this.#membership = null;
    this.#resumeToken = null;
    this.#isLost = false;
    this.#joining?.reject(new Error(reason ?? 'left'));
    this.#joining = null;
    for (const id of [...this.participants.keys()]) this.#removeParticipant(id);
    this.#setState('closed', reason);
  }

  #sendJoin() {
    const { room, name } = this.#membership;
    const resumeToken = this.#resumeToken ?? undefined;
    this.#signalling?.send({
      type: 'join', ref: 'join', roomId: room, participantName: name, resumeToken,
    });
  }

  #sendMute(source, muted) {
    if (this.#isLost) this.#unsaid.add(source);
    const trackId = this.#ownIds.get(source);
    if (trackId) this.#signalling?.send({ type: muted ? 'mute' : 'unmute', trackId });
  }

  #setState(state, reason) {
    if (state === this.state) return;
    this.state = state;
    this.#emit('state', { state, reason });
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
