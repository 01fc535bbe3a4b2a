"""host_tool, the rooms of installer/host for tests, and a node's directories."""
import contextlib
import json
import os
import pathlib
import select
import shutil
import subprocess
import time

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("AMBIENT_BUILD", REPOSITORY / "build"))
TOOL = BUILD / "tests" / "host_tool"
PLUGIN = BUILD / "ambient-cni"
PATIENCE = 20


class Host:
    """The directories of one node, and host_tool on them."""

    def __init__(self, folder, bin_dir="opt/cni/bin", conf_dir="etc/cni/net.d", make=True):
        self.folder = folder
        self.bin_dir = folder / bin_dir
        self.conf_dir = folder / conf_dir
        self.source = folder / "source"
        self.results = folder / "var/lib/cni/results"
        self.source.mkdir(parents=True)
        self.results.parent.mkdir(parents=True)
        shutil.copy(PLUGIN, self.source / "ambient-cni")
        if make:
            self.bin_dir.mkdir(parents=True)
            self.conf_dir.mkdir(parents=True)
        self.options = {"bin_dir": str(self.bin_dir), "conf_dir": str(self.conf_dir), "bin_source": str(self.source),
                        "results_dir": str(self.results), "plugin": {"enrollment": "installer", "runDir": "/run/x"}}

    def command(self, verb, **options):
        return [str(TOOL), verb, json.dumps({**self.options, **options})]

    def run(self, verb, wrapper=(), check=True, **options):
        done = subprocess.run([*wrapper, *self.command(verb, **options)], capture_output=True, text=True, check=False, timeout=120)
        if check:
            assert done.returncode == 0, done.stderr + done.stdout
        return done

    def install(self, wrapper=(), **options):
        """The state, with what was told on the way under `events`."""
        lines = [json.loads(line) for line in self.run("install", wrapper, **options).stdout.splitlines()]
        return {**lines[-1], "events": [line for line in lines if "event" in line]}

    def uninstall(self, **options):
        return json.loads(self.run("uninstall", **options).stdout)

    def choose(self):
        done = subprocess.run([str(TOOL), "choose", str(self.conf_dir)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def write(self, name, content):
        """As most agents do it: beside, then renamed."""
        path = self.conf_dir / name
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(path.name + ".tmp")
        temporary.write_text(content if isinstance(content, str) else json.dumps(content))
        temporary.chmod(0o644)
        temporary.rename(path)

    def read(self, name):
        return json.loads((self.conf_dir / name).read_text())

    def names(self):
        return sorted(path.name for path in self.conf_dir.iterdir())

    def types(self, name):
        return [plugin["type"] for plugin in self.read(name)["plugins"]]

    @contextlib.contextmanager
    def watch(self, **options):
        watcher = Watcher(self.command("watch", **options))
        try:
            yield watcher
        finally:
            watcher.stop()


class Watcher:
    """A running keeper; its lines are read as they come."""

    def __init__(self, command):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.states, self.events = [], []
        self.rest = b""

    @property
    def state(self):
        return self.states[-1] if self.states else None

    def read(self, patience):
        """Takes in what comes within that time; False when nothing did."""
        if not select.select([self.process.stdout], [], [], patience)[0]:
            return False
        data = os.read(self.process.stdout.fileno(), 65536)
        assert data, f"the keeper has ended: {self.process.stderr.read().decode()}"
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            line = json.loads(line)
            (self.events if "event" in line else self.states).append(line)
        return True

    def wait(self, condition, what, patience=PATIENCE):
        """Until `condition()` holds, looked at after each line and every few milliseconds."""
        deadline = time.monotonic() + patience
        while not condition():
            assert time.monotonic() < deadline, f"{what} did not happen; state {self.state}, events {self.events}"
            self.read(0.01)
        return self.state

    def wait_ready(self):
        return self.wait(lambda: self.state and self.state["ready"], "ready")

    def wait_reason(self, part):
        return self.wait(lambda: self.state and not self.state["ready"] and part in self.state["reason"], f"reason {part!r}")

    def wait_event(self, reason):
        self.wait(lambda: any(event["event"] == reason for event in self.events), f"event {reason}")
        return next(event for event in self.events if event["event"] == reason)

    def stop(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            try:
                self.process.wait(10)
            except subprocess.TimeoutExpired:
                self.process.kill()
                raise
        text = self.process.stderr.read().decode()
        self.process.stdout.close()
        self.process.stderr.close()
        assert self.process.returncode == 0, text
