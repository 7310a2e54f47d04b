// One line per check, evidence for each failure, a count at the end.

import path from 'node:path';

/** Thrown by a failed check, so that what builds on it in its scenario is not tried. */
class Failed extends Error {}

export class Report {
  #passed = 0;
  #failed = 0;
  #started = Date.now();

  /**
   * Runs one scenario.
   * @param {(check: (what: string, body: () => Promise<string | void>) => Promise<void>) =>
   *   Promise<void>} body
   */
  async scenario(name, browsers, server, body) {
    console.log(`${name}`);
    const check = async (what, attempt) => {
      const started = Date.now();
      try {
        const figures = await attempt();
        this.#passed += 1;
        const seconds = ((Date.now() - started) / 1000).toFixed(1);
        console.log(`  ✓ ${what}${figures ? `: ${figures}` : ''} (${seconds} s)`);
      } catch (error) {
        await this.#fail(name, what, error, browsers, server);
        throw new Failed();
      }
    };
    try {
      await body(check);
    } catch (error) {
      if (!(error instanceof Failed)) {
        await this.#fail(name, 'the scenario could be set up', error, browsers, server);
      }
    }
  }

  /** Prints the count. @returns {number} the exit code */
  finish() {
    const seconds = Math.round((Date.now() - this.#started) / 1000);
    console.log(`browsers: ${seconds} s`);
    console.log(`${this.#passed} passed, ${this.#failed} failed`);
    return this.#failed === 0 ? 0 : 1;
  }

  async #fail(scenario, what, error, browsers, server) {
    this.#failed += 1;
    console.log(`  ✗ ${what}`);
    const indent = (text) => text.replace(/^/gm, '      ');
    console.log(indent(error.stack ?? String(error)));
    const folder = process.env.CORELAY_SCRATCH;
    for (const line of await browsers.screenshots(path.join(folder, scenario))) {
      console.log(indent(line));
    }
    console.log(indent(`the server's last words (${server.logFile}):\n${server.lastWords()}`));
  }
}
