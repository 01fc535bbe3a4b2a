"""A double of the API server, and the Kubernetes source as a program (tests/tools/kube_tool.c) that talks to it."""
import json
import os
import pathlib
import queue
import subprocess
import sys
import threading
import time

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests" / "peers"))
from api_server import ApiServer  # noqa: E402

BUILD = pathlib.Path(os.environ.get("AMBIENT_BUILD", REPOSITORY / "build"))
TOOL = BUILD / "tests" / "kube_tool"
SECONDS = 15


class Tool:
    def __init__(self, *arguments, **changes):
        options = {"node": "a", "backoff": 100, **changes}
        for key, value in options.items():
            if value is not None:
                arguments += ("--" + key.replace("_", "-"), str(value))
        self.process = subprocess.Popen([str(TOOL), *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True)
        self.lines = []     # everything that was printed
        self.errors = []
        self.arrived = queue.Queue()
        self.numbers = 0
        self.threads = [threading.Thread(target=self._read, daemon=True), threading.Thread(target=self._read_errors, daemon=True)]
        for thread in self.threads:
            thread.start()

    def _read(self):
        for line in self.process.stdout:
            value = json.loads(line)
            self.lines.append(value)
            self.arrived.put(value)
        self.arrived.put(None)

    def _read_errors(self):
        for line in self.process.stderr:
            self.errors.append(line)

    def next(self, seconds=SECONDS, **wanted):
        """The next line that has these values; those before it are passed over."""
        end = time.monotonic() + seconds
        passed = []
        while True:
            try:
                line = self.arrived.get(timeout=max(0, end - time.monotonic()))
            except queue.Empty:
                line = None
            assert line is not None, f"never came: {wanted}; but: {passed[-20:]}; {self.errors[-20:]}"
            assert not ("outcome" in wanted and line.get("outcome", wanted["outcome"]) != wanted["outcome"]), line
            if all(line.get(key, ...) == value for key, value in wanted.items()):
                line["before"] = passed
                return line
            passed.append(line)

    def put(self, kind, name, **more):
        while True:
            line = self.next(told="put", kind=kind, **more)
            if line["metadata"]["name"] == name:
                return line

    def synced(self):
        """Both lists are finished."""
        finished = set()
        while finished != {"pod", "namespace"}:
            finished.add(self.next(told="list_finished")["kind"])

    def start(self, verb, **arguments):
        self.numbers += 1
        self.process.stdin.write(json.dumps({"do": verb, "id": self.numbers, **arguments}) + "\n")
        self.process.stdin.flush()
        return self.numbers

    def ask(self, verb, **arguments):
        return self.next(answer=self.start(verb, **arguments))

    def statistics(self):
        self.start("statistics")
        return self.next(statistics=True)

    def told(self, kind):
        return [line["told"] for line in self.lines if line.get("kind") == kind]

    def stop(self):
        if self.process.poll() is None:
            try:
                self.start("quit")
            except OSError:
                pass
        status = self.process.wait(timeout=20)
        for thread in self.threads:
            thread.join(timeout=5)
        assert status == 0, (status, self.errors[-40:])


@pytest.fixture
def server(tmp_path):
    with ApiServer(tmp_path / "server") as server:
        yield server
        server.check()


@pytest.fixture
def start(server, tmp_path):
    """Starts the tool with a kubeconfig for the server; it must end well."""
    tools = []

    def start_tool(**options):
        options.setdefault("kubeconfig", tmp_path / "kubeconfig")
        if options["kubeconfig"] and not pathlib.Path(options["kubeconfig"]).exists():
            server.write_kubeconfig(options["kubeconfig"])
        tools.append(Tool(**options))
        return tools[-1]

    yield start_tool
    for tool in tools:
        tool.stop()
