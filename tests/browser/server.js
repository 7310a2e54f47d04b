// The real binary, in the namespace `server`.

import { spawn } from 'node:child_process';
import { closeSync, openSync, readFileSync } from 'node:fs';
import path from 'node:path';

import { SERVER_ADDRESS } from './network.js';
import { until } from './until.js';

const ORIGIN = `http://${SERVER_ADDRESS}:8080`;
const SHARDS = 2;
/** What a shard counts that is there now. */
const GAUGES = ['rooms', 'peers', 'audio_tracks', 'video_tracks', 'subscriptions', 'addresses'];

export class Server {
  logFile;
  #arguments;
  #environment;
  #process = null;

  /**
   * @param {string} scenario names the log
   * @param {string[]} [args] further arguments
   * @param {Record<string, string>} [variables] of its environment
   */
  constructor(scenario, args = [], variables = {}) {
    this.logFile = path.join(process.env.CORELAY_SCRATCH, `${scenario}-server.log`);
    this.#arguments = args;
    this.#environment = variables;
  }

  async start(args = this.#arguments) {
    const log = openSync(this.logFile, 'a');
    const command = ['netns', 'exec', 'server', process.env.CORELAY_BIN, 'serve',
      '--http', '0.0.0.0:8080', '--udp', '[::]:10000', '--shards', String(SHARDS), ...args];
    const env = { ...environment(), ...this.#environment };
    this.#process = spawn('ip', command, { stdio: ['ignore', log, log], env });
    closeSync(log);
    await until('the server answers', 15, () => {
      if (this.#process.exitCode !== null) throw new Error(`it ended: ${this.lastWords()}`);
      return this.health().catch(() => null);
    });
  }

  stop() {
    // SIGTERM would wait for the calls.
    return this.#end('SIGINT');
  }

  /** Ends it in the middle of whatever it does. */
  kill() {
    return this.#end('SIGKILL');
  }

  async #end(signal) {
    const running = this.#process;
    this.#process = null;
    if (!running || running.exitCode !== null) return;
    const ended = new Promise((resolve) => running.once('exit', resolve));
    running.kill(signal);
    await ended;
  }

  /** The last lines of its log. */
  lastWords() {
    return this.log().trimEnd().split('\n').slice(-12).join('\n');
  }

  log() {
    // Without the colours.
    return readFileSync(this.logFile, 'utf8').replace(/\x1b\[[0-9;]*m/g, '');
  }

  health() {
    return get('/health');
  }

  stats() {
    return get('/api/stats');
  }

  /** What each of the dialects has counted. */
  dialects() {
    return get('/api/stats/dialects');
  }

  /** Waits until so many participants are left. */
  untilParticipants(count, seconds = 10) {
    return until(
      `/health counts ${count} participants`,
      seconds,
      async () => (await this.health()).participants === count,
      () => this.health(),
    );
  }

  /**
   * Waits until nothing is left of any call, in any shard.
   * @returns {Promise<string>} figures
   */
  async untilEmpty() {
    // Whose tab ended without a word may come back for 30 s (rooms.resume_timeout).
    await this.untilParticipants(0, 45);
    const left = async () => {
      const { signalling, totals } = await this.stats();
      const gauges = GAUGES.map((name) => [name, totals.engine[name]]);
      gauges.push(['sockets', signalling.sockets]);
      return gauges.filter(([, count]) => count !== 0);
    };
    await until('every gauge is zero', 30, async () => (await left()).length === 0, left);
    const { engine, dropped } = (await this.stats()).totals;
    if (engine.peer_panics > 0) throw new Error(`${engine.peer_panics} peers panicked`);
    if (engine.guarded > 0) throw new Error(`str0m sent ${engine.guarded} packets in our name`);
    if (/ ERROR /.test(this.log())) throw new Error('the server logged an error');
    return (
      `${engine.connected} connected, ${engine.forwarded} packets forwarded, ` +
      `${engine.paced} paced, ${dropped.paused} paused, nothing left`
    );
  }
}

/** The server's environment: ours, without what is meant for the tests. */
function environment() {
  const env = { ...process.env };
  for (const name of ['BIN', 'CHROMIUM', 'FIREFOX', 'SCRATCH', 'SKIP_BROWSERS', 'TARGET_DIR']) {
    delete env[`CORELAY_${name}`];
  }
  return env;
}

async function get(address) {
  const response = await fetch(`${ORIGIN}${address}`, { signal: AbortSignal.timeout(2_000) });
  if (!response.ok) throw new Error(`${address}: ${response.status}`);
  return response.json();
}
