// The call page: the lobby, the call, and what its buttons do.

import { CorelayClient } from './corelay-client.js';
import { Grid, describeFigures, describePath, describeService } from './tiles.js';

/** How often the layout and figures are brought up to date. */
const LAYOUT_INTERVAL_MS = 500;
const FIGURES_INTERVAL_MS = 1_000;
const TOAST_MS = 6_000;

const STATE_WORDS = {
  idle: '',
  connecting: 'Connecting…',
  waiting: 'In the room',
  connected: 'Connected',
  reconnecting: 'Connection lost, reconnecting…',
  closed: 'Not connected',
};

const byId = (id) => document.getElementById(id);
const query = new URLSearchParams(location.search);
const grid = new Grid(byId('grid'), byId('tile'));
const client = new CorelayClient({ codec: query.get('codec') ?? undefined });

/** The own devices' tracks; null while they are off or missing. */
const devices = { microphone: null, camera: null, screen: null };
let ownName = '';
/** What the server was told last. */
let toldLayout = '[]';
let muted = false;
let timers = [];

// ---- The lobby -------------------------------------------------------------------------------

async function openLobby() {
  byId('name').value = query.get('name') ?? remembered('name') ?? '';
  byId('room').value = query.get('room') ?? randomRoom();
  byId('with-camera').checked = query.get('video') !== '0';
  byId('with-microphone').checked = query.get('audio') !== '0';
  byId('lobby').addEventListener('submit', (event) => {
    event.preventDefault();
    enterCall();
  });
  byId('with-camera').addEventListener('change', openDevices);
  byId('with-microphone').addEventListener('change', openDevices);
  await openDevices();
  if (query.has('auto')) await enterCall();
}

/** Opens the devices that are ticked and closes the others; says why one is missing. */
async function openDevices() {
  /** What is missing, by why. */
  const problems = new Map();
  for (const [source, box] of [['camera', 'with-camera'], ['microphone', 'with-microphone']]) {
    if (!byId(box).checked) {
      devices[source]?.stop();
      devices[source] = null;
    } else if (!devices[source]) {
      devices[source] = await openDevice(source).catch((error) => {
        problems.set(error.name, [...(problems.get(error.name) ?? []), source]);
        return null;
      });
    }
  }
  showPreview();
  const lines = [...problems].map(([why, sources]) => explainDevice(sources.join(' or '), why));
  const watches = !devices.camera && !devices.microphone;
  if (lines.length > 0 && watches) lines.push('You can still join and watch.');
  byId('device-note').textContent = lines.join(' ');
}

async function openDevice(source) {
  if (!navigator.mediaDevices) throw new DOMException('', 'InsecureContext');
  const height = Number(query.get('height')) || 720;
  const picture = { width: { ideal: (height * 16) / 9 }, height: { ideal: height } };
  const wanted =
    source === 'camera'
      ? { video: { ...picture, frameRate: { max: 30 } } }
      : { audio: { echoCancellation: true, noiseSuppression: true, autoGainControl: true } };
  const stream = await navigator.mediaDevices.getUserMedia(wanted);
  return stream.getTracks()[0];
}

/** @param {string} source what is missing @param {string} why the error's name */
function explainDevice(source, why) {
  switch (why) {
    case 'NotAllowedError':
      return `The browser may not use the ${source}: allow it in the address bar.`;
    case 'NotFoundError':
      return `No ${source} was found.`;
    case 'NotReadableError':
      return `The ${source} is in use by another program.`;
    case 'InsecureContext':
      return `The ${source} works only over https or on localhost.`;
    default:
      return `The ${source} could not be opened (${why}).`;
  }
}

function showPreview() {
  const { camera } = devices;
  const preview = byId('preview');
  preview.srcObject = camera ? new MediaStream([camera]) : null;
  preview.parentElement.dataset.video = camera ? 'on' : 'off';
}

// ---- Entering and leaving --------------------------------------------------------------------

async function enterCall() {
  const room = byId('room').value.trim();
  if (!byId('lobby').reportValidity()) return;
  ownName = byId('name').value.trim() || 'Guest';
  localStorage.setItem('corelay-name', ownName);
  byId('join').disabled = true;
  byId('lobby-error').textContent = '';
  try {
    await client.connect(new URL('ws', location.href.replace(/^http/, 'ws')).href);
    for (const source of ['microphone', 'camera']) {
      if (devices[source]) await client.publish(devices[source], source);
    }
    await client.join(room, ownName);
    showCall(room);
  } catch (error) {
    client.leave();
    byId('lobby-error').textContent = `Could not join: ${error.message}.`;
  } finally {
    byId('join').disabled = false;
  }
}

function showCall(room) {
  const link = new URL(location.href);
  link.search = '';
  link.searchParams.set('room', room);
  // What a test or a link said besides the room survives a reload.
  const address = new URL(location.href);
  address.searchParams.set('room', room);
  history.replaceState(null, '', address);
  byId('room-name').textContent = room;
  byId('copy-link').dataset.link = link.href;
  document.title = `${room} · corelay`;
  document.body.dataset.stage = 'call';
  showOwn();
  showAlone();
  timers = [setInterval(tellLayout, LAYOUT_INTERVAL_MS)];
  timers.push(setInterval(showFigures, FIGURES_INTERVAL_MS));
}

function showLobby(reason) {
  timers.forEach(clearInterval);
  document.body.dataset.stage = 'lobby';
  document.title = 'corelay';
  byId('room-name').textContent = '';
  stopScreen();
  grid.clear();
  byId('sounds').replaceChildren();
  byId('unlock-sound').hidden = true;
  if (reason) byId('lobby-error').textContent = `The call ended: ${reason}.`;
  showPreview();
}

// ---- Others ----------------------------------------------------------------------------------

function showParticipant(participant) {
  const sources = [...participant.tracks.values()];
  const tile = grid.tile(participant.id, 'camera', participant.name);
  tile.rename(participant.name);
  const microphone = sources.find(({ source }) => source === 'microphone');
  tile.setMicrophone(!microphone ? 'none' : microphone.muted ? 'muted' : 'on');
  const camera = slotOf(participant.id, 'camera');
  const cameraMuted = sources.some(({ source, muted: off }) => source === 'camera' && off);
  tile.show(cameraMuted ? null : (camera?.track ?? null));
  showAlone();
}

function removeParticipant({ id }) {
  grid.remove(id, 'camera');
  grid.remove(id, 'screen');
  showAlone();
}

function slotOf(participantId, source) {
  const plays = (slot) => slot.participantId === participantId && slot.source === source;
  return [...client.slots.values()].find(plays);
}

function showSlot(slot) {
  if (slot.kind === 'audio') return playSound(slot);
  // What else this slot showed before it no longer shows.
  for (const participant of client.participants.values()) {
    showParticipant(participant);
    const screen = slotOf(participant.id, 'screen');
    if (screen) grid.tile(participant.id, 'screen', participant.name).show(screen.track);
    else if (grid.find(participant.id, 'screen')) grid.remove(participant.id, 'screen');
  }
}

function playSound({ mid, track, participantId }) {
  const id = `sound-${mid}`;
  let sound = byId(id);
  if (!participantId) return sound?.remove();
  if (!sound) {
    sound = document.createElement('audio');
    sound.id = id;
    sound.autoplay = true;
    byId('sounds').append(sound);
  }
  if (sound.srcObject?.getTracks()[0] !== track) sound.srcObject = new MediaStream([track]);
  sound.play().catch(({ name }) => {
    // The browser wants a click before it plays sound.
    if (name === 'NotAllowedError') byId('unlock-sound').hidden = false;
  });
}

function showAlone() {
  byId('alone').hidden = client.participants.size > 0;
}

function showSpeakers(ids) {
  const speaking = new Set(ids.map((id) => (id === client.participantId ? 'own' : id)));
  for (const tile of grid) {
    const { participant, source } = tile.element.dataset;
    tile.setSpeaking(source === 'camera' && speaking.has(participant));
  }
}

/** Tells the server how large each picture is shown, when that has changed. */
function tellLayout() {
  const shown = [...client.slots.values()].flatMap(({ trackId, participantId, source, kind }) => {
    if (!trackId || kind === 'audio') return [];
    const box = grid.find(participantId, source)?.element.getBoundingClientRect();
    const pixels = (length) => Math.round((length ?? 0) * devicePixelRatio);
    return [{ trackId, width: pixels(box?.width), height: pixels(box?.height) }];
  });
  const layout = JSON.stringify(shown);
  if (layout === toldLayout) return;
  toldLayout = layout;
  client.setLayout(shown);
}

async function showFigures() {
  const wanted = byId('figures').getAttribute('aria-pressed') === 'true';
  if (!wanted) {
    for (const tile of grid) tile.setFigures(null);
    return;
  }
  const [{ slots, sent, rtt }, service] = await Promise.all([
    client.stats(),
    client.service().catch(() => null),
  ]);
  for (const [mid, figures] of slots) {
    const { participantId, source } = client.slots.get(mid) ?? {};
    if (source === 'camera' || source === 'screen') {
      const lines = [describeFigures(figures, rtt), describeService(service, mid)];
      grid.find(participantId, source)?.setFigures(lines.join('\n'));
    }
  }
  for (const source of ['camera', 'screen']) {
    if (sent.has(source)) {
      const lines = [describeFigures(sent.get(source), rtt), describePath(service)];
      grid.find('own', source)?.setFigures(lines.join('\n'));
    }
  }
}

// ---- Oneself ---------------------------------------------------------------------------------

function showOwn() {
  const { microphone, camera, screen } = devices;
  const tile = grid.tile('own', 'camera', `${ownName} (you)`, true);
  tile.show(camera);
  tile.setMicrophone(!microphone ? 'none' : muted ? 'muted' : 'on');
  if (screen) grid.tile('own', 'screen', ownName, true).show(screen);
  else if (grid.find('own', 'screen')) grid.remove('own', 'screen');
  showButton('microphone', microphone !== null && !muted, ['Mute', 'Unmute']);
  showButton('camera', camera !== null, ['Camera off', 'Camera on']);
  showButton('screen', screen !== null, ['Stop sharing', 'Share screen']);
}

function showButton(id, on, [whenOn, whenOff]) {
  byId(id).dataset.on = String(on);
  byId(id).querySelector('span').textContent = on ? whenOn : whenOff;
}

async function toggleMicrophone() {
  if (devices.microphone) {
    muted = !muted;
    await client.mute('microphone', muted);
  } else {
    devices.microphone = await openDevice('microphone');
    muted = false;
    await client.publish(devices.microphone, 'microphone');
  }
  showOwn();
}

async function toggleCamera() {
  if (devices.camera) {
    devices.camera.stop();
    devices.camera = null;
    await client.replace('camera', null);
  } else {
    devices.camera = await openDevice('camera');
    await client.replace('camera', devices.camera);
  }
  showOwn();
}

async function toggleScreen() {
  if (devices.screen) return stopScreen();
  const stream = await navigator.mediaDevices.getDisplayMedia({ video: true });
  [devices.screen] = stream.getVideoTracks();
  devices.screen.contentHint = 'detail';
  // The browser's own "stop sharing" bar.
  devices.screen.addEventListener('ended', stopScreen);
  showOwn();
  await client.publish(devices.screen, 'screen');
}

async function stopScreen() {
  if (!devices.screen) return;
  devices.screen.stop();
  devices.screen = null;
  if (document.body.dataset.stage === 'call') showOwn();
  await client.unpublish('screen');
}

// ---- Wiring ----------------------------------------------------------------------------------

function toast(text) {
  const line = document.createElement('p');
  line.textContent = text;
  byId('toasts').append(line);
  setTimeout(() => line.remove(), TOAST_MS);
}

/** A button whose action may fail for a reason the person should know. */
function onClick(id, source, action) {
  byId(id).addEventListener('click', async () => {
    byId(id).disabled = true;
    // Dismissing the browser's question is an answer, not a problem.
    await action().catch((error) => {
      if (source !== 'screen' || error.name !== 'NotAllowedError') {
        toast(explainDevice(source, error.name));
      }
    });
    byId(id).disabled = false;
  });
}

function showState({ state, reason }) {
  byId('state').dataset.state = state;
  byId('state').textContent = STATE_WORDS[state];
  if (state === 'waiting') toldLayout = '[]';
  if (state === 'closed' && document.body.dataset.stage === 'call') showLobby(reason);
}

function wire() {
  client.addEventListener('participant', ({ detail }) => showParticipant(detail));
  client.addEventListener('participant-left', ({ detail }) => removeParticipant(detail));
  client.addEventListener('slot', ({ detail }) => showSlot(detail));
  client.addEventListener('speakers', ({ detail }) => showSpeakers(detail));
  client.addEventListener('state', ({ detail }) => showState(detail));
  client.addEventListener('error', ({ detail }) => toast(detail.message));
  onClick('microphone', 'microphone', toggleMicrophone);
  onClick('camera', 'camera', toggleCamera);
  onClick('screen', 'screen', toggleScreen);
  byId('leave').addEventListener('click', () => client.leave());
  byId('figures').addEventListener('click', ({ currentTarget }) => {
    const on = currentTarget.getAttribute('aria-pressed') === 'true';
    currentTarget.setAttribute('aria-pressed', String(!on));
    showFigures();
  });
  byId('copy-link').addEventListener('click', async ({ currentTarget }) => {
    const { link } = currentTarget.dataset;
    const copied = await navigator.clipboard?.writeText(link).then(() => true, () => false);
    toast(copied ? 'Link copied.' : link);
  });
  byId('unlock-sound').addEventListener('click', ({ currentTarget }) => {
    for (const sound of byId('sounds').children) sound.play();
    currentTarget.hidden = true;
  });
  // Closing the tab tells the server at once; it would find out by itself, but later.
  window.addEventListener('pagehide', () => client.leave());
}

function remembered(key) {
  return localStorage.getItem(`corelay-${key}`);
}

function randomRoom() {
  const letters = crypto.getRandomValues(new Uint8Array(8));
  return Array.from(letters, (byte) => 'abcdefghijkmnpqrstuvwxyz23456789'[byte % 32]).join('');
}

/** For tests and the console: what the page is made of. */
window.corelay = { client, devices };

wire();
openLobby();
