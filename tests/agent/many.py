"""A node with many pods, to be measured: each pod is a network namespace with its addresses on lo and an entry in the node's
/proc, and the agent's peers, the doubles of the API server and of the tunnel, are programs of their own, so that they and who
measures do not wait for each other."""
import json
import pathlib
import resource
import shutil
import subprocess
import sys
import threading
import time

from netns.namespace import Namespace

from .cluster import DAEMON_SET, SYSTEM
from .netlink import Changes
from .node import HERE, Node, die_with_parent, eventually

PEERS = pathlib.Path(__file__).resolve().parents[1] / "peers"


class Peer:
    """A double in a process of its own, inside the node's namespace."""

    def __init__(self, node, *command):
        with node.host:
            self.process = subprocess.Popen([sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                            preexec_fn=die_with_parent)

    def call(self, *request):
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())

    def close(self):
        self.process.kill()
        self.process.wait()

    stop = close


class TunnelProgram(Peer):
    def __init__(self, node):
        super().__init__(node, str(PEERS / "tunnel.py"), "--socket", str(node.tunnel_path))
        self.events = []
        self.is_ready = False
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            event = json.loads(line)
            self.events.append(event)
            if event["event"] == "snapshot-sent":
                self.is_ready = True

    def check(self):
        broken = [event["text"] for event in self.events if event["event"] == "violation"]
        assert not broken, broken

    def count(self, kind, since=0):
        return sum(event["event"] == kind for event in self.events[since:])


class ManyPods(Node):
    def __init__(self, folder, count, **options):
        resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
        self.count = count
        self.proc = pathlib.Path(folder) / "proc"
        self.namespaces = []
        super().__init__(folder, tunnel=False, start=False, **options)
        if count:
            self.api.call("put_many", [self.make_pod(number) for number in range(1, count + 1)])

    def prepare(self):
        self.api = Peer(self, str(HERE / "api_program.py"), str(self.folder / "server"))
        self.api.call("put_node", "node")
        self.api.call("put_daemon_set", SYSTEM, DAEMON_SET)
        self.api.call("write_kubeconfig", str(self.folder / "kubeconfig"))

    def source_settings(self):
        return ["source=kubernetes", f"kubeconfig={self.folder / 'kubeconfig'}", f"host.procDir={self.proc}", "log.level=info"]

    def label(self, namespace, **labels):
        return self.api.call("flip", namespace, labels)

    def join(self, namespace="shop"):
        return self.label(namespace, **{"istio.io/dataplane-mode": "ambient"})

    def leave(self, namespace="shop"):
        return self.label(namespace)

    def make_pod(self, number):
        namespace = Namespace()
        self.namespaces.append(namespace)
        address, uid = f"10.92.{number >> 8}.{number & 255}", f"00000000-0000-4000-9000-{number:012d}"
        namespace.ip(f"link set lo up\naddr add {address}/32 dev lo\n")
        folder = self.proc / str(1000000 + number)
        (folder / "ns").mkdir(parents=True)
        (folder / "cgroup").write_text(f"0::/kubepods/besteffort/pod{uid}/{number:064x}\n")
        shutil.copy("/proc/self/stat", folder / "stat")
        (folder / "ns" / "net").symlink_to(namespace.path)
        return {"apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": f"pod-{number}", "namespace": "shop", "uid": uid, "labels": {"app": "shop"},
                             "annotations": {}},
                "spec": {"nodeName": "node", "serviceAccountName": "account", "containers": [{"name": "main", "image": "x"}]},
                "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]}}

    def connect(self):
        eventually(self.tunnel_path.exists, what=self.log)
        self.tunnel = TunnelProgram(self)
        eventually(lambda: self.tunnel.is_ready, 30)

    def cpu(self):
        """Seconds that the agent has run."""
        with open(f"/proc/{self.agent.pid}/schedstat", encoding="ascii") as file:
            return int(file.read().split()[0]) / 1e9

    def memory(self, key="VmRSS"):
        """In MB; VmHWM is the peak."""
        with open(f"/proc/{self.agent.pid}/status", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith(key + ":")) / 1024

    def enabled(self):
        return self.api.call("annotated")[0]

    def flip(self, is_in, seconds=120, watch=True):
        """Labels the namespace, or takes the label off, and waits for the end. Times in seconds since the label: last
        transaction in a pod, last answer of the tunnel, last patch; and CPU seconds."""
        began_events, began_cpu = len(self.tunnel.events), self.cpu()
        with Changes(*(self.namespaces if watch else ()), routing=False) as changes:
            began = (self.join if is_in else self.leave)()
            kind = "add" if is_in else "delete"
            if not is_in:
                eventually(lambda: self.enabled() == 0, seconds)
                last_patch = self.api.call("annotated")[1]
            eventually(lambda: self.tunnel.count(kind, began_events) >= self.count, seconds, what=lambda: self.log()[-3000:])
            if is_in:
                eventually(lambda: self.enabled() == self.count, seconds)
                last_patch = self.api.call("annotated")[1]
            cpu = self.cpu() - began_cpu
            if not is_in:
                time.sleep(0.5)  # the rest of the rules goes after the tunnel's last answer
        acks = [event["time"] for event in self.tunnel.events[began_events:] if event["event"] == kind]
        return {"rules": max(changes.times, default=began) - began, "acks": max(acks) - began, "patches": last_patch - began,
                "cpu": cpu}

    def close(self):
        if self.agent:
            self.agent.kill()
            self.agent.wait()
        if self.tunnel:
            self.tunnel.close()
            self.tunnel.check()
        violations = self.api.call("annotated")[2]
        self.api.close()
        for namespace in self.namespaces:
            namespace.close()
        self.host.close()
        assert not violations, violations
