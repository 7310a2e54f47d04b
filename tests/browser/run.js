// Runs every scenario and counts its checks. Started by scripts/interop in namespaces of its own.

import { readdirSync } from 'node:fs';

import { Browsers } from './browsers.js';
import { buildNetwork } from './network.js';
import { Report } from './report.js';
import { Server } from './server.js';

// The first process of a PID namespace gets no default handlers.
for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(130));

buildNetwork();
const wanted = process.argv.slice(2);
const inFolder = (folder) =>
  readdirSync(new URL(folder, import.meta.url)).sort().map((file) => file.replace(/\.js$/, ''));
const all = inFolder('scenarios/');
// What takes long runs only when it is named.
const long = inFolder('long/');
const unknown = wanted.filter((name) => !all.includes(name) && !long.includes(name));
if (unknown.length > 0) {
  console.error(`no such scenario: ${unknown.join(', ')}; there are ${[...all, ...long].join(', ')}`);
  process.exit(2);
}

const report = new Report();
for (const name of wanted.length > 0 ? wanted : all) {
  const scenario = await import(`./${long.includes(name) ? 'long' : 'scenarios'}/${name}.js`);
  const server = new Server(name, scenario.serverArguments, scenario.serverEnvironment);
  const browsers = new Browsers();
  await report.scenario(name, browsers, server, async (check) => {
    await server.start();
    await scenario.run({ server, browsers, check });
    await browsers.close();
    await check('everything is freed when all have left', () => server.untilEmpty());
  });
  await browsers.close();
  await server.stop();
}
process.exit(report.finish());
