"""What the tests of the tunnel's server share: the server as a program, the double, and namespaces without names."""
import ctypes
import json
import os
import pathlib
import subprocess
import sys
import threading

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("AMBIENT_BUILD", REPOSITORY / "build"))
sys.path.insert(0, str(REPOSITORY / "tests/peers"))

from tunnel import Tunnel  # noqa: E402

CLONE_NEWNET = 0x40000000


class Server:
    """tunnel_tool, its events as they come."""

    def __init__(self, path, **limits):
        self.path = path
        self.log = open(f"{path}.log", "a+")
        self.process = subprocess.Popen([BUILD / "tests/tunnel_tool", path, *(f"{key}={value}" for key, value in limits.items())],
                                        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True)
        self.events = []
        self.changed = threading.Condition()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()
        self.wait(lambda: self.events)

    def read(self):
        for line in self.process.stdout:
            with self.changed:
                self.events.append(json.loads(line))
                self.changed.notify_all()

    def wait(self, condition, seconds=15):
        with self.changed:
            assert self.changed.wait_for(condition, seconds), (self.events[-20:], self.log_text()[-3000:])

    def log_text(self):
        return pathlib.Path(f"{self.path}.log").read_text()

    def wait_log(self, text, seconds=15):
        self.wait(lambda: True)
        event = threading.Event()
        for _ in range(int(seconds * 50)):
            if text in self.log_text():
                return
            event.wait(0.02)
        raise AssertionError((text, self.log_text()))

    def say(self, *lines):
        self.process.stdin.write("".join(line + "\n" for line in lines))
        self.process.stdin.flush()

    def ask(self, command):
        before = len([event for event in self.events if event["event"] == command])
        self.say(command)
        self.wait(lambda: len([event for event in self.events if event["event"] == command]) > before)
        return [event for event in self.events if event["event"] == command][-1]

    def answers(self, uid=None, kind=None):
        return [event for event in self.events if event["event"] == "answered" and uid in (None, event["uid"])
                and kind in (None, event["kind"])]

    def outcomes(self, uid, kind):
        return [event["outcome"] for event in self.answers(uid, kind)]

    def wait_outcome(self, uid, kind, outcome, count=1):
        self.wait(lambda: len(self.outcomes(uid, kind)) >= count)
        assert self.outcomes(uid, kind)[-1] == outcome, self.answers(uid)
        return self.answers(uid, kind)[-1]

    def count(self, event):
        return len([one for one in self.events if one["event"] == event])

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    def stop(self):
        if self.process.poll() is None:
            self.process.stdin.close()
        status = self.process.wait(20)
        self.reader.join(5)
        self.log.close()
        assert status == 0, self.log_text()[-6000:]


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "run" / "ztunnel.sock")


@pytest.fixture
def start(path):
    servers = []

    def start_server(ready=True, **limits):
        servers.append(Server(path, **{"accepts": 1000, **limits}))
        if ready:
            servers[-1].say("ready 1")
        return servers[-1]

    os.makedirs(os.path.dirname(path), exist_ok=True)
    yield start_server
    for server in servers:
        server.stop()


@pytest.fixture
def server(start):
    return start()


@pytest.fixture
def new_tunnel(path):
    tunnels = []

    def make(**options):
        tunnels.append(Tunnel(path, **options).start())
        return tunnels[-1]

    yield make
    for tunnel in tunnels:
        tunnel.stop()
    for tunnel in tunnels:
        tunnel.check()


@pytest.fixture
def tunnel(server, new_tunnel):
    """One that is connected and has its (empty) snapshot."""
    made = new_tunnel()
    made.wait(lambda: made.is_ready)
    return made


@pytest.fixture
def new_namespace():
    """Paths of fresh network namespaces, held by descriptors of this process."""
    libc = ctypes.CDLL(None, use_errno=True)
    held = []

    def make():
        result = []

        def unshare():
            assert libc.unshare(CLONE_NEWNET) == 0
            result.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))

        thread = threading.Thread(target=unshare)
        thread.start()
        thread.join()
        held.extend(result)
        return f"/proc/{os.getpid()}/fd/{result[0]}"

    yield make
    for descriptor in held:
        os.close(descriptor)
