"""The node that the events happen to: the agent on the API server's double, the plugin called as a runtime calls it (by the
conflist that stands in the configuration directory), pods that come by ADD and go by DEL, a tunnel that carries, and traffic."""
import collections
import contextlib
import ctypes
import json
import os
import pathlib
import shutil
import subprocess
import sys
import threading
import time

from agent.cluster import ClusterNode, ClusterPod
from agent.cni import Runtime
from agent.node import BUILD, PROBE_TABLE, die_with_parent, eventually
from peers.tunnel import Tunnel

from .model import Record

HERE = pathlib.Path(__file__).resolve().parent
MODE = "istio.io/dataplane-mode"
DNS_CAPTURE = "ambient.istio.io/dns-capture"
DRAIN = 20
CONFLIST = "10-podnet.conflist"
TUNNEL_REFUSED = 102
NOT_IN_TUNNEL = "the tunnel does not have it"
PIDFD_GETFD, SIOCGSKNS = 438, 0x894C
libc = ctypes.CDLL(None, use_errno=True)


def namespace_of_socket(process, number):
    """The inode of the network namespace that a socket of a process was made in."""
    pidfd = os.pidfd_open(process)
    sock = libc.syscall(PIDFD_GETFD, pidfd, number, 0)
    os.close(pidfd)
    if sock < 0:
        return None
    netns = libc.ioctl(sock, SIOCGSKNS)
    os.close(sock)
    if netns < 0:
        return None
    inode = os.fstat(netns).st_ino
    os.close(netns)
    return inode


class CarryingTunnel(Tunnel):
    """One whose end ends what it carries, as a process's end does."""

    def __init__(self, *arguments, **options):
        super().__init__(*arguments, **options)
        self.made = []  # (identity of the network namespace, listeners)

    def make_listeners(self, workload):
        listeners = super().make_listeners(workload)
        self.made = [(identity, known) for identity, known in self.made if known.sockets or known.tasks]
        self.made.append((workload.identity, listeners))
        return listeners

    def _cut(self, identity=None):
        for known, listeners in self.made:
            if identity in (None, known):
                for task in list(listeners.tasks):
                    task.cancel()

    def kill(self):
        self._call(self._cut)
        super().kill()

    def cut(self, identity):
        """A pod's processes are gone, and its network: nothing is carried there any more."""
        if self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # it ends just now, and with it what it carried
                self._call(self._cut, identity)


class Sandbox(ClusterPod):
    """One network namespace of a pod. It is there from the start, in the pod's cgroup are processes only when it runs."""

    def __init__(self, node, number, runs=False, **options):
        super().__init__(node, number, starts=not runs, **options)
        self.folder = node.proc / str(self.holder.pid)
        self.cgroup = (self.folder / "cgroup").read_text()
        if not runs:
            (self.folder / "cgroup").unlink()
        self.interface = f"veth{number}"
        self.is_closed = self.talks = False
        self.container = None
        self.number_of_link = number
        self.left = set()  # addresses that it had, and that are nobody's yet
        # A connection that was closed while its other end went away would keep the namespace for minutes.
        self.netns.sysctl("net.ipv4.tcp_orphan_retries", 1)
        self.netns.sysctl("net.ipv4.tcp_fin_timeout", 1)

    def move(self, address, address6):
        self.left |= {self.address, self.address6} - {address, address6, None}
        super().move(address, address6)
        if address6:
            self.netns.run("ip", "-6", "route", "replace", "default", "via", "fd91::1")

    def take(self, address, address6):
        """The addresses of a sandbox that is gone, or that has others by now."""
        old, old6 = self.address, self.address6
        self.address, self.address6 = address, address6
        self.netns.ip(f"addr del {old}/16 dev eth0\naddr del {old6}/64 dev eth0\naddr add {address}/16 dev eth0\n"
                      f"addr add {address6}/64 dev eth0 nodad\nroute replace default via 10.91.0.1\n")

    def settle_link(self):
        self.netns.run("ip", "-6", "route", "add", "default", "via", "fd91::1")
        self.netns.ip(f"link set eth0 address 02:00:0a:5b:{self.number_of_link >> 8:02x}:{self.number_of_link & 255:02x}\n")

    def run(self):
        if self.starts:
            (self.folder / "cgroup").write_text(self.cgroup)
            self.starts = False

    def identity(self):
        with self.netns:
            status = pathlib.Path("/proc/thread-self/ns/net").stat()
        return status.st_dev, status.st_ino

    def look(self, is_wanted):
        """None: it is what it must be, in the kernel, on the host and in the tunnel; else what is not."""
        traces = self.traces()
        in_sets = self.node.probes()
        probes = in_sets & set(self.addresses)
        workload = self.node.tunnel.workloads.get(self.uid) if self.node.tunnel else None
        if in_sets & self.left:
            return f"probed at an address that it has lost: {in_sets & self.left}"
        if not is_wanted:
            # Of a Del all are told.
            workload = workload or next((tunnel.workloads[self.uid] for tunnel in self.node.tunnels_up if self.uid in tunnel.workloads), None)
            if traces:
                return f"traces in a pod outside: {traces[:300]}"
            return "probed, though outside" if probes else "the tunnel has it, though it is outside" if workload else None
        if "redirect to :15001" not in traces or "redirect to :15006" not in traces:
            return f"no redirects: {traces[:300]}"
        asks_tunnel = self.record.asks_tunnel_now()
        if asks_tunnel is not None and ("redirect to :15053" in traces) != asks_tunnel:
            return f"names: {traces[:300]}"
        if traces.count("lookup 100") != 2 or traces.count("local default") != 2:
            return f"routing: {traces[-500:]}"
        if probes != set(self.addresses):
            return "not probed"
        if not self.node.translates_probes():
            return "the host's rules are not there"
        if not workload or workload.identity != self.netns_identity:
            return NOT_IN_TUNNEL
        return None


class Pod:
    """A pod of the model: what the cluster knows of it, and its sandbox of now."""

    def __init__(self, number, namespace, label):
        self.name, self.namespace, self.label = f"pod-{number}", namespace, label
        self.uid = f"00000000-0000-4000-8000-{number:012d}"
        self.key = f"{namespace}/{self.name}"
        self.sandbox = self.record = self.thread = None
        self.has_ended = self.is_gone = False
        self.attempts, self.containers = 0, []
        self.was_relabelled = False
        self.was_refused = False
        self.dns_capture = None  # as its annotation says
        self.addresses = None    # as events have said so far: [IPv4, IPv6], None where that family has gone


class World(ClusterNode):
    pod_class = Sandbox

    def __init__(self, folder, judge):
        self.judge = judge
        self.conf_dir, self.bin_dir = pathlib.Path(folder) / "net.d", pathlib.Path(folder) / "bin"
        self.conf_dir.mkdir()
        self.bin_dir.mkdir()
        self.conflist_number = 0
        self.tunnels = []
        self.live = []             # pods of the model
        self.labelled = {"shop": False, "office": False}
        self.was_flipped = {"shop": False, "office": False}  # since the node was at rest
        self.is_agent_up = self.is_api_up = self.is_tunnel_up = True
        self.is_tunnel_ending = False
        self.is_setting_in_doubt = False  # of two agents that run each has its own
        self.is_changing_hands = False  # an agent that may be the one that serves is told to stop, beside another one
        self.is_over = False
        self.dns_capture = self.dns_capture_in_force = True  # the agent's setting, in its file and as it was when it started
        self.tunnel_delay = 0      # seconds before each of its answers
        self.refused = {}          # uids whose Adds the tunnel answers with an error
        self.tunnels_up = []       # in the order of their starts
        self.connected = []        # in the order of their connections: Adds go to the last
        self.threads, self.gone = [], []
        self.show_lock = threading.Lock()
        self.moved = []            # [IPv4, IPv6] that pods had which live on at others
        self.deleted = set()       # containers whose DEL succeeded
        self.touched = time.time()
        self.totals = None
        self.write_conflist()
        super().__init__(folder, drain=DRAIN, listeners=True, settings=[
            "host.install=true", f"host.binDir={self.bin_dir}", f"host.confDir={self.conf_dir}", f"host.binSource={BUILD}",
            "log.level=info"])
        self.label("office")
        self.runtime = Runtime(self)
        self.traffic = subprocess.Popen([sys.executable, str(HERE / "traffic.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                        text=True, preexec_fn=die_with_parent)
        self.traffic_lock = threading.Lock()
        self.answers = collections.Counter()
        self.reader = threading.Thread(target=self.read_traffic, daemon=True)
        self.reader.start()
        self.tell_traffic(pod="host", netns=self.host.path, addresses=[], serves=False)

    # The tunnel.
    def connect(self):
        tunnel = CarryingTunnel(self.tunnel_path, listeners=True, on_event=lambda event: self.tunnel_event(tunnel, event))
        tunnel.refuse, tunnel.delay = self.refused, self.tunnel_delay
        self.tunnels.append(tunnel)
        self.tunnels_up.append(tunnel)
        self.tunnel = self.tunnel or tunnel
        tunnel.start()

    def tunnel_event(self, tunnel, event):
        """In the tunnel's thread."""
        if event["event"] == "connected":
            self.connected.append(tunnel)
            self.tunnel = tunnel
        elif event["event"] == "disconnected" and tunnel in self.connected:
            self.connected.remove(tunnel)
            if self.connected:
                self.tunnel = self.connected[-1]
        else:
            self.judge.tunnel_event(event)

    def end_tunnel(self, tunnel):
        self.tunnels_up.remove(tunnel)
        # A slow one takes its time, and what it carries ends when it does.
        self.is_tunnel_ending = True
        tunnel.stop()
        self.touched = time.time()
        self.is_tunnel_ending = False
        if self.tunnel is tunnel and self.tunnels_up:
            self.tunnel = self.tunnels_up[-1]

    # The agent.
    def command(self):
        configuration = self.folder / "agent.yaml"
        configuration.write_text(f"redirect:\n  dnsCapture: {'true' if self.dns_capture else 'false'}\n")
        return [*super().command(), "--config", str(configuration)]

    def start(self, **options):
        if self.dns_capture_in_force != self.dns_capture:
            self.judge.touch(self.current())
            self.dns_capture_in_force = self.dns_capture
        super().start(**options)

    # Traffic.
    def tell_traffic(self, **command):
        with self.traffic_lock:
            self.traffic.stdin.write(json.dumps(command) + "\n")
            self.traffic.stdin.flush()

    def read_traffic(self):
        for line in self.traffic.stdout:
            answer = json.loads(line)
            if "failed" in answer:
                self.judge.connection_failed(answer["failed"])
            elif "asked" in answer:
                self.judge.name_asked(answer["asked"])
            elif "totals" in answer:
                self.totals = answer["totals"]
            else:
                kind, = answer
                self.answers[(kind, answer[kind])] += 1

    def ask_traffic(self, answer, **command):
        before = self.answers[answer]
        self.tell_traffic(**command)
        eventually(lambda: self.answers[answer] > before, 20, what=f"the traffic program did not answer {command}")

    # The primary network's configuration.
    def conflist(self):
        return {"cniVersion": "1.0.0", "name": "podnet", "number": self.conflist_number, "plugins": [
            {"type": "bridge", "bridge": "cni0", "ipam": {"type": "host-local", "big": 9007199254740991}},
            {"type": "portmap", "capabilities": {"portMappings": True}}]}

    def write_conflist(self, in_place=False):
        path = self.conf_dir / CONFLIST
        if in_place:
            path.write_text(json.dumps(self.conflist()))
        else:
            temporary = self.conf_dir / ".podnet.tmp"
            temporary.write_text(json.dumps(self.conflist()))
            temporary.rename(path)

    def our_entry(self):
        """What the runtime finds of us in the chain; None: nothing, or no program to run."""
        try:
            found = json.loads((self.conf_dir / CONFLIST).read_text())
            entry, = [plugin for plugin in found["plugins"] if plugin["type"] == "ambient-cni"]
            return {**entry, "name": found["name"], "cniVersion": found["cniVersion"]}
        except (OSError, ValueError):
            return None

    def translates_probes(self):
        """Whether the host has the rules for both families."""
        listing = self.host.run("nft", "-j", "list", "table", "inet", PROBE_TABLE, check=False)
        rules = [entry["rule"]["expr"] for entry in json.loads(listing)["nftables"] if "rule" in entry] if listing else []
        return len(rules) == 2 and all("snat" in rule[-1] for rule in rules)

    def has_binary(self):
        try:
            return (self.bin_dir / "ambient-cni").read_bytes() == (BUILD / "ambient-cni").read_bytes()
        except OSError:
            return False

    # Pods.
    def belongs(self, pod):
        if pod.has_ended or pod.is_gone:
            return False
        return pod.label == "ambient" or (pod.label is None and self.labelled[pod.namespace])

    def asks_tunnel(self, pod):
        """Of a pod of the mesh: whether its questions to name servers are the tunnel's. None: they may be or not."""
        return {"true": True, "false": False}.get(pod.dns_capture, None if self.is_setting_in_doubt else self.dns_capture_in_force)

    def make_sandbox(self, pod, runs=False, addresses=None):
        sandbox = self.pod(show=False, runs=runs, name=pod.name, namespace=pod.namespace)
        sandbox.uid = pod.uid
        sandbox.cgroup = f"0::/kubepods/besteffort/pod{pod.uid}/{sandbox.number:064x}\n"
        if runs:
            (sandbox.folder / "cgroup").write_text(sandbox.cgroup)
        if addresses:
            self.take_over(sandbox, *addresses)
        sandbox.settle_link()
        sandbox.netns_identity = sandbox.identity()
        sandbox.labels = {} if pod.label is None else {MODE: pod.label}
        record = Record(f"{pod.key} ({sandbox.interface})", lambda: self.belongs(pod))
        record.sandbox, record.pod, sandbox.record = sandbox, pod, record
        record.asks_tunnel_now = lambda: self.asks_tunnel(pod)
        if not self.is_tunnel_up:
            record.begin("tunnel")
        with self.judge.lock:
            self.judge.records[sandbox.interface] = record
            pod.sandbox, pod.record = sandbox, record
            pod.addresses = [sandbox.address, sandbox.address6]
        return sandbox

    def take_over(self, sandbox, address, address6, number_of_link):
        """With the link address that its neighbours have in their tables, where who had it is gone; else they forget it."""
        sandbox.take(address, address6)
        if number_of_link is not None:
            sandbox.number_of_link = number_of_link
            return
        for netns in [self.host, *(pod.sandbox.netns for pod in self.live)]:
            netns.run("sh", "-c", f"ip neigh flush to {address}; ip -6 neigh flush to {address6}", check=False)

    def move(self, pod, sandbox, address, address6):
        """A pod's addresses change in place; then the kubelet says so."""
        record, lost = sandbox.record, {sandbox.address, sandbox.address6} - {address, address6, None}
        with self.judge.lock:
            self.judge.touch([record], cause="moved", changes=False)
            record.lost |= lost
        if sandbox.talks:
            self.ask_traffic(("moved", pod.key), moved=pod.key, addresses=[one for one in sandbox.addresses if one not in lost])
        sandbox.move(address, address6)
        if sandbox.talks:
            self.ask_traffic(("moved", pod.key), moved=pod.key, addresses=sandbox.addresses)
        self.show(pod)
        self.judge.touch([record], changes=False)

    def show(self, pod):
        with self.show_lock:
            if pod.is_gone:
                return
            pod.sandbox.labels = {} if pod.label is None else {MODE: pod.label}
            pod.sandbox.annotations = {} if pod.dns_capture is None else {DNS_CAPTURE: pod.dns_capture}
            pod.sandbox.status = {"phase": "Succeeded"} if pod.has_ended else {}
            pod.sandbox.show()

    def in_a_thread(self, pod, routine):
        """The kubelet's worker for one pod: one thing after the other."""
        before = pod.thread

        def work():
            if before:
                before.join()
            try:
                routine()
            except BaseException as error:
                self.judge.violation(f"{pod.key}: {error!r}")
                raise
        pod.thread = threading.Thread(target=work, daemon=True)
        self.threads.append(pod.thread)
        pod.thread.start()

    def bring_up(self, pod, sandbox):
        """ADD until it succeeds, then the pod's processes run. A chain that does not name us starts it without."""
        is_strict = False
        while not self.is_over and not pod.is_gone and not pod.has_ended and pod.sandbox is sandbox:
            entry = self.our_entry()
            if entry is None:
                break
            if self.has_binary():
                pod.attempts += 1
                sandbox.container = f"sandbox-{sandbox.number}-{pod.attempts}"
                pod.containers.append(sandbox.container)
                is_strict = not self.was_flipped[pod.namespace] and not pod.was_relabelled and pod.label != "ambient"
                generation, touched = pod.record.generation, self.touched
                is_agent_there = pod.label == "ambient" and self.is_agent_up and self.is_api_up and self.serves_plugins()
                sandbox.ips = [f"{sandbox.address}/16", f"{sandbox.address6}/64"]
                status, answer = self.runtime.call("ADD", sandbox, container=sandbox.container, config=entry, ips=sandbox.ips)
                if status == 0:
                    is_strict = is_strict and generation == pod.record.generation
                    if (is_strict or is_agent_there) and not pod.was_relabelled:
                        self.look_after_add(pod, sandbox, generation, touched)
                    break
                is_strict = False  # the next time the chain may lack us
                if not isinstance(answer, dict) or answer.get("code") not in ((11, TUNNEL_REFUSED) if pod.was_refused else (11,)):
                    self.judge.counts["ADDs with another error"] += 1
                    if generation == pod.record.generation and touched == self.touched:
                        self.judge.violation(f"{pod.record.name}: its ADD failed, though nothing had been done: {answer}")
                    if self.judge.counts["ADDs with another error"] > 20:
                        raise AssertionError(f"{sandbox.interface} {sandbox.is_closed} {sandbox.holder.poll()} {answer}")
                if self.runtime.call("DEL", sandbox, container=sandbox.container, config=entry, ips=sandbox.ips)[0] == 0:
                    self.deleted.add(sandbox.container)
            time.sleep(0.2)
        else:
            return
        sandbox.run()
        with self.judge.lock:
            if is_strict and not self.was_flipped[pod.namespace] and not pod.was_relabelled and pod.record.state == "changing" and \
                    generation == pod.record.generation and not pod.has_ended and not pod.is_gone:
                # The contract: when ADD returns, everything is there. The agent can't know yet of a pod that ends or goes just now.
                pod.record.becomes("in" if self.belongs(pod) else "out")
                pod.record.asks(self.belongs(pod) and self.asks_tunnel(pod))
                self.judge.counts["pods that were right when ADD returned"] += 1
            if not pod.is_gone and pod.sandbox is sandbox:
                self.judge.pods[pod.key] = pod.record
        self.begin_traffic(pod, sandbox)
        self.show(pod)

    def serves_plugins(self):
        """Not yet, where it started a moment ago: then a pod of a namespace outside starts at once, whatever its own label says."""
        return super().serves_plugins() and not self.is_changing_hands

    def look_after_add(self, pod, sandbox, generation, touched):
        """The contract: when ADD returns, everything is there. Unless something came between."""
        missing = sandbox.look(True) if self.belongs(pod) else None
        # Of two, the one that connects just now is told a moment later.
        known = [tunnel.workloads.get(pod.uid) for tunnel in self.tunnels_up]
        if missing == NOT_IN_TUNNEL and any(workload and workload.identity == sandbox.netns_identity for workload in known):
            return
        if missing and generation == pod.record.generation and touched == self.touched:
            self.judge.violation(f"{pod.record.name} when its ADD had succeeded: {missing}")

    def begin_traffic(self, pod, sandbox):
        with self.judge.lock:
            self.judge.pods[pod.key] = pod.record
        self.ask_traffic(("ready", pod.key), pod=pod.key, netns=sandbox.netns.path, addresses=sandbox.addresses,
                         serves=True)
        sandbox.talks = True

    def end_processes(self, pod, sandbox):
        if sandbox.talks:
            sandbox.talks = False
            self.ask_traffic(("gone", pod.key), gone=pod.key)
        shutil.rmtree(sandbox.folder, ignore_errors=True)
        for tunnel in self.tunnels:
            tunnel.cut(sandbox.netns_identity)

    def tear_down(self, pod, sandbox, is_told=True):
        """The pod's processes end, then DEL, then its network namespace. Some runtimes' DEL goes through the chain of the ADD's time, and
        tells nothing of it."""
        self.end_processes(pod, sandbox)
        entry = self.our_entry() if is_told else None
        if entry and self.has_binary() and sandbox.container:
            status, answer = self.runtime.call("DEL", sandbox, container=sandbox.container, config=entry, ips=sandbox.ips)
            if status != 0:
                self.judge.violation(f"DEL of {pod.key} failed: {answer}")
            else:
                self.deleted.add(sandbox.container)
        self.close_sandbox(sandbox)

    def close_sandbox(self, sandbox):
        record = self.judge.records.get(sandbox.interface)
        with record.look_lock, self.judge.lock:
            sandbox.is_closed = True
            self.judge.records.pop(sandbox.interface)
            self.pods_made.remove(sandbox)
        # A primary CNI's DEL takes the interface away; the kernel does so some time after a namespace's end, and until then the
        # next sandbox of the same address had a twin that refuses connections. It stays, apart: it tells of a namespace that lives.
        self.host.ip(f"link set {sandbox.interface} nomaster down\n")
        sandbox.close()
        self.gone.append(sandbox)

    def holders(self, sandbox):
        """Who holds the network namespace of a sandbox that is gone: processes, their descriptors, and their sockets that were made in
        it. Nobody: connections whose end the kernel waits for."""
        inode, found = str(sandbox.netns_identity[1]), []
        for process in (os.getpid(), self.traffic.pid, self.agent.pid):
            for path in pathlib.Path(f"/proc/{process}").glob("task/*/ns/net"):
                with contextlib.suppress(OSError):
                    if inode in os.readlink(path):
                        found.append(str(path))
            for path in pathlib.Path(f"/proc/{process}/fd").glob("*"):
                with contextlib.suppress(OSError):
                    shown = os.readlink(path)
                    if inode in shown or shown.startswith("socket:") and namespace_of_socket(process, int(path.name)) == int(inode):
                        found.append(f"{path} {shown}")
        return found

    def join_threads(self):
        for thread in self.threads:
            thread.join(60)
            assert not thread.is_alive(), "a pod's ADD or DEL does not end"
        self.threads = []

    # Looking.
    def current(self):
        with self.judge.lock:
            return [pod.record for pod in self.live if pod.record and not pod.sandbox.is_closed]

    def watch(self, record):
        """Settles a record when it is right, and has been for a moment, and the agent knows everything that happened."""
        if self.is_tunnel_ending or not (self.is_agent_up and self.is_api_up and self.api.has_told()):
            record.right = None
            return
        if time.time() - max(record.touched, self.touched) < 0.4:
            return
        generation = record.generation
        wanted = record.wanted()
        with record.look_lock:
            if record.sandbox.is_closed or record.sandbox.starts:
                return
            record.missing = record.sandbox.look(wanted)
        with self.judge.lock:
            if record.missing or generation != record.generation or record.wanted() != wanted:
                record.right = None
            elif record.right and record.right[0] == (generation, wanted):
                if time.time() - record.right[1] > 0.3:
                    self.judge.settle(record, "in" if wanted else "out", wanted and record.asks_tunnel_now())
                    record.right = None
            else:
                record.right = (generation, wanted), time.time()

    def close(self):
        self.is_over = True
        for tunnel in self.tunnels_up:
            tunnel.stop()
        self.traffic.kill()
        self.traffic.wait()
        for thread in self.threads:
            thread.join(30)
        # An agent that was killed between the head of a request and its body.
        self.api.violations[:] = [text for text in self.api.violations if "the body is no JSON" not in text]
        super().close()
