#!/usr/bin/env python3
"""How long a `ping` takes while the signalling thread is busy and media runs.

    bench/signalling.py [BINARY]

Starts the server, opens WebSockets that do nothing (--idle), lets one participant be watched by others
(--viewers, by corelay-load from beside the server, or --load), then, for --seconds, lets others
come, join a room, be told so and leave (--joins a second), and meanwhile asks for a pong, over and over,
on sockets of their own (--pingers). Prints the time from ping to pong in percentiles, the packets that
were forwarded, the CPU time of the server's threads and of this program, how long they waited for a core,
and ends with 1 when the 99th percentile is above --most milliseconds, or when no media ran. Where the
wait for a core is long, others use the machine, and the percentiles say little. Needs Python 3.9 and
nothing else.
"""

import argparse
import asyncio
import base64
import json
import multiprocessing
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import time
import urllib.request


class Socket:
    """One WebSocket (RFC 6455), as far as this needs one: unfragmented text."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, host, port):
        reader, writer = await asyncio.open_connection(host, port)
        key = base64.b64encode(os.urandom(16)).decode()
        writer.write(
            f"GET /ws HTTP/1.1\r\nHost: {host}:{port}\r\nConnection: Upgrade\r\n"
            f"Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {key}\r\n\r\n".encode()
        )
        head = await reader.readuntil(b"\r\n\r\n")
        if b" 101 " not in head:
            raise RuntimeError(head.decode())
        return cls(reader, writer)

    def send(self, message):
        self.frame(1, json.dumps(message).encode())

    def frame(self, opcode, data):
        mask = os.urandom(4)
        length = len(data)
        size = struct.pack("!B", 128 | length) if length < 126 else struct.pack("!BH", 254, length)
        masked = bytes(byte ^ mask[i % 4] for i, byte in enumerate(data))
        self.writer.write(bytes([128 | opcode]) + size + mask + masked)

    async def next(self):
        while True:
            first, size = await self.reader.readexactly(2)
            if size == 126:
                (size,) = struct.unpack("!H", await self.reader.readexactly(2))
            elif size == 127:
                (size,) = struct.unpack("!Q", await self.reader.readexactly(8))
            data = await self.reader.readexactly(size)
            if first & 15 == 9:
                self.frame(10, data)
            elif first & 15 == 8:
                raise ConnectionError("closed")
            elif first & 15 == 1:
                return json.loads(data)

    async def until(self, kind):
        while True:
            message = await self.next()
            if message["type"] == kind:
                return message
            if message["type"] == "error":
                raise RuntimeError(message)

    def close(self):
        self.frame(8, struct.pack("!H", 1000))
        self.writer.close()


async def come_and_go(host, port, room, done):
    began = time.perf_counter()
    socket = await Socket.open(host, port)
    await socket.until("connected")
    socket.send({"type": "join", "roomId": room})
    await socket.until("joined")
    done.append(time.perf_counter() - began)
    socket.send({"type": "leave"})
    socket.close()


async def ping(host, port, until, took):
    socket = await Socket.open(host, port)
    await socket.until("connected")
    while time.perf_counter() < until:
        began = time.perf_counter()
        socket.send({"type": "ping"})
        await socket.until("pong")
        took.append(time.perf_counter() - began)
        await asyncio.sleep(0.05)
    socket.close()


def ping_all(options, host, port, sender):
    took = []

    async def run():
        until = time.perf_counter() + options.seconds
        await asyncio.gather(*(ping(host, port, until, took) for _ in range(options.pingers)))

    asyncio.run(run())
    sender.send(took)


async def answer_pings(socket):
    try:
        while True:
            await socket.next()
    except (ConnectionError, asyncio.IncompleteReadError):
        pass


async def measure(options, host, port, pid):
    idle = []
    for _ in range(options.idle):
        socket = await Socket.open(host, port)
        idle.append(asyncio.create_task(answer_pings(socket)))
    print(f"{len(idle)} idle WebSockets are open")
    load = await start_load(options, host, port)
    before, own, media = cpu(pid), own_cpu(), media_cpu(pid)
    forwarded = counted(host, port, "forwarded") if load else 0
    waited, own_waited = waiting(pid), waiting(os.getpid())
    start = time.perf_counter()
    until = start + options.seconds
    joined = []
    # A process of its own: what the guests cost this one must not show in the answers' time.
    receiver, sender = multiprocessing.Pipe(duplex=False)
    pinger = multiprocessing.Process(target=ping_all, args=(options, host, port, sender))
    pinger.start()
    guests, number = set(), 0
    while time.perf_counter() < until:
        # As many as are due by now: a late tick must not lower the rate.
        while number < (time.perf_counter() - start) * options.joins:
            # Rooms of ten or so, made and emptied all the time.
            room = f"r{number // 10}"
            task = asyncio.create_task(come_and_go(host, port, room, joined))
            guests.add(task)
            task.add_done_callback(guests.discard)
            number += 1
        await asyncio.sleep(0.002)
    await asyncio.gather(*guests)
    spent = time.perf_counter() - start
    forwarded = counted(host, port, "forwarded") - forwarded if load else 0
    took = receiver.recv()
    pinger.join()
    for task in idle:
        task.cancel()
    print(f"{len(joined) / spent:.0f} joins/s ({len(joined)} of {number}), in ms:", percentiles(joined))
    print(f"{len(took)} pings, in ms:", percentiles(took))
    print(
        f"CPU: signalling thread {(cpu(pid) - before) / spent:.0%} of a core, "
        f"media thread {(media_cpu(pid) - media) / spent:.0%}, "
        f"this program {(own_cpu() - own) / spent:.0%}"
    )
    print(
        f"Waiting for a core that others have: signalling thread {(waiting(pid) - waited) / spent:.0%} of the "
        f"time, this program {(waiting(os.getpid()) - own_waited) / spent:.0%}"
    )
    if load:
        print(f"Media: {forwarded / spent:.0f} packets/s forwarded to {options.viewers} viewers")
        if load.poll() is not None or forwarded == 0:
            sys.exit("corelay-load ended too early, or nothing was forwarded")
        load.kill()
        load.wait()
    return percentile(took, 99) * 1000


async def start_load(options, host, port):
    """Media from one to many, until it is killed; `None` when there shall be none."""
    if options.viewers == 0:
        return None
    beside = os.path.join(os.path.dirname(options.binary), "corelay-load")
    load = subprocess.Popen(
        [options.load or beside, "--url", f"ws://{host}:{port}/ws", "--publishers", "1"]
        + ["--subscribers", str(options.viewers), "--duration", str(int(options.seconds) + 600)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.perf_counter() + 60
        # Everyone watches: one packet that came in went out so often.
        while counted(host, port, "subscriptions") < options.viewers or counted(host, port, "forwarded") == 0:
            if load.poll() is not None or time.perf_counter() > deadline:
                sys.exit("corelay-load sends no media")
            await asyncio.sleep(0.2)
    except BaseException:
        load.kill()
        raise
    return load


def counted(host, port, name):
    with urllib.request.urlopen(f"http://{host}:{port}/api/stats", timeout=30) as answer:
        return json.load(answer)["totals"]["engine"][name]


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, len(values) * share // 100)]


def percentiles(values):
    return "  ".join(f"p{share} {percentile(values, share) * 1000:.1f}" for share in (50, 90, 99, 100))


def cpu(pid):
    """CPU seconds of the thread that runs `main`, which is the one that signals."""
    fields = open(f"/proc/{pid}/task/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def media_cpu(pid):
    """CPU seconds of all other threads, of which the shard is by far the busiest."""
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK") - cpu(pid)


def waiting(pid):
    """Seconds that its main thread could have run and had no core: the machine's fault."""
    return int(open(f"/proc/{pid}/task/{pid}/schedstat").read().split()[1]) / 1e9


def own_cpu():
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("binary", nargs="?", default="target/release/corelay")
    parser.add_argument("--idle", type=int, default=2000)
    parser.add_argument("--joins", type=int, default=200, help="a second")
    parser.add_argument("--pingers", type=int, default=20)
    parser.add_argument("--viewers", type=int, default=20, help="of one publisher; 0 for no media")
    parser.add_argument("--load", help="corelay-load, where it is not beside the server")
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--most", type=float, default=50, help="milliseconds, at the 99th percentile")
    options = parser.parse_args()
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))
    server = subprocess.Popen(
        [options.binary, "serve", "--http", "127.0.0.1:0", "--udp", "127.0.0.1:0", "--shards", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        port = None
        for line in server.stdout:
            found = re.search(r"http://localhost:(\d+)", line)
            port = int(found[1]) if found else port
            if "Ctrl-C" in line:
                break
        if port is None:
            sys.exit(f"{options.binary} did not start")
        p99 = asyncio.run(measure(options, "127.0.0.1", port, server.pid))
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(10)
    if p99 > options.most:
        sys.exit(f"the 99th percentile is {p99:.1f} ms, above {options.most:.0f}")


if __name__ == "__main__":
    main()
