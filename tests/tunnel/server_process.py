"""tunnel_tool, the tunnel's server as a program, driven by a test."""
import json
import os
import pathlib
import subprocess
import threading

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("AMBIENT_BUILD", REPOSITORY / "build"))


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
