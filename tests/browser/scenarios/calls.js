// Two calls at once, on two shards: Chromium with Chromium, Chromium with Firefox; a third joins
// late; a tab is killed.

import { untilMeet } from '../participant.js';
import { until } from '../until.js';

export async function run({ server, browsers, check }) {
  const [chromium, firefox, doomed] = await Promise.all([
    browsers.chromium(),
    browsers.firefox(),
    browsers.chromium(),
  ]);
  const ada = await browsers.join(chromium, 'engine', 'Ada');
  const bob = await browsers.join(doomed, 'engine', 'Bob');
  const eve = await browsers.join(chromium, 'garden', 'Eve');
  const fay = await browsers.join(firefox, 'garden', 'Fay');

  await check('Chromium and Chromium see and hear each other', () => untilMeet(ada, bob));
  await check('Chromium and Firefox see and hear each other', () => untilMeet(eve, fay));
  await check('the two rooms are on different shards', async () => {
    const rooms = async () => {
      const { shards } = await server.stats();
      return Object.values(shards).map(({ engine }) => engine.rooms);
    };
    const spread = async () => (await rooms()).every((count) => count === 1);
    await until('each shard has one room', 10, spread, rooms);
    return `${await rooms()} rooms`;
  });
  await check('the two rooms do not mix', async () => {
    await Promise.all([ada.untilTiles(['Bob/camera']), fay.untilTiles(['Eve/camera'])]);
    return (await ada.tiles()).concat(await fay.tiles()).join(', ');
  });

  const cleo = await browsers.join(firefox, 'engine', 'Cleo');
  await check('who joins late sees and hears everyone', async () => {
    const met = [await untilMeet(cleo, ada), await untilMeet(cleo, bob)];
    return met.join('; ');
  });

  await server.untilParticipants(5);
  await browsers.kill(doomed);
  await check('a killed tab is gone for the others and for the server', async () => {
    await Promise.all([ada.untilTiles(['Cleo/camera']), cleo.untilTiles(['Ada/camera'])]);
    await server.untilParticipants(4);
    return `${(await server.health()).participants} participants left`;
  });
  await check('who stays still sees and hears', () => untilMeet(ada, cleo));
}
