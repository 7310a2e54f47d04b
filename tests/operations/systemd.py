"""The unit under a real systemd, which boots in a container of its own: installed, started, reloaded,
watched, restarted and drained.

Run as: systemd.py ROOT DEB. ROOT is a Debian with systemd, DEB the package. Needs root, systemd-nspawn.
"""

import ctypes
import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import signalling

ROOT, DEB = sys.argv[1:3]
# Nothing here takes a third of it, unless it does not happen at all.
DEADLINE = 90.0
CLONE_NEWNET = 0x40000000
PR_SET_PDEATHSIG = 1


class Machine:
    """Debian with systemd as its process 1, without a way to any network."""

    def __init__(self):
        command = ["systemd-nspawn", "--quiet", "-D", ROOT, "--register=no", "--private-network",
                   "--capability=all", "--console=pipe"]
        if not os.path.isdir("/run/systemd/system"):
            command.append("--keep-unit")
        command += ["--boot", "systemd.unit=multi-user.target"]
        # The unit's own filter is what is tried here.
        libc = ctypes.CDLL(None, use_errno=True)
        self.nspawn = subprocess.Popen(
            command, env={**os.environ, "SYSTEMD_SECCOMP": "0"}, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            # However this process ends, the container ends with it.
            preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL))
        until("systemd runs", lambda: self.leader() and self.try_to(
            "systemctl", "is-system-running").stdout.strip() in ("running", "degraded"))
        with open(f"/proc/{self.leader()}/ns/net", "rb") as file:
            assert libc.setns(file.fileno(), CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())

    def leader(self):
        """Its process 1, as seen from here."""
        assert self.nspawn.poll() is None, "systemd-nspawn has ended"
        with open(f"/proc/{self.nspawn.pid}/task/{self.nspawn.pid}/children", encoding="ascii") as file:
            children = file.read().split()
        return int(children[0]) if children else None

    def try_to(self, *command):
        """Runs a command inside."""
        inside = ["nsenter", "-t", str(self.leader()), "-m", "-p", "-u", "-i", "-n", "-C", "--root",
                  "--wd=/", "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", *command]
        return subprocess.run(inside, capture_output=True, text=True, timeout=DEADLINE, check=False)

    def run(self, *command):
        """As `try_to`, and it must go well."""
        done = self.try_to(*command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}\n{self.log()}"
        return done.stdout.strip()

    def log(self):
        """What corelay and systemd said of it."""
        return self.try_to("journalctl", "--no-pager", "-u", "corelay", "-n", "40").stdout

    def fields(self):
        """The same with all fields."""
        return self.try_to("journalctl", "--no-pager", "-u", "corelay", "-o", "verbose").stdout

    def shows(self, name):
        """A property of the unit."""
        return self.run("systemctl", "show", "corelay", "-P", name)

    def process(self):
        """The main process, as seen from here."""
        inside = self.shows("MainPID")
        for entry in os.listdir("/proc"):
            if entry.isdigit():
                try:
                    with open(f"/proc/{entry}/status", encoding="utf-8") as file:
                        numbers = next(line for line in file if line.startswith("NSpid:")).split()[1:]
                except OSError:
                    continue
                if len(numbers) == 2 and numbers[1] == inside and is_child(entry, self.leader()):
                    return int(entry)
        raise AssertionError(f"no process {inside}")

    def end(self):
        """Powers it off."""
        self.try_to("systemctl", "poweroff", "--force")
        try:
            self.nspawn.wait(20)
        except subprocess.TimeoutExpired:
            self.nspawn.kill()
            self.nspawn.wait()


def is_child(process, parent):
    """Whether a process is the child of another."""
    with open(f"/proc/{process}/stat", encoding="utf-8") as file:
        return int(file.read().rpartition(") ")[2].split()[1]) == parent


def until(what, holds):
    """Asks until it holds."""
    end = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < end, f"not in time: {what}"
        time.sleep(0.1)


def get(path):
    """The status of an answer; 0 while nobody answers."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:8080{path}", timeout=DEADLINE) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def write(path, text):
    """A file inside."""
    path = os.path.join(ROOT, path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


def started(machine):
    """`apt install` has started it; systemd knows that it is ready."""
    machine.run("dpkg", "--install", "/corelay.deb")
    machine.run("systemctl", "start", "corelay")
    assert machine.shows("ActiveState") == "active"
    assert get("/readyz") == 200
    status = open(f"/proc/{machine.process()}/status", encoding="utf-8").read()
    # CAP_SYS_NICE is 23, CAP_BPF 39.
    assert f"CapEff:\t{1 << 23 | 1 << 39:016x}" in status, status
    assert "NoNewPrivs:\t1" in status and "Seccomp:\t2" in status, status
    assert "steering eBPF" in machine.log(), machine.log()


def reloaded(machine):
    """A reload takes what can change and a secret out of a credential; a mistake changes nothing."""
    path = os.path.join(ROOT, "etc/corelay/webrtc.yaml")
    with open(path, encoding="utf-8") as file:
        before = file.read()
    assert "max_rooms: 1000\n" in before
    with open(path, "w", encoding="utf-8") as file:
        file.write(before.replace("max_rooms: 1000\n", "max_rooms: 7\n"))
    machine.run("systemctl", "reload", "corelay")
    # In the line that an operator reads, and as a field that can be asked for.
    until("the change is told", lambda: "read again changed=rooms.max_rooms" in machine.log())
    assert "F_CHANGED=rooms.max_rooms\n" in machine.fields(), machine.fields()
    with open(path, "w", encoding="utf-8") as file:
        file.write(before.replace("max_rooms:", "max_romms:"))
    machine.run("systemctl", "reload", "corelay")
    until("the mistake is told", lambda: "Did you mean" in machine.log())
    assert machine.shows("ActiveState") == "active" and get("/readyz") == 200
    # At a start the mistake is final: trying again does not mend it.
    assert machine.try_to("systemctl", "restart", "corelay").returncode != 0
    until("it has failed", lambda: machine.shows("ActiveState") == "failed")
    assert machine.shows("ExecMainStatus") == "2", machine.log()
    with open(path, "w", encoding="utf-8") as file:
        file.write(before.replace("require_auth: false", "require_auth: true"))
    write("etc/corelay/credentials/security.token_secret", "a-secret-that-only-root-may-read-here")
    machine.run("systemctl", "start", "corelay")
    assert get("/api/rooms") == 401
    with open(path, "w", encoding="utf-8") as file:
        file.write(before)
    machine.run("systemctl", "restart", "corelay")
    assert get("/api/rooms") == 200


def restarted(machine):
    """A process that is killed, or a thread of which stands still, is replaced."""
    machine.run("systemctl", "reset-failed", "corelay")
    write("etc/systemd/system/corelay.service.d/test.conf", "[Service]\nWatchdogSec=5\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "restart", "corelay")
    for count, name in ((1, "KILL"), (2, "STOP")):
        process = machine.process()
        tasks = [int(task) for task in os.listdir(f"/proc/{process}/task")]
        os.kill(max(tasks) if name == "STOP" else process, signal.Signals["SIG" + name])
        until(f"{name}: it is restarted", lambda: machine.shows("NRestarts") == str(count))
        until(f"{name}: it serves again", lambda: get("/readyz") == 200)
    assert "Watchdog timeout" in machine.log(), machine.log()


def drained(machine):
    """`systemctl stop` lets a call end by itself, however long systemd waits for others."""
    write("etc/systemd/system/corelay.service.d/test.conf", "[Service]\nTimeoutStopSec=3\n")
    machine.run("systemctl", "daemon-reload")
    stream, _ = signalling.join(8080, "room", DEADLINE)
    machine.run("systemctl", "stop", "--no-block", "corelay")
    began = time.monotonic()
    until("it drains", lambda: get("/readyz") == 503)
    until("systemd would have killed it", lambda: time.monotonic() > began + 5)
    assert machine.shows("ActiveState") == "deactivating" and get("/livez") == 200
    signalling.say(stream, {"type": "leave"})
    until("it has stopped", lambda: machine.shows("ActiveState") == "inactive")
    assert machine.shows("Result") == "success", machine.log()
    assert "drained: ending" in machine.log(), machine.log()


def main():
    shutil.copy(DEB, os.path.join(ROOT, "corelay.deb"))
    machine = Machine()
    try:
        for step in (started, reloaded, restarted, drained):
            began = time.monotonic()
            try:
                step(machine)
            except AssertionError:
                print(machine.log())
                raise
            print(f"ok      {step.__name__} ({time.monotonic() - began:.1f} s): {step.__doc__}")
    finally:
        machine.end()


main()
