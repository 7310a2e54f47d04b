// Waiting for a condition with a deadline.

const POLL_MS = 100;

/**
 * Polls until `probe` gives something truthy, and returns it.
 * @template T
 * @param {string} what the condition, as a failure names it
 * @param {number} seconds until it must hold
 * @param {() => Promise<T> | T} probe
 * @param {() => Promise<unknown> | unknown} [describe] the state to show when it does not
 * @returns {Promise<T>}
 */
export async function until(what, seconds, probe, describe) {
  const deadline = Date.now() + seconds * 1000;
  for (;;) {
    const value = await probe();
    if (value) return value;
    if (Date.now() > deadline) break;
    await new Promise((resolve) => setTimeout(resolve, POLL_MS));
  }
  const state = describe ? `; instead: ${JSON.stringify(await describe())}` : '';
  throw new Error(`not within ${seconds} s: ${what}${state}`);
}
