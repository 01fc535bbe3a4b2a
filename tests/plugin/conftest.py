"""What all tests of the plugin share: namespaces of their own, a run directory each, and calls as a runtime makes them."""
import itertools
import json
import os
import pathlib
import subprocess

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("AMBIENT_BUILD", REPOSITORY / "build"))
PROGRAM = BUILD / "ambient-cni"
NETNS_FOLDER = pathlib.Path("/var/run/netns")
PREFIX = "ambient-plugin-"
numbers = itertools.count()


def ip(*arguments, check=True):
    return subprocess.run(["ip", *arguments], check=check, capture_output=True, text=True).stdout


@pytest.fixture(scope="session", autouse=True)
def sweep():
    """Namespaces that a test run left when it was killed."""
    for path in NETNS_FOLDER.glob(PREFIX + "*"):
        pid = path.name[len(PREFIX):].split("-")[0]
        if pid.isdigit() and not os.path.exists(f"/proc/{pid}"):
            ip("netns", "del", path.name, check=False)


class Namespace:
    def __init__(self):
        self.name = f"{PREFIX}{os.getpid()}-{next(numbers)}"
        self.path = str(NETNS_FOLDER / self.name)
        ip("netns", "add", self.name)
        ip("-n", self.name, "link", "set", "lo", "up")

    def run(self, *command, check=True):
        return subprocess.run(["ip", "netns", "exec", self.name, *command], check=check, capture_output=True, text=True).stdout

    def state(self):
        """Everything that a redirection changes. Counters aside, which are the packets' and not ours."""
        return (self.run("nft", "-s", "list", "ruleset"),
                ip("-n", self.name, "rule"), ip("-n", self.name, "-6", "rule"),
                ip("-n", self.name, "route", "show", "table", "all"),
                ip("-n", self.name, "-6", "route", "show", "table", "all"))

    def is_redirected(self):
        return "table inet ambient-cni" in self.state()[0]

    def remove(self):
        ip("netns", "del", self.name, check=False)


@pytest.fixture
def new_namespace():
    made = []

    def make():
        made.append(Namespace())
        return made[-1]

    yield make
    for namespace in made:
        namespace.remove()


@pytest.fixture
def pod(new_namespace):
    return new_namespace()


class Answer:
    def __init__(self, completed):
        self.status = completed.returncode
        self.stdout = completed.stdout
        self.stderr = completed.stderr

    @property
    def json(self):
        return json.loads(self.stdout)

    @property
    def code(self):
        """0, or the code of the one error object on standard output, whose form is looked at too."""
        if self.status == 0:
            return 0
        error = self.json
        assert self.status == 1 and isinstance(error["code"], int) and error["code"] != 0, self
        assert error["cniVersion"] in ("0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0") and error["msg"], self
        assert set(error) <= {"cniVersion", "code", "msg", "details"}, self
        return error["code"]

    @property
    def message(self):
        return self.json["msg"]

    def __repr__(self):
        return f"exit {self.status}\nstdout: {self.stdout}\nstderr: {self.stderr}"


class Plugin:
    """One network configuration, and calls of it."""

    def __init__(self, run_dir):
        self.run_dir = run_dir
        self.config = {"cniVersion": "1.1.0", "name": "podnet", "type": "ambient-cni", "enrollment": "always",
                       "runDir": str(run_dir), "timeoutSeconds": 2}

    def environment(self, verb, netns, container="sandbox1", interface="eth0", args=None, changes=()):
        environment = {"PATH": os.environ["PATH"], "CNI_COMMAND": verb, "CNI_CONTAINERID": container, "CNI_IFNAME": interface,
                       "CNI_PATH": str(BUILD)}
        if netns is not None:
            environment["CNI_NETNS"] = getattr(netns, "path", netns)
        if args:
            environment["CNI_ARGS"] = args
        # Sanitizers and coverage are told by the environment.
        environment.update({key: value for key, value in os.environ.items() if key.endswith("SAN_OPTIONS")})
        environment.update(changes)
        return {key: value for key, value in environment.items() if value is not None}

    def start(self, verb, netns=None, wrapper=(), text=None, stdout=subprocess.PIPE, **more):
        config = dict(self.config, **more.pop("config", {}))
        if text is None:
            text = json.dumps({key: value for key, value in config.items() if value is not ...})
        process = subprocess.Popen([*wrapper, str(PROGRAM)], stdin=subprocess.PIPE, stdout=stdout, stderr=subprocess.PIPE,
                                   env=self.environment(verb, netns, **more))
        process.text = text.encode() if isinstance(text, str) else text
        return process

    @staticmethod
    def finish(process):
        stdout, stderr = process.communicate(process.text, timeout=60)
        return Answer(subprocess.CompletedProcess(process.args, process.returncode, (stdout or b"").decode(),
                                                  stderr.decode(errors="replace")))

    def call(self, verb, netns=None, **more):
        return self.finish(self.start(verb, netns, **more))

    def add(self, netns, **more):
        answer = self.call("ADD", netns, **more)
        assert answer.status == 0, answer
        return answer

    def attachments(self):
        folder = self.run_dir / "attachments"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


@pytest.fixture
def plugin(tmp_path):
    return Plugin(tmp_path / "run")


def pod_arguments(namespace="shop", name="cart", uid="0a1b"):
    """CNI_ARGS as a container runtime gives them."""
    return f"IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME={name};K8S_POD_INFRA_CONTAINER_ID=x;K8S_POD_UID={uid}"


@pytest.fixture
def agent(plugin):
    """The plugin with enrollment installer, and the double of the installer that it talks to."""
    from .installer_double import Installer  # it needs this module
    plugin.config["enrollment"] = "installer"
    double = Installer(plugin.run_dir)
    yield double
    double.close()
