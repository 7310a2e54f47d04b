// Opens captured SRTP with exported keys, so that other programs can read what was sent.
// Written from RFC 3711, RFC 5764 and RFC 7714, apart from the server's own code.

import { createCipheriv, createDecipheriv, createHmac } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';

const ETHERNET_BYTES = 14;
const UDP_BYTES = 8;
const PCAP_HEADER_BYTES = 24;
const RECORD_HEADER_BYTES = 16;
const GCM_TAG_BYTES = 16;
const CM_TAG_BYTES = 10;
const ZEROS = Buffer.alloc(32);

/** The keys of one direction of a connection. */
class Direction {
  #suite;
  #rtp;
  #rtcp;
  /** Highest index seen, by SSRC. */
  #highest = new Map();

  constructor(profile, hex) {
    const bytes = Buffer.from(hex, 'hex');
    const gcm = profile.includes('GCM');
    const saltBytes = gcm ? 12 : 14;
    const master = bytes.subarray(0, -saltBytes);
    const salt = Buffer.concat([bytes.subarray(-saltBytes), ZEROS], 14);
    this.#suite = { gcm, bits: master.length * 8 };
    const derive = (label, length) => {
      // RFC 3711 §4.3.1, with a key derivation rate of zero.
      const input = Buffer.concat([salt, ZEROS], 16);
      input[7] ^= label;
      return this.#counter(master, input).update(Buffer.alloc(length));
    };
    const keys = (first) => ({
      key: derive(first, master.length),
      auth: derive(first + 1, 20),
      salt: derive(first + 2, saltBytes),
    });
    this.#rtp = keys(0);
    this.#rtcp = keys(3);
  }

  #counter(key, iv) {
    return createCipheriv(`aes-${this.#suite.bits}-ctr`, key, iv);
  }

  openRtp(packet) {
    const ssrc = packet.readUInt32BE(8);
    const index = this.#index(ssrc, packet.readUInt16BE(2));
    let header = 12 + 4 * (packet[0] & 0x0f);
    if (packet[0] & 0x10) header += 4 + 4 * packet.readUInt16BE(header + 2);
    const clear = packet.subarray(0, header);
    if (this.#suite.gcm) {
      const iv = Buffer.alloc(12);
      iv.writeUInt32BE(ssrc, 2);
      iv.writeUIntBE(index, 6, 6);
      const sealed = packet.subarray(header);
      return Buffer.concat([clear, this.#openGcm(this.#rtp, iv, clear, sealed)]);
    }
    const end = packet.length - CM_TAG_BYTES;
    const rollOver = Buffer.alloc(4);
    rollOver.writeUInt32BE(Math.floor(index / 65536));
    this.#authenticate(this.#rtp, [packet.subarray(0, end), rollOver], packet.subarray(end));
    return Buffer.concat([clear, this.#openCm(this.#rtp, ssrc, index, packet.subarray(header, end))]);
  }

  openRtcp(packet) {
    const ssrc = packet.readUInt32BE(4);
    const clear = packet.subarray(0, 8);
    const end = packet.length - (this.#suite.gcm ? 0 : CM_TAG_BYTES);
    const word = packet.subarray(end - 4, end);
    const index = word.readUInt32BE() % 2 ** 31;
    if (word[0] < 0x80) throw new Error('SRTCP that is not encrypted');
    const sealed = packet.subarray(8, end - 4);
    if (this.#suite.gcm) {
      const iv = Buffer.alloc(12);
      iv.writeUInt32BE(ssrc, 2);
      iv.writeUInt32BE(index, 8);
      const associated = Buffer.concat([clear, word]);
      return Buffer.concat([clear, this.#openGcm(this.#rtcp, iv, associated, sealed)]);
    }
    this.#authenticate(this.#rtcp, [packet.subarray(0, end)], packet.subarray(end));
    return Buffer.concat([clear, this.#openCm(this.#rtcp, ssrc, index, sealed)]);
  }

  /** RFC 7714 §8.1 and §9.1. */
  #openGcm({ key, salt }, iv, associated, sealed) {
    for (let at = 0; at < iv.length; at += 1) iv[at] ^= salt[at];
    const cipher = createDecipheriv(`aes-${this.#suite.bits}-gcm`, key, iv);
    cipher.setAAD(associated);
    cipher.setAuthTag(sealed.subarray(-GCM_TAG_BYTES));
    return Buffer.concat([cipher.update(sealed.subarray(0, -GCM_TAG_BYTES)), cipher.final()]);
  }

  /** RFC 3711 §4.1.1. */
  #openCm({ key, salt }, ssrc, index, sealed) {
    const iv = Buffer.alloc(16);
    iv.writeUInt32BE(ssrc, 4);
    iv.writeUIntBE(index, 8, 6);
    for (let at = 0; at < salt.length; at += 1) iv[at] ^= salt[at];
    return this.#counter(key, iv).update(sealed);
  }

  #authenticate({ auth }, parts, tag) {
    const hmac = createHmac('sha1', auth);
    for (const part of parts) hmac.update(part);
    if (!hmac.digest().subarray(0, CM_TAG_BYTES).equals(tag)) throw new Error('a forged packet');
  }

  /** RFC 3711 appendix A. */
  #index(ssrc, wire) {
    const highest = this.#highest.get(ssrc) ?? wire;
    const step = (((wire - highest) % 65536) + 98304) % 65536 - 32768;
    const index = Math.max(highest + step, wire);
    this.#highest.set(ssrc, Math.max(highest, index));
    return index;
  }
}

/** The lines a debug build wrote, by the client's address. */
function readKeys(file) {
  const connections = new Map();
  for (const line of readFileSync(file, 'utf8').trim().split('\n')) {
    const [client, profile, ours, theirs] = line.split(' ');
    const toClient = new Direction(profile, ours);
    connections.set(client, { toClient, fromClient: new Direction(profile, theirs), profile });
  }
  return connections;
}

/**
 * Writes what a capture of Ethernet frames has of SRTP in clear, RTCP one port above RTP.
 * @returns {{rtp: number, rtcp: number, unknown: number, profiles: Set<string>}}
 */
export function openCapture(capture, keyFile, port, output) {
  const connections = readKeys(keyFile);
  const bytes = readFileSync(capture);
  const written = [bytes.subarray(0, PCAP_HEADER_BYTES)];
  const counts = { rtp: 0, rtcp: 0, unknown: 0, profiles: new Set() };
  let at = PCAP_HEADER_BYTES;
  while (at + RECORD_HEADER_BYTES <= bytes.length) {
    const length = bytes.readUInt32LE(at + 8);
    const record = bytes.subarray(at, at + RECORD_HEADER_BYTES);
    const frame = bytes.subarray(at + RECORD_HEADER_BYTES, at + RECORD_HEADER_BYTES + length);
    at += RECORD_HEADER_BYTES + length;
    const udp = ETHERNET_BYTES + 4 * (frame[ETHERNET_BYTES] & 0x0f);
    const datagram = frame.subarray(udp + UDP_BYTES, udp + frame.readUInt16BE(udp + 4));
    // RFC 7983 §7, RFC 5761 §4.
    if (datagram.length < 12 || datagram[0] < 128 || datagram[0] > 191) continue;
    const isRtcp = datagram[1] >= 192 && datagram[1] <= 223;
    const isOurs = frame.readUInt16BE(udp) === port;
    const address = frame.subarray(ETHERNET_BYTES + (isOurs ? 16 : 12)).subarray(0, 4).join('.');
    const client = `${address}:${frame.readUInt16BE(udp + (isOurs ? 2 : 0))}`;
    const connection = connections.get(client);
    if (!connection) {
      counts.unknown += 1;
      continue;
    }
    counts.profiles.add(connection.profile);
    const direction = isOurs ? connection.toClient : connection.fromClient;
    const opened = isRtcp ? direction.openRtcp(datagram) : direction.openRtp(datagram);
    counts[isRtcp ? 'rtcp' : 'rtp'] += 1;
    const clear = Buffer.concat([frame.subarray(0, udp + UDP_BYTES), opened]);
    clear.writeUInt16BE(clear.length - ETHERNET_BYTES, ETHERNET_BYTES + 2);
    if (isRtcp) clear.writeUInt16BE(port + 1, udp + (isOurs ? 0 : 2));
    clear.writeUInt16BE(UDP_BYTES + opened.length, udp + 4);
    clear.writeUInt16BE(0, udp + 6);
    const header = Buffer.from(record);
    header.writeUInt32LE(clear.length, 8);
    header.writeUInt32LE(clear.length, 12);
    written.push(header, clear);
  }
  writeFileSync(output, Buffer.concat(written));
  return counts;
}
