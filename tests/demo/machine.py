"""A node in a box: the network namespace that we are in plays the node (a bridge, the world outside on lo), named namespaces
play pods, cnitool plays the container runtime, a folder of objects the API server, and a program of the tests the node tunnel.

Needs a network, mount and process namespace of its own (`run` makes them): /run and /var/lib are replaced by empty ones, so that
nothing is written to the machine's disk, and all that is needed from there is copied first."""
import contextlib
import ctypes
import json
import os
import subprocess
import threading
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = Path("/run/ambient-cni-demo")
CLONE_NEWNET = 0x40000000
MS_NOSUID, MS_NODEV = 2, 4

OUTSIDE = {4: "198.51.100.80", 6: "2001:db8::80"}
# Connections that the tunnel is asked about have ports to themselves: a redirect gives a connection another source port where one
# from the same port is redirected already, so that the source does not tell which it is.
STREAM_PORT, ONCE_PORT, LASTING_PORT = OUTSIDE_PORTS = (80, 81, 82)
NAME_SERVER = "198.51.100.53"
PROBE = {4: "169.254.7.127", 6: "fd16:9254:7127:1337:ffff:ffff:ffff:ffff"}
SUBNET = {4: "10.244.0.0/24", 6: "fd10:244::/64"}
NAMESPACE = "demo"
LABEL = "istio.io/dataplane-mode"

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result, what):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


@contextlib.contextmanager
def inside(path):
    """The calling thread is in the network namespace at `path` (None: stays where it is)."""
    if path is None:
        yield
        return
    with open("/proc/thread-self/ns/net", "rb") as home, open(path, "rb") as there:
        _check(_libc.setns(there.fileno(), CLONE_NEWNET), f"setns {path}")
        try:
            yield
        finally:
            _check(_libc.setns(home.fileno(), CLONE_NEWNET), "setns back")


def run(*arguments, stdin=None, check=True, netns=None):
    with inside(netns):
        done = subprocess.run([str(argument) for argument in arguments], input=stdin, capture_output=True, text=True, check=False)
    if check and done.returncode != 0:
        raise RuntimeError(f"{' '.join(map(str, arguments))}: exit status {done.returncode}: {done.stderr}{done.stdout}")
    return done


class Program:
    """A Python program that was started in a namespace, and the events (JSON lines) that it prints."""

    def __init__(self, netns, script, *arguments, is_ready=lambda event: event.get("listener") == "ready"):
        self.events = []
        self.condition = threading.Condition()
        with inside(netns):
            self.process = subprocess.Popen(["/usr/bin/python3", "-B", ROOT / script, *arguments], text=True,
                                            stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        threading.Thread(target=self._read, daemon=True).start()
        if not self.wait(is_ready):
            raise RuntimeError(f"{script} {' '.join(arguments)} did not start")

    def _read(self):
        for line in self.process.stdout:
            with self.condition:
                self.events.append(json.loads(line))
                self.condition.notify_all()

    def count(self):
        with self.condition:
            return len(self.events)

    def wait(self, predicate, timeout=10, since=0):
        """The first event of which the predicate is true; None when none came in time. Each is looked at once: they are many, and
        who looks holds up who reads them."""
        at, found = since, None

        def find():
            nonlocal at, found
            while found is None and at < len(self.events):
                found = self.events[at] if predicate(self.events[at]) else None
                at += 1
            return found is not None

        with self.condition:
            self.condition.wait_for(find, timeout)
        return found

    def matching(self, predicate):
        with self.condition:
            return [event for event in self.events if predicate(event)]

    def stop(self):
        self.process.terminate()
        self.process.wait()


@dataclass
class Pod:
    name: str
    netns: str
    uid: str
    addresses: dict = field(default_factory=dict)
    programs: list = field(default_factory=list)

    def start(self, script, *arguments):
        program = Program(self.netns, script, *arguments)
        self.programs.append(program)
        return program

    def stop(self):
        while self.programs:
            self.programs.pop().stop()

    def run(self, *arguments, **options):
        return run(*arguments, netns=self.netns, **options)


class Machine:
    def __init__(self, build, cni_plugins, cnitool):
        self.has_ipv6 = os.path.exists("/proc/net/if_inet6")
        self.families = (4, 6) if self.has_ipv6 else (4,)
        self.pods = {}
        self.programs = []
        self.agent = self.tunnel = None
        self._make_root([build / "ambient-cni", build / "ambient-installer", cni_plugins / "bridge", cni_plugins / "host-local",
                         cnitool])
        self.cnitool = ROOT / "bin" / cnitool.name
        self.installer = ROOT / "bin/ambient-installer"
        self._make_networks()
        self._make_node()

    def _make_root(self, programs):
        # Read before the mounts: what is copied may lie below a folder that they hide.
        scripts = {path.name: path.read_bytes() for path in (HERE / "server.py", HERE.parent / "peers/tunnel.py")}
        binaries = {f"bin/{path.name}": path.read_bytes() for path in programs}
        for target in ("/run", "/var/lib"):
            _check(_libc.mount(b"ambient-cni-demo", target.encode(), b"tmpfs", MS_NOSUID | MS_NODEV, b"mode=0755"),
                   f"mount a tmpfs at {target}")
        (ROOT / "bin").mkdir(parents=True)
        for name, content in (scripts | binaries).items():
            (ROOT / name).write_bytes(content)
            (ROOT / name).chmod(0o755)

    def _make_networks(self):
        """The network of every pod: bridge and host-local, and ours chained behind."""
        self.run_dir, self.objects, self.tunnel_socket = ROOT / "ambient-cni", ROOT / "objects", ROOT / "ztunnel.sock"
        self.objects.mkdir()
        bridge = {"type": "bridge", "bridge": "cni0", "isDefaultGateway": True,
                  "ipam": {"type": "host-local", "ranges": [[{"subnet": SUBNET[family]}] for family in self.families]}}
        ambient = {"type": "ambient-cni", "enrollment": "installer", "runDir": str(self.run_dir), "logLevel": "warn"}
        # Debian's reference plugins refuse 1.1.0.
        network = {"cniVersion": "1.0.0", "name": "podnet", "plugins": [bridge, ambient]}
        folder = ROOT / "net.d"
        folder.mkdir()
        (folder / "podnet.conflist").write_text(json.dumps(network, indent=2) + "\n", encoding="utf-8")

    def _make_node(self):
        commands = ["link set lo up"]
        for family in self.families:
            commands.append(f"addr add {OUTSIDE[family]} dev lo")
        commands.append(f"addr add {NAME_SERVER} dev lo")
        self._settle(None)
        run("ip", "-batch", "-", stdin="\n".join(commands) + "\n")
        self.programs.append(Program(None, "server.py", "outside", ",".join(map(str, OUTSIDE_PORTS)), NAME_SERVER))

    def _settle(self, netns):
        """An IPv6 address can be used at once, without waiting whether somebody else has it."""
        if self.has_ipv6:
            for key in ("all", "default"):
                run("sysctl", "-qw", f"net.ipv6.conf.{key}.accept_dad=0", netns=netns)

    def start_agent(self):
        """The node agent, as its DaemonSet runs it; its log goes to a file."""
        settings = [f"source=folder:{self.objects}", f"runDir={self.run_dir}", f"tunnelSocket={self.tunnel_socket}", "nodeName=demo",
                    "host.install=false", "host.procDir=/proc", "host.netnsDir=/run/netns", "releaseDrainSeconds=60",
                    f"redirect.ipv6={json.dumps(self.has_ipv6)}", "listen.health=", "listen.metrics=", "listen.admin="]
        with open(self.log, "ab") as log:
            self.agent = subprocess.Popen([self.installer, "run", *(f"--set={setting}" for setting in settings)], stdout=log,
                                          stderr=log)

    @property
    def log(self):
        return ROOT / "agent.log"

    def start_tunnel(self):
        self.tunnel = Program(None, "tunnel.py", "--socket", str(self.tunnel_socket), "--listeners",
                              is_ready=lambda event: event["event"] == "connected")

    def ask_agent(self, command, *arguments, check=True):
        """What a person types: ambient-installer COMMAND."""
        return run(self.installer, command, *arguments, f"--set=runDir={self.run_dir}", check=check)

    def put(self, name, value):
        """Writes an object as an editor does: whole, beside its place, and renamed."""
        (ROOT / "object.new").write_text(json.dumps(value), encoding="utf-8")
        (ROOT / "object.new").rename(self.objects / f"{name}.json")

    def put_namespace(self, **labels):
        self.put("namespace", {"apiVersion": "v1", "kind": "Namespace",
                               "metadata": {"name": NAMESPACE, "uid": "11111111-0000-4000-8000-000000000000", "labels": labels}})

    def put_pod(self, pod):
        ips = [{"ip": pod.addresses[family]} for family in sorted(pod.addresses)]
        self.put(f"pod-{pod.name}", {
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod.name, "namespace": NAMESPACE, "uid": pod.uid},
            "spec": {"serviceAccountName": pod.name, "nodeName": "demo"},
            "status": {"phase": "Running" if ips else "Pending", "podIP": ips[0]["ip"] if ips else "", "podIPs": ips}})

    def make_pod(self, name):
        """The sandbox, as a runtime makes it before it calls CNI: a namespace with lo up."""
        run("ip", "netns", "add", name)
        pod = self.pods[name] = Pod(name, f"/run/netns/{name}", f"22222222-0000-4000-8000-{len(self.pods) + 1:012d}")
        self._settle(pod.netns)
        pod.run("ip", "link", "set", "lo", "up")
        return pod

    def remove_pod(self, pod):
        pod.stop()
        run("ip", "netns", "delete", pod.name)
        del self.pods[pod.name]

    def cni(self, verb, network, pod, check=True):
        """What a container runtime does, by cnitool. Returns the finished process."""
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "CNI_PATH": str(ROOT / "bin"), "NETCONFPATH": str(ROOT / "net.d"),
                       "CNI_ARGS": f"IgnoreUnknown=1;K8S_POD_NAMESPACE={NAMESPACE};K8S_POD_NAME={pod.name};K8S_POD_UID={pod.uid}"}
        done = subprocess.run([self.cnitool, verb, network, pod.netns], env=environment, capture_output=True, text=True,
                              check=False)
        if check and done.returncode != 0:
            raise RuntimeError(f"cnitool {verb} {network} {pod.netns}: exit status {done.returncode}: {done.stderr}{done.stdout}")
        if verb == "add" and done.returncode == 0:
            for entry in json.loads(done.stdout).get("ips", []):
                address = entry["address"].partition("/")[0]
                pod.addresses[6 if ":" in address else 4] = address
        return done

    def close(self):
        if self.agent:
            self.agent.kill()
            self.agent.wait()
        if self.tunnel:
            self.tunnel.stop()
        for pod in self.pods.values():
            pod.stop()
        for program in self.programs:
            program.stop()
