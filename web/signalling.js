// A WebSocket that speaks JSON, notices when it is dead and comes back by itself.

/** Wait before the first attempt to come back; doubled each time up to the longest. */
const FIRST_RETRY_MS = 300;
const LONGEST_RETRY_MS = 8_000;
/** A socket that says nothing from one ping to the next is dead. */
const PING_INTERVAL_MS = 10_000;
/** How long a socket in doubt may take to answer. */
const PROBE_MS = 3_000;

/**
 * @typedef {object} Hooks
 * @property {(message: {type: string}) => void} message
 * @property {() => void} lost the connection is gone and is being made again
 * @property {(code: number, reason: string) => void} closed the server ended it for good
 * @property {(code: number) => boolean} isFinal whether coming back makes no sense
 */

export class Signalling {
  #url;
  /** @type {Hooks} */
  #hooks;
  /** @type {WebSocket | null} */
  #socket = null;
  #attempts = 0;
  #retryTimer = 0;
  #pingTimer = 0;
  #probeTimer = 0;
  #awaitsPong = false;
  #asked = 0;
  /** Who awaits a reply, by its `ref`. */
  #questions = new Map();
  /** Given up, but not closed: closing says goodbye, and the server would let its participant go. */
  #stale = [];

  /**
   * @param {string} url
   * @param {Hooks} hooks
   */
  constructor(url, hooks) {
    this.#url = url;
    this.#hooks = hooks;
  }

  /**
   * Connects for the first time.
   * @returns {Promise<void>} resolved by the server's first message
   */
  open() {
    return new Promise((resolve, reject) => {
      this.#dial(resolve, (reason) => {
        this.close();
        reject(new Error(reason));
      });
    });
  }

  /** Says something; lost when the connection is down, for after a reconnect all is said anew. */
  send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  /**
   * Asks for something and awaits the reply.
   * @param {{type: string}} message
   * @returns {Promise<object>} rejected when the connection goes before that, or with the error
   */
  ask(message) {
    if (this.#socket?.readyState !== WebSocket.OPEN) {
      return Promise.reject(new Error('the server cannot be reached'));
    }
    this.#asked += 1;
    const ref = `ask-${this.#asked}`;
    this.send({ ...message, ref });
    return new Promise((resolve, reject) => this.#questions.set(ref, { resolve, reject }));
  }

  /** Ends the connection for good. */
  close() {
    clearTimeout(this.#retryTimer);
    this.#stopTimers();
    const socket = this.#socket;
    this.#socket = null;
    socket?.close(1000);
    this.settle();
  }

  /** The new connection has taken the place of those before it. */
  settle() {
    for (const socket of this.#stale.splice(0)) socket.close(1000);
  }

  /** Something suggests that the connection is dead: asks it, and does not wait long. */
  probe() {
    clearTimeout(this.#probeTimer);
    this.#awaitsPong = true;
    this.send({ type: 'ping' });
    this.#probeTimer = setTimeout(() => {
      if (this.#awaitsPong) this.#giveUp();
    }, PROBE_MS);
  }

  /** Says goodbye and connects again. */
  restart() {
    const socket = this.#socket;
    if (!socket) return;
    this.#socket = null;
    socket.close(1000);
    this.#retry();
  }

  /** The connection is as good as dead: another one is made, which may go on where it stopped. */
  #giveUp() {
    if (!this.#socket) return;
    this.#stale.push(this.#socket);
    this.#socket = null;
    this.#retry();
  }

  #dial(greeted, refused) {
    const socket = new WebSocket(this.#url);
    this.#socket = socket;
    this.#awaitsPong = false;
    socket.onmessage = ({ data }) => {
      if (socket !== this.#socket) return;
      this.#awaitsPong = false;
      const message = JSON.parse(data);
      if (!this.#answer(message)) this.#hooks.message(message);
      greeted?.();
      greeted = refused = undefined;
    };
    socket.onclose = ({ code, reason }) => {
      if (socket !== this.#socket) return;
      this.#stopTimers();
      if (refused) return refused(reason || 'the server cannot be reached');
      if (this.#hooks.isFinal(code)) {
        this.#socket = null;
        return this.#hooks.closed(code, reason);
      }
      this.#retry();
    };
    this.#stopTimers();
    this.#pingTimer = setInterval(() => this.#ping(), PING_INTERVAL_MS);
  }

  /** @returns {boolean} whether it is the reply to a question */
  #answer(message) {
    const question = this.#questions.get(message.ref);
    if (!question) return false;
    this.#questions.delete(message.ref);
    if (message.type === 'error') question.reject(new Error(message.message));
    else question.resolve(message);
    return true;
  }

  #ping() {
    if (this.#awaitsPong) return this.#giveUp();
    this.#awaitsPong = true;
    // Only a connection that lasted forgives the failures before it.
    this.#attempts = 0;
    this.send({ type: 'ping' });
  }

  #retry() {
    this.#hooks.lost();
    this.#stopTimers();
    clearTimeout(this.#retryTimer);
    const wait = Math.min(FIRST_RETRY_MS * 2 ** this.#attempts, LONGEST_RETRY_MS);
    this.#attempts += 1;
    // Spread, so that a restarted server is not met by everyone at once.
    this.#retryTimer = setTimeout(() => this.#dial(), wait * (0.75 + Math.random() / 2));
  }

  #stopTimers() {
    clearInterval(this.#pingTimer);
    clearTimeout(this.#probeTimer);
    for (const { reject } of this.#questions.values()) reject(new Error('the connection is gone'));
    this.#questions.clear();
  }
}
