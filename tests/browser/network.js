// The network of the tests: the server in one namespace, browsers in two others.
//
//   (here: browsers)     10.77.1.2 ── 10.77.1.1 (server)
//   lossy (a browser)    10.77.2.2 ── 10.77.2.1

import { execFileSync } from 'node:child_process';

/** The server's address as seen from here. */
export const SERVER_ADDRESS = '10.77.1.1';
/** The server's address as seen from the namespace `lossy`. */
export const SERVER_ADDRESS_FROM_LOSSY = '10.77.2.1';

const LOSSY_ADDRESS = '10.77.2.2';

/** Runs a command, and fails with what it said when it fails. */
export function run(command, ...args) {
  return execFileSync(command, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] });
}

export function buildNetwork() {
  // `ip netns` keeps its names here; the mount namespace is ours alone.
  run('mount', '-t', 'tmpfs', 'tmpfs', '/run');
  run('ip', 'link', 'set', 'lo', 'up');
  for (const name of ['server', 'lossy']) {
    run('ip', 'netns', 'add', name);
    run('ip', '-n', name, 'link', 'set', 'lo', 'up');
  }
  run('ip', 'link', 'add', 'near', 'type', 'veth', 'peer', 'name', 'to-near', 'netns', 'server');
  raise([], 'near', '10.77.1.2/24');
  raise(['-n', 'server'], 'to-near', `${SERVER_ADDRESS}/24`);
  run('ip', '-n', 'lossy', 'link', 'add', 'far', 'type', 'veth',
    'peer', 'name', 'to-far', 'netns', 'server');
  raise(['-n', 'lossy'], 'far', `${LOSSY_ADDRESS}/24`);
  raise(['-n', 'server'], 'to-far', `${SERVER_ADDRESS_FROM_LOSSY}/24`);
  // Firefox gathers no candidate where there is no default route.
  run('ip', 'route', 'add', 'default', 'via', SERVER_ADDRESS);
  run('ip', '-n', 'lossy', 'route', 'add', 'default', 'via', SERVER_ADDRESS_FROM_LOSSY);
}

/** Where datagrams of the browser in `lossy` can be lost: on their way to it, or from it. */
export const TO_LOSSY = { namespace: 'lossy', device: 'far' };
export const FROM_LOSSY = { namespace: 'server', device: 'to-far' };

/**
 * Loses a share of the UDP datagrams that arrive somewhere, while `body` runs.
 * @template T
 * @param {{namespace: string, device: string}} where
 * @param {number} share 0 to 1
 * @param {(lost: () => number) => Promise<T>} body is given a count of the lost
 * @returns {Promise<T>}
 */
export async function losing({ namespace, device }, share, body) {
  const tables = (...args) => run('ip', 'netns', 'exec', namespace, 'iptables', ...args);
  tables('-A', 'INPUT', '-i', device, '-p', 'udp', '-m', 'statistic', '--mode', 'random',
    '--probability', String(share), '-j', 'DROP');
  try {
    return await body(() => Number(/^\s*(\d+).*DROP/m.exec(tables('-nvxL', 'INPUT'))[1]));
  } finally {
    tables('-F', 'INPUT');
  }
}

/** Lets no more than this pass from somewhere, a third of a second of it waiting; null: all. */
export function limit({ namespace, device }, kbps) {
  const queue = ['-n', namespace, 'qdisc', kbps ? 'replace' : 'del', 'dev', device, 'root'];
  const filter = ['tbf', 'rate', `${kbps}kbit`, 'burst', '16kb', 'latency', '300ms'];
  run('tc', ...queue, ...(kbps ? filter : []));
}

/**
 * Lets no UDP through between the namespaces `lossy` and `server` while `body` runs.
 * @template T
 * @param {() => Promise<T>} body
 * @returns {Promise<T>}
 */
export function blockingUdp(body) {
  return losing(TO_LOSSY, 1, () => losing(FROM_LOSSY, 1, body));
}

/**
 * Lets no TCP through from here to the server while `body` runs: WebSockets die without a word.
 * @template T
 * @param {() => Promise<T>} body
 * @returns {Promise<T>}
 */
export async function blockingTcp(body) {
  const rule = ['INPUT', '-i', 'to-near', '-p', 'tcp', '-j', 'DROP'];
  const tables = (...args) => run('ip', 'netns', 'exec', 'server', 'iptables', ...args);
  tables('-A', ...rule);
  try {
    return await body();
  } finally {
    tables('-D', ...rule);
  }
}

/** Gives the namespace `lossy` another address in the place of the one it has. */
export function moveLossy(address = LOSSY_ADDRESS) {
  run('ip', '-n', 'lossy', 'address', 'flush', 'dev', 'far');
  run('ip', '-n', 'lossy', 'address', 'add', `${address}/24`, 'dev', 'far');
  run('ip', '-n', 'lossy', 'route', 'add', 'default', 'via', SERVER_ADDRESS_FROM_LOSSY);
}

function raise(where, device, address) {
  run('ip', ...where, 'address', 'add', address, 'dev', device);
  run('ip', ...where, 'link', 'set', device, 'up');
}
