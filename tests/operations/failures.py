"""What the server does in each failure that docs/operations.md lists; each row has its test here.

Run as: failures.py BINARY SCRATCH [ROW...]. Needs root (ptrace, cgroups are not used), libfaketime, Linux.
"""

import ctypes
import glob
import json
import os
import re
import resource
import signal
import socket
import ssl
import subprocess
import sys
import time
import traceback
import urllib.error
import urllib.request

import signalling

BINARY, SCRATCH = sys.argv[1:3]
# Nothing here takes a third of it, unless it does not happen at all.
DEADLINE = 40.0
[FAKETIME] = glob.glob("/usr/lib/*/faketime/libfaketime.so.1")


class Server:
    """The real binary, watched as systemd would."""

    # Those whose test did not come to its end as well.
    started = []

    def __init__(self, *arguments, env=None, limits=None, out=None, ports=None, metrics="off",
                 shards=2):
        self.path = os.path.join(SCRATCH, "notify")
        if os.path.exists(self.path):
            os.unlink(self.path)
        self.systemd = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.systemd.bind(self.path)
        http, udp = ports or (free(socket.SOCK_STREAM), free(socket.SOCK_DGRAM))
        self.http, self.ports = http, (http, udp)
        self.log = open(os.path.join(SCRATCH, "failures.log"), "w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [BINARY, "--http", f"127.0.0.1:{http}", "--udp", f"127.0.0.1:{udp}", "--metrics", metrics,
             "--shards", str(shards), "--driver", "epoll", *arguments],
            env={**os.environ, "NOTIFY_SOCKET": self.path, **(env or {})},
            stdout=out or subprocess.DEVNULL, stderr=out or self.log,
            preexec_fn=limits,
        )
        self.started.append(self.process)
        assert self.told("READY=1"), self.text()

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

    def says(self, text, times=1):
        """Waits until the log has this so many times."""
        end = time.monotonic() + DEADLINE
        while self.text().count(text) < times:
            assert time.monotonic() < end, f"no {text!r}: {self.text()}"
            time.sleep(0.05)

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
    return signalling.join(server.http, room, DEADLINE)


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
    server.says("cannot accept a connection")
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
    """No PostgreSQL for the call log, no collector of traces: ready and taking calls all the same."""
    dead = free(socket.SOCK_STREAM)
    server = Server(env={
        "CORELAY_LOG_OTLP": f"http://127.0.0.1:{dead}/v1/traces",
        "CORELAY_CALL_LOG_URL": f"postgres://nobody:nothing@127.0.0.1:{dead}/none"})
    server.says("call log")
    join(server, "room")[0].close()
    assert server.get("/readyz")[0] == 200 and server.get("/livez")[0] == 200
    assert "nothing@" not in server.text(), "the password is logged"
    server.end()


def turn_down():
    """The TURN server is down: clients are given its address and credentials, and join."""
    dead = free(socket.SOCK_DGRAM)
    path = os.path.join(SCRATCH, "turn.yaml")
    with open(path, "w", encoding="utf-8") as file:
        file.write(f"webrtc: {{turn: {{urls: ['turn:127.0.0.1:{dead}'], secret: 'coturn has it'}}}}\n")
    server = Server("--config", path)
    join(server, "room")[0].close()
    assert server.get("/readyz")[0] == 200
    server.end()
    doctor = subprocess.run([BINARY, "doctor", "--config", path], capture_output=True, text=True,
                            check=False, timeout=DEADLINE)
    [line] = [line for line in doctor.stdout.splitlines() if f"turn:127.0.0.1:{dead}" in line]
    assert "does not answer" in line, doctor.stdout


def certificate_expired():
    """The certificate has expired: the log and a metric say so; a new one is taken without a restart."""
    files = {name: os.path.join(SCRATCH, f"{name}.pem") for name in ("cert", "key")}

    def make(ago):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256",
             "-nodes", "-days", "30", "-subj", "/CN=localhost", "-addext",
             "subjectAltName=DNS:localhost", "-keyout", files["key"], "-out", files["cert"]],
            env={**os.environ, "LD_PRELOAD": FAKETIME, "FAKETIME": ago}, check=True,
            capture_output=True, timeout=DEADLINE)

    make("-40d")
    metrics = free(socket.SOCK_STREAM)
    server = Server(
        env={"CORELAY_SERVER_TLS_CERT": files["cert"], "CORELAY_SERVER_TLS_KEY": files["key"]},
        metrics=f"127.0.0.1:{metrics}")
    server.says("the certificate does not hold any more")

    def expires():
        text = scrape(metrics)
        return float(re.search(r"^corelay_certificate_expires_timestamp_seconds (.*)$", text,
                               re.M)[1])

    def is_trusted():
        trust = ssl.create_default_context(cafile=files["cert"])
        try:
            with socket.create_connection(("127.0.0.1", server.http), DEADLINE) as stream:
                with trust.wrap_socket(stream, server_hostname="localhost"):
                    return True
        except ssl.SSLCertVerificationError as error:
            assert "expired" in str(error), error
            return False

    assert expires() < time.time() and not is_trusted()
    make("-1d")
    server.process.send_signal(signal.SIGHUP)
    server.says("the certificate was read again")
    assert expires() > time.time() and is_trusted()
    server.end()


def scrape(port):
    """What Prometheus would read."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=DEADLINE) as answer:
        return answer.read().decode()


def signals_at_once():
    """A signal that comes with the first word of the server ends nothing it should not end."""
    run = subprocess.Popen(
        [BINARY, "--http", "127.0.0.1:0", "--udp", "127.0.0.1:0", "--metrics", "off", "--shards",
         "2", "--driver", "epoll"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert run.stdout.readline()
    with open(f"/proc/{run.pid}/status", encoding="utf-8") as file:
        caught = int(re.search(r"^SigCgt:\s*(\w+)$", file.read(), re.M)[1], 16)
    for number in (signal.SIGHUP, signal.SIGINT, signal.SIGTERM):
        assert caught >> (number - 1) & 1, f"{number!r} is not caught"
    run.send_signal(signal.SIGHUP)
    # It ends when the server does, read or not.
    assert any(b"read again" in line for line in run.stderr)
    run.send_signal(signal.SIGTERM)
    assert run.wait(DEADLINE) == 0


ROWS = [killed_with_9, stopped, one_shard_wedged, full_disk, clock_step,
        starved_of_files, too_few_files_to_start, backends_down, turn_down, certificate_expired,
        signals_at_once]

failed = 0
wanted = sys.argv[3:]
for row in (row for row in ROWS if not wanted or row.__name__ in wanted):
    began = time.monotonic()
    try:
        row()
        print(f"ok      {row.__name__} ({time.monotonic() - began:.1f} s): {row.__doc__}")
    except Exception as error:  # noqa: BLE001 - each row is told of
        failed += 1
        print(f"FAILED  {row.__name__}: {error!r}")
        traceback.print_exc(file=sys.stdout)
    for process in Server.started:
        if process.poll() is None:
            process.kill()
            process.wait()
sys.exit(failed > 0)
