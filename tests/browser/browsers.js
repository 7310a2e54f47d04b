// Starts browsers and opens the call page in them as participants.

import { writeFileSync } from 'node:fs';
import path from 'node:path';

import puppeteer from 'puppeteer-core';

import { SERVER_ADDRESS, SERVER_ADDRESS_FROM_LOSSY } from './network.js';
import { Participant } from './participant.js';

const ORIGINS = [SERVER_ADDRESS, SERVER_ADDRESS_FROM_LOSSY].map((host) => `http://${host}:8080`);

const CHROMIUM_FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--disable-quic',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--use-fake-ui-for-media-stream',
  // The shared "screen" is a moving picture too.
  '--use-fake-device-for-media-stream=display-media-type=browser',
  '--autoplay-policy=no-user-gesture-required',
  // Cameras need a secure context; the server is not on this namespace's loopback.
  `--unsafely-treat-insecure-origin-as-secure=${ORIGINS.join(',')}`,
];

const FIREFOX_PREFERENCES = {
  'media.navigator.streams.fake': true,
  'media.navigator.permission.disabled': true,
  'media.devices.insecure.enabled': true,
  'media.getusermedia.insecure.enabled': true,
  'media.peerconnection.ice.obfuscate_host_addresses': false,
  'media.autoplay.default': 0,
  // No look-ups of names that cannot be reached from here.
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
};

/** All browsers of one scenario. */
export class Browsers {
  #browsers = [];
  /** @type {Participant[]} */
  #participants = [];

  /** A Chromium process, in the namespace `lossy` when asked. */
  async chromium({ lossy = false } = {}) {
    const program = process.env.CORELAY_CHROMIUM;
    const browser = await puppeteer.launch({
      executablePath: lossy ? inLossy(program) : program,
      headless: true,
      pipe: true,
      args: CHROMIUM_FLAGS,
    });
    browser.origin = lossy ? ORIGINS[1] : ORIGINS[0];
    this.#browsers.push(browser);
    return browser;
  }

  /** A Firefox process. */
  async firefox() {
    const browser = await puppeteer.launch({
      browser: 'firefox',
      executablePath: process.env.CORELAY_FIREFOX,
      headless: true,
      extraPrefsFirefox: FIREFOX_PREFERENCES,
    });
    browser.origin = ORIGINS[0];
    this.#browsers.push(browser);
    return browser;
  }

  /**
   * Opens the call page in a tab and joins a room.
   * @param {object} browser
   * @param {string} room
   * @param {string} name
   * @param {Record<string, string>} [options] further query parameters of the page
   * @param {RTCConfiguration} [configuration] what its connections are made with, beside what the
   *   page says; `window.connections` has them
   * @param {() => void} [before] run in the page before its scripts
   */
  async join(browser, room, name, options = {}, configuration = null, before = null) {
    // Small pictures: these machines encode and decode all sides of the call.
    const query = new URLSearchParams({ room, name, auto: '1', height: '240', ...options });
    return this.open(browser, `/?${query}`, name, { configuration, before });
  }

  /**
   * Opens a page of the server's origin in a tab of its own.
   * @param {{bypassesPolicy?: boolean, configuration?: RTCConfiguration | null,
   *   before?: (() => void) | null}} [options]
   *   whether scripts of the test may run in it too; see {@link join}
   */
  async open(browser, address, name, options = {}) {
    const { bypassesPolicy = false, configuration = null, before = null } = options;
    const page = await browser.newPage();
    if (configuration) await page.evaluateOnNewDocument(watchConnections, configuration);
    if (before) await page.evaluateOnNewDocument(before);
    if (bypassesPolicy) await page.setBypassCSP(true);
    const participant = new Participant(page, name);
    this.#participants.push(participant);
    await page.goto(`${browser.origin}${address}`);
    return participant;
  }

  /** Ends a browser the hard way, as a crash would. */
  async kill(browser) {
    this.#participants = this.#participants.filter(({ page }) => page.browser() !== browser);
    this.#browsers = this.#browsers.filter((other) => other !== browser);
    browser.process().kill('SIGKILL');
  }

  /** Saves what every page shows and said. @returns {Promise<string[]>} where */
  async screenshots(prefix) {
    const lines = [];
    for (const { page, name, console: said } of this.#participants) {
      const file = `${prefix}-${path.basename(name)}`;
      writeFileSync(`${file}.log`, said.join('\n'));
      const shot = page.screenshot({ path: `${file}.png` });
      await shot.then(() => lines.push(`${file}.png`), () => lines.push(`${file}.log`));
      if (said.length > 0) lines.push(`${name} said: ${said.slice(-5).join(' | ')}`);
    }
    return lines;
  }

  async close() {
    this.#participants = [];
    await Promise.all(this.#browsers.splice(0).map((browser) => browser.close()));
  }
}

/** In a page: keeps its connections, and makes them with this configuration too. */
function watchConnections(configuration) {
  const Connection = window.RTCPeerConnection;
  window.connections = [];
  window.RTCPeerConnection = class extends Connection {
    constructor(given) {
      super({ ...given, ...configuration });
      window.connections.push(this);
    }
  };
}

/** A program that runs another in the namespace `lossy`. */
function inLossy(program) {
  const file = path.join(process.env.CORELAY_SCRATCH, 'in-lossy');
  writeFileSync(file, `#!/bin/sh\nexec ip netns exec lossy '${program}' "$@"\n`, { mode: 0o755 });
  return file;
}
