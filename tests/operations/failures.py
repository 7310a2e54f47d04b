"""What the server does in each failure that docs/operations.md lists; each row has its test here.

Run as: failures.py BINARY SCRATCH. Needs root (ptrace, cgroups are not used), libfaketime, Linux.
"""

import ctypes
import glob
import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

BINARY, SCRATCH = sys.argv[1:3]
# Nothing here takes a third of it, unless it does not happen at all.
DEADLINE = 40.0
[FAKETIME] = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")


class Server:
    """The real binary, watched as systemd would."""

    def __init__(self, *arguments, env=None, limits=None, out=None, ports=None):
        self.path = os.path.join(SCRATCH, "notify")
        if os.path.exists(self.path):
            os.unlink(self.path)
        self.systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.systemd.bind(self.path)
        http, udp = ports or (free(socket.SOCK_STREAM), free(socket.SOCK_DGRAM))
        self.http, self.ports = http, (http, udp)
        self.log = open(os.path.join(SCRATCH, "failures.log"), "w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [BINARY, "--http", f"127.0.0.1:{http}", "--udp", f"127.0.0.1:{udp}", "--metrics", "off",
             "--shards", "2", "--driver", "epoll", *arguments],
            env={**os.environ, "NOTIFY_SOCKET": self.path, **(env or {})},
            stdout=out or subprocess.DEVNULL, stderr=out or self.log,
            preexec_fn=limits,
        )
        self.told("READY=1")

    def told(self, wanted, within=DEADLINE):
        """Whether systemd is told this in time."""
        end = time.monotonic() + within
        while (left := end - time.monotonic()) > 0:
            self.systemd.settimeout(left)
            try:
                if wanted in self.systemd.recv(4096).decode():
                    return True
            except TimeoutError:
                break
        return False

    def forget(self):
        """Forgets what systemd was told so far."""
        self.systemd.setblocking(False)
        try:
            while True:
                self.systemd.recv(4096)
        except BlockingIOError:
            pass

    def get(self, path, method="GET", body=None):
        """Status and body of an answer."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http}{path}", method=method, data=body,
            headers={"Content-Type": "application/json"})
        try:
            with urllib.request.urlopen(request, timeout=DEADLINE) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()

    def until(self, path, status):
        """Asks until the status is this."""
        end = time.monotonic() + DEADLINE
        while (found := self.get(path)[0]) != status:
            assert time.monotonic() < end, f"{path}: {found} and not {status}"
            time.sleep(0.05)

    def threads(self):
        """Thread ids by name."""
        tasks = f"/proc/{self.process.pid}/task"
        found = {}
        for task in os.listdir(tasks):
            with open(f"{tasks}/{task}/comm", encoding="utf-8") as file:
                found[file.read().strip()] = int(task)
        return found

    def text(self):
        """The log so far."""
        self.log.flush()
        with open(self.log.name, encoding="utf-8") as file:
            return file.read()

    def end(self, code=0):
        """Ends it, which must go well."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        found = self.process.wait(DEADLINE)
        assert found == code, f"it ended with {found}\n{self.text()}"
        self.systemd.close()


def free(kind):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def join(server, room):
    """A WebSocket in a room; returns the connection and what `joined` says."""
    stream = socket.create_connection(("127.0.0.1", server.http), DEADLINE)
    stream.sendall(
        b"GET /ws HTTP/1.1\r\nHost: l\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
    file = stream.makefile("rb")
    while file.readline() not in (b"\r\n", b""):
        pass
    text = json.dumps({"type": "join", "roomId": room}).encode()
    assert len(text) < 126
    # A mask of zeros masks nothing (RFC 6455 §5.3).
    stream.sendall(bytes([0x81, 0x80 | len(text)]) + bytes(4) + text)
    while True:
        message = receive(file)
        if message["type"] == "joined":
            return stream, message
        assert message["type"] != "error", message


def receive(file):
    """The next JSON message."""
    while True:
        head = file.read(2)
        assert len(head) == 2, "the socket has ended"
        length = head[1] & 0x7F
        if length == 126:
            length = int.from_bytes(file.read(2), "big")
        elif length == 127:
            length = int.from_bytes(file.read(8), "big")
        payload = file.read(length)
        if head[0] & 0x0F == 1:
            return json.loads(payload)


def killed_with_9():
    """kill -9: the ports are free at once, so that systemd's next start serves."""
    server = Server()
    join(server, "room")
    server.process.kill()
    server.process.wait()
    server.systemd.close()
    again = Server(ports=server.ports)
    assert join(again, "room")[1]["participants"] == []
    again.end()


def stopped():
    """-STOP: the watchdog is not fed any more; when the process goes on, it is."""
    server = Server()
    assert server.told("WATCHDOG=1")
    os.kill(server.threads()["shard-1"], signal.SIGSTOP)
    # Every thread of the process stops with that one.
    time.sleep(0.2)
    server.forget()
    assert not server.told("WATCHDOG=1", within=4)
    os.kill(server.process.pid, signal.SIGCONT)
    assert server.told("WATCHDOG=1")
    server.end()


def one_shard_wedged():
    """One shard's thread does not turn: /livez fails, the watchdog is not fed, systemd restarts."""
    server = Server()
    assert server.told("WATCHDOG=1") and server.get("/livez")[0] == 200
    libc = ctypes.CDLL(None, use_errno=True)
    seize, interrupt, detach = 0x4206, 0x4207, 17
    shard = server.threads()["shard-1"]
    assert libc.ptrace(seize, shard, None, None) == 0, os.strerror(ctypes.get_errno())
    assert libc.ptrace(interrupt, shard, None, None) == 0
    os.waitpid(shard, 0x40000000)
    server.until("/livez", 503)
    server.forget()
    assert not server.told("WATCHDOG=1", within=3), "it is fed with a shard that does not turn"
    assert "does not turn" in server.text(), server.text()
    # The other shard and the signalling thread go on meanwhile.
    assert server.get("/health")[0] == 200
    assert libc.ptrace(detach, shard, None, None) == 0
    server.until("/livez", 200)
    assert server.told("WATCHDOG=1")
    server.end()


def full_disk():
    """Nothing can be written, not even the log: the server serves."""
    with open("/dev/full", "w", encoding="utf-8") as full:
        server = Server("--log", "debug", out=full)
        join(server, "room")
        assert server.get("/readyz")[0] == 200
        server.end()


def clock_step():
    """The clock is set by a day and back: calls, health and the watchdog go on."""
    stamp = os.path.join(SCRATCH, "faketime")

    def step(offset):
        with open(stamp, "w", encoding="utf-8") as file:
            file.write(offset)

    step("+0")
    server = Server(env={
        "LD_PRELOAD": FAKETIME, "FAKETIME_TIMESTAMP_FILE": stamp, "FAKETIME_NO_CACHE": "1",
        "DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1"})
    stream, _ = join(server, "room")

    def minted():
        answer = server.get("/api/drain", "POST", b'{"seconds": 60}')[1]
        server.get("/api/drain", "DELETE")
        return json.loads(answer)["deadline"]

    before = minted()
    for offset, moved in (("+86400", 86_400), ("-86400", -86_400)):
        step(offset)
        assert abs(minted() - before - moved) < 60, "the step is not seen"
        server.forget()
        assert server.told("WATCHDOG=1") and server.told("WATCHDOG=1")
        assert server.get("/livez")[0] == 200
        assert json.loads(server.get("/health")[1])["participants"] == 1
    stream.close()
    server.end()


def starved_of_files():
    """No descriptor is left: who is there stays, newcomers wait, and all is well after."""

    def limits():
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))

    server = Server(limits=limits)
    stream, _ = join(server, "room")
    crowd = [socket.create_connection(("127.0.0.1", server.http), DEADLINE) for _ in range(80)]
    end = time.monotonic() + DEADLINE
    while "cannot accept a connection" not in server.text():
        assert time.monotonic() < end, server.text()
        time.sleep(0.05)
    assert server.process.poll() is None
    assert server.text().count("cannot accept a connection") <= 10, "the log is flooded"
    for one in crowd:
        one.close()
    server.until("/readyz", 200)
    assert json.loads(server.get("/health")[1])["participants"] == 1
    stream.close()
    server.end()


def too_few_files_to_start():
    """Fewer descriptors than a start needs: one line says so, and no half server stays."""

    def limits():
        resource.setrlimit(resource.RLIMIT_NOFILE, (10, 10))

    run = subprocess.run(
        [BINARY, "--http", "127.0.0.1:0", "--udp", "127.0.0.1:0", "--metrics", "off", "--shards",
         "4", "--driver", "epoll"],
        capture_output=True, text=True, timeout=DEADLINE, preexec_fn=limits, check=False)
    assert run.returncode == 1, run
    assert re.search(r"corelay: .*(Too many open files|os error 24)", run.stderr), run.stderr


def backends_down():
    """No database, no Redis, no collector of traces: the server is ready without any."""
    dead = free(socket.SOCK_STREAM)
    server = Server(env={"CORELAY_LOG_OTLP": f"http://127.0.0.1:{dead}/v1/traces"})
    join(server, "room")[0].close()
    assert server.get("/readyz")[0] == 200 and server.get("/livez")[0] == 200
    server.end()


ROWS = [killed_with_9, stopped, one_shard_wedged, full_disk, clock_step, starved_of_files,
        too_few_files_to_start, backends_down]

failed = 0
for row in ROWS:
    began = time.monotonic()
    try:
        row()
        print(f"ok      {row.__name__} ({time.monotonic() - began:.1f} s): {row.__doc__}")
    except Exception as error:  # noqa: BLE001 - each row is told of
        failed += 1
        print(f"FAILED  {row.__name__}: {error!r}")
sys.exit(failed > 0)
