// The network of the tests: the server in one namespace, browsers in two others.
//
//   (here: browsers)     10.77.1.2 ── 10.77.1.1 (server)
//   lossy (a browser)    10.77.2.2 ── 10.77.2.1

import { execFileSync } from 'node:child_process';

/** The server's address as seen from here. */
export const SERVER_ADDRESS = '10.77.1.1';
/** The server's address as seen from the namespace `lossy`. */
export const SERVER_ADDRESS_FROM_LOSSY = '10.77.2.1';

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
  raise(['-n', 'lossy'], 'far', '10.77.2.2/24');
  raise(['-n', 'server'], 'to-far', `${SERVER_ADDRESS_FROM_LOSSY}/24`);
  // Firefox gathers no candidate where there is no default route.
  run('ip', 'route', 'add', 'default', 'via', SERVER_ADDRESS);
  run('ip', '-n', 'lossy', 'route', 'add', 'default', 'via', SERVER_ADDRESS_FROM_LOSSY);
}

/** Loses this share of the UDP datagrams that come to the namespace `lossy`. */
export function loseIncoming(share) {
  run('ip', 'netns', 'exec', 'lossy', 'iptables', '-A', 'INPUT', '-i', 'far', '-p', 'udp',
    '-m', 'statistic', '--mode', 'random', '--probability', String(share), '-j', 'DROP');
}

/** How many datagrams {@link loseIncoming} has dropped. */
export function countLost() {
  const listing = run('ip', 'netns', 'exec', 'lossy', 'iptables', '-nvxL', 'INPUT');
  return Number(/^\s*(\d+).*DROP/m.exec(listing)?.[1] ?? 0);
}

/** Ends what {@link loseIncoming} began. */
export function loseNothing() {
  run('ip', 'netns', 'exec', 'lossy', 'iptables', '-F', 'INPUT');
}

function raise(where, device, address) {
  run('ip', ...where, 'address', 'add', address, 'dev', device);
  run('ip', ...where, 'link', 'set', device, 'up');
}
