"""A whole node in namespaces of its own: the real agent on a folder source, a strict double of the tunnel, pods that run.

    host namespace: the agent, bridge cni0 10.91.0.1/16 fd91::1/64
    pod N:          10.91.H.L/16 fd91::N/64, its namespace held by a process of its own

Everything hangs on descriptors and child processes that die with this one: nothing is left after a crash."""
import contextlib
import ctypes
import http.client
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPOSITORY / "tests"))
from netns.namespace import Namespace  # noqa: E402
from peers.tunnel import Tunnel  # noqa: E402

BUILD = pathlib.Path(os.environ.get("AMBIENT_BUILD", REPOSITORY / "build"))
INSTALLER = BUILD / "ambient-installer"
PLUGIN = BUILD / "ambient-cni"
PROBE_TABLE = "ambient-cni-host"
_libc = ctypes.CDLL(None, use_errno=True)


def die_with_parent():
    _libc.prctl(1, signal.SIGKILL)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=10)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(10)
        self.sock.connect(self.path)


# A program with sanitizers takes a library before them.
WITH_PRELOAD = {"ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "") + ":verify_asan_link_order=0"}


def eventually(condition, seconds=10, what="it did not become true"):
    end = time.monotonic() + seconds
    while True:
        result = condition()
        if result:
            return result
        assert time.monotonic() < end, what() if callable(what) else what
        time.sleep(0.01)


SHOW_ROUTING = "ip rule list pref 32764; ip -6 rule list pref 32764; ip route show table 100; ip -6 route show table 100"


class Pod:
    """A pod that runs, attached to the node's bridge; not in the mesh's folder until `show`."""

    def __init__(self, node, number, name=None, namespace="shop", starts=False):
        """`starts`: an ADD brings its namespace; else it runs already."""
        self.node, self.number, self.starts = node, number, starts
        self.name, self.namespace = name or f"pod-{number}", namespace
        self.uid = f"00000000-0000-4000-8000-{number:012d}"
        self.address = f"10.91.{number >> 8}.{number & 255}"
        self.address6 = f"fd91::{number:x}"
        self.labels, self.annotations, self.status = {}, {}, {}
        self.host_network = False
        self.netns = Namespace()
        for key in ("all", "default"):
            self.netns.sysctl(f"net.ipv6.conf.{key}.accept_dad", 0)
        with self.netns:
            self.holder = subprocess.Popen(["sleep", "infinity"], preexec_fn=die_with_parent)
        node.host.ip(f"link add veth{number} type veth peer name eth0 netns {self.netns.path}\n"
                     f"link set veth{number} master cni0 up\n")
        self.netns.ip(f"link set lo up\nlink set eth0 up\naddr add {self.address}/16 dev eth0\n"
                      f"addr add {self.address6}/64 dev eth0 nodad\nroute add default via 10.91.0.1\n")
        self.path = f"/proc/{self.holder.pid}/ns/net"

    @property
    def key(self):
        return f"{self.namespace}/{self.name}"

    def object(self):
        annotations = {**({} if self.starts else {"ambient-cni.io/netns": self.path}), **self.annotations}
        return {"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": self.name, "namespace": self.namespace, "uid": self.uid, "labels": self.labels,
                             "annotations": annotations},
                "spec": {"serviceAccountName": "account", **({"hostNetwork": True} if self.host_network else {})},
                "status": {**({"phase": "Pending"} if self.starts else {"phase": "Running", **self.reported()}), **self.status}}

    @property
    def addresses(self):
        return [address for address in (self.address, self.address6) if address]

    def reported(self):
        """The addresses as the kubelet reports them."""
        return {"podIP": self.addresses[0], "podIPs": [{"ip": address} for address in self.addresses]}

    def move(self, address, address6):
        """The addresses change in place. None: that family goes, or stays away."""
        for old, new, bits, nodad in (self.address, address, 16, ""), (self.address6, address6, 64, " nodad"):
            if old != new:
                self.netns.ip((f"addr del {old}/{bits} dev eth0\n" if old else "") +
                              (f"addr add {new}/{bits} dev eth0{nodad}\n" if new else ""))
        if address:
            self.netns.ip("route replace default via 10.91.0.1\n")
        self.address, self.address6 = address, address6

    def start_by_add(self, runtime):
        """The ADD, and what the kubelet reports after it."""
        runtime.add(self)
        self.starts = False
        self.show()

    def show(self, **labels):
        self.labels.update(labels)
        self.node.write(f"pod-{self.number}.json", self.object())
        return self

    def hide(self):
        self.node.unlink(f"pod-{self.number}.json")

    def view(self):
        return self.node.get(f"/pods/{self.key}")

    def state(self):
        return (self.node.pods().get(self.key) or {}).get("state")

    def has_table(self):
        return "table inet ambient-cni" in self.netns.run("nft", "list", "tables")

    def redirects(self):
        return "output-redirect" in self.netns.run("nft", "list", "table", "inet", "ambient-cni", check=False)

    def traces_of_routing(self):
        return self.netns.run("sh", "-c", SHOW_ROUTING, check=False)

    def traces(self):
        """What is of the mesh in the pod's kernel; empty when it is out."""
        return self.netns.run("sh", "-c", f"nft list table inet ambient-cni; {SHOW_ROUTING}", check=False)

    def is_in(self):
        return self.redirects() and self.uid in self.node.tunnel.workloads and self.is_probed()

    def is_out(self):
        return (not self.traces() and not self.is_probed() and
                (not self.node.tunnel or self.uid not in self.node.tunnel.workloads))

    def is_probed(self):
        return {self.address, self.address6} <= self.node.probes()

    def handles(self):
        """Handles of our table's rules: others when somebody wrote them anew."""
        return re.findall(r"# handle (\d+)", self.netns.run("nft", "-a", "list", "table", "inet", "ambient-cni"))

    def enter(self):
        """Waits until kernel, host and tunnel have it in the mesh."""
        eventually(self.is_in, what=lambda: f"{self.key} is not in the mesh: {self.traces()[-300:]!r} {self.node.probes()} "
                   f"{self.node.tunnel and list(self.node.tunnel.workloads)}\n{self.node.log()[-5000:]}")
        return self

    def exit(self):
        eventually(self.is_out, what=lambda: f"{self.key} is not out of the mesh: {self.traces()[-300:]!r} {self.node.probes()} "
                   f"{self.node.tunnel and list(self.node.tunnel.workloads)}\n{self.node.log()[-5000:]}")
        return self

    def close(self):
        self.holder.kill()
        self.holder.wait()
        self.netns.close()


class Node:
    pod_class = Pod

    def __init__(self, folder, tunnel=True, listeners=False, start=True, drain=1, settings=(), installer=INSTALLER):
        self.folder = pathlib.Path(folder)
        self.installer = installer
        self.objects, self.run_dir = self.folder / "objects", self.folder / "run"
        self.objects.mkdir()
        self.tunnel_path = self.folder / "ztunnel.sock"
        self.log_path = self.folder / "agent.log"
        self.settings = [f"releaseDrainSeconds={drain}", *settings]
        self.has_listeners = listeners
        self.host = Namespace()
        for key in ("all", "default"):
            self.host.sysctl(f"net.ipv6.conf.{key}.accept_dad", 0)
        # A bridge without an address of its own takes its ports' lowest, another one when pods come and go: then for seconds pods
        # answer to one that nobody has.
        self.host.ip("link set lo up\nlink add cni0 address 02:00:0a:5b:00:01 type bridge\nlink set cni0 up\naddr add 10.91.0.1/16 dev cni0\n"
                     "addr add fd91::1/64 dev cni0 nodad\n")
        self.host.sysctl("net.ipv4.ip_forward", 1)
        self.pods_made, self.numbers = [], 0
        self.agent = self.tunnel = None
        self.prepare()
        self.label("shop")
        if start:
            self.start()
        if tunnel:
            self.connect()

    def write_beside(self, name, text, folder=None):
        temporary = self.folder / (name + ".new")
        temporary.write_text(text)
        temporary.rename((folder or self.folder) / name)

    # The folder.
    def write(self, name, objects):
        self.write_beside(name, json.dumps(objects), self.objects)

    def unlink(self, name):
        (self.objects / name).unlink()

    def label(self, namespace, **labels):
        self.write(f"namespace-{namespace}.json", {
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": namespace, "uid": f"uid-of-{namespace}", "labels": labels}})

    def join(self, namespace="shop"):
        self.label(namespace, **{"istio.io/dataplane-mode": "ambient"})

    def leave(self, namespace="shop"):
        self.label(namespace)

    def pod(self, show=True, **options):
        self.numbers += 1
        pod = self.pod_class(self, self.numbers + 1, **options)
        self.pods_made.append(pod)
        return pod.show() if show else pod

    # The source.
    def prepare(self):
        pass

    def source_settings(self):
        return [f"source=folder:{self.objects}", "host.procDir=/proc"]

    # The agent.
    def command(self):
        command = [str(self.installer), "run"]
        for setting in [*self.source_settings(), f"runDir={self.run_dir}", f"tunnelSocket={self.tunnel_path}",
                        "nodeName=node", "host.install=false", f"host.netnsDir={self.folder}",
                        "listen.health=", "listen.metrics=", "listen.admin=", "log.level=debug", *self.settings]:
            command += ["--set", setting]
        return command

    def start(self, wait=True, **environment):
        log = open(self.log_path, "ab")
        self.log_begins = len(self.log())
        with log, self.host:
            self.agent = subprocess.Popen(self.command(), stdout=log, stderr=log, stdin=subprocess.DEVNULL,
                                          preexec_fn=die_with_parent, env={**os.environ, **environment})
        if wait:
            self.log_has("listed ")

    def start_to_stop_at(self, step, **more):
        """The agent, to be killed after so many steps from `stop_now` on (tests/preload/stop_at.c)."""
        for path in (self.folder / "stop", self.folder / "stop.steps"):
            path.unlink(missing_ok=True)
        self.step = step
        self.start(LD_PRELOAD=str(BUILD / "tests" / "stop_at.so"), AMBIENT_STOP_FILE=str(self.folder / "stop"),
                   **WITH_PRELOAD, **more)

    def stop_now(self):
        self.write_beside("stop", str(self.step))

    def steps(self):
        path = self.folder / "stop.steps"
        return path.read_text().split("\n")[:-1] if path.exists() else []

    def was_killed(self, seconds=5):
        """Waits for the step that kills; False: it never came."""
        try:
            self.agent.wait(seconds)
        except subprocess.TimeoutExpired:
            return False
        assert self.agent.returncode == -signal.SIGKILL, self.log()
        self.agent = None
        return True

    def log_has(self, text, seconds=10):
        """Waits for a text in what the agent has logged since its start; returns all of that."""
        def found():
            since = self.log()[self.log_begins:]
            assert self.agent.poll() is None, f"the agent ended: {since}"
            return since if text in since else None
        return eventually(found, seconds, what=lambda: f"never logged {text!r}: {self.log()[-8000:]}")

    def stop(self, with_signal=signal.SIGTERM, status=0):
        self.agent.send_signal(with_signal)
        code = self.agent.wait(30)
        if with_signal == signal.SIGTERM:
            assert code == status, f"exit status {code}: {self.log()}"
        self.agent = None

    def kill(self):
        self.stop(signal.SIGKILL)

    def log(self):
        return self.log_path.read_text() if self.log_path.exists() else ""

    def request(self, method, path):
        connection = UnixConnection(self.run_dir / "admin.sock")
        with contextlib.closing(connection):
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()

    def get(self, path):
        status, text = self.request("GET", path)
        return json.loads(text) if status == 200 else None

    def pods(self):
        return {f"{pod['namespace']}/{pod['name']}": pod for pod in self.get("/pods")}

    def wait_for(self, state, pods=None, seconds=10):
        keys = [pod.key for pod in (pods if pods is not None else self.pods_made)]

        def reached():
            seen = self.pods()
            return all((seen.get(key) or {"state": "none"})["state"] == state for key in keys)
        eventually(reached, seconds, what=lambda: f"not all {state}: {json.dumps(self.pods(), indent=1)}\n{self.log()[-6000:]}")

    # The tunnel.
    def connect(self):
        eventually(self.tunnel_path.exists, what=self.log)
        self.tunnel = Tunnel(self.tunnel_path, listeners=self.has_listeners).start()
        self.tunnel.wait(lambda: self.tunnel.is_connected)

    def enrolled(self):
        """Uids of the pods that a restart would know."""
        path = self.run_dir / "enrolled.json"
        return {pod["uid"] for pod in json.loads(path.read_text())["pods"]} if path.exists() else set()

    def outside(self):
        """Namespaces that the plugin takes for being outside while the agent is away."""
        path = self.run_dir / "outside.json"
        return {entry["name"] for entry in json.loads(path.read_text())["namespaces"]} if path.exists() else set()

    def serves_plugins(self):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as plugin:
            try:
                plugin.connect(str(self.run_dir / "installer.sock"))
            except OSError:
                return False
        return True

    def probes(self):
        """Addresses in the host's sets."""
        listing = self.host.run("nft", "-j", "list", "table", "inet", PROBE_TABLE, check=False)
        found = set()
        for entry in json.loads(listing)["nftables"] if listing else ():
            found.update(entry.get("set", {}).get("elem", ()))
        return found

    def host_rules(self):
        return self.host.run("nft", "-s", "list", "ruleset")

    def close(self):
        if self.agent:
            self.agent.kill()
            self.agent.wait()
        if self.tunnel:
            self.tunnel.stop()
            self.tunnel.check()
        for pod in self.pods_made:
            pod.close()
        self.host.close()
