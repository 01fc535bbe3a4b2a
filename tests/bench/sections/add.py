"""One ADD through the node agent: the static plugin, the static agent on a folder source, and a tunnel that accepts at once, over
one start of a static program that does nothing; and once with the strict double of the tunnel, whose own time, a Python
program's, is in it. Everything lies on tmpfs, as /var/run does on nodes."""
import http.client
import json
import pathlib
import re
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from agent.many import TunnelProgram  # noqa: E402
from agent.node import Node, die_with_parent, eventually  # noqa: E402

TITLE = "ADD through the node agent"
METRICS = "127.0.0.1:15014"
# (what, the pods' namespace, whether the tunnel is the one that accepts at once, target)
CASES = [("a pod outside the mesh", "office", True, 3),
         ("a pod of the mesh, with the tunnel's ack", "shop", True, 5),
         ("the same with the strict double (Python)", "shop", False, None)]


class QuickTunnel:
    """tests/bench/tunnel.c"""

    def __init__(self, bench, node):
        self.process = subprocess.Popen([bench.program("tunnel"), str(node.tunnel_path)], stdout=subprocess.PIPE, text=True,
                                        preexec_fn=die_with_parent)
        assert self.process.stdout.readline() == "ready\n"

    def stop(self):
        self.process.kill()
        self.process.wait()

    def check(self):
        pass


def pods(node, namespace, count):
    """Pods that are about to start: bench-N, as tests/bench/start.c names them; and their configurations for the plugin."""
    node.write("pods.json", {"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "Pod",
         "metadata": {"name": f"bench-{number}", "namespace": namespace, "uid": f"bench-{number}"},
         "spec": {"serviceAccountName": "account"}, "status": {"phase": "Pending"}} for number in range(count)]})
    for number in range(count):
        (node.folder / f"plugin.json.{number}").write_text(json.dumps({
            "cniVersion": "1.1.0", "name": "bench", "type": "ambient-cni", "enrollment": "installer", "runDir": str(node.run_dir),
            "prevResult": {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": "/x"}],
                           "ips": [{"address": f"10.244.{number >> 8}.{number & 255}/16", "interface": 0}], "dns": {}}}))
    return str(node.folder / "plugin.json")


def phases(node):
    """Milliseconds of each phase of an ADD on average, from the agent's own metrics."""
    with node.host:
        connection = http.client.HTTPConnection(METRICS, timeout=10)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    found = {(kind, phase): float(value) for kind, phase, value in re.findall(
        r'ambient_cni_plugin_request_seconds_(sum|count)\{phase="(\w+)"\} (\S+)', text)}
    return {phase: 1000 * found["sum", phase] / count for (kind, phase), count in found.items() if kind == "count" and count}


def run(bench):
    rows, by_phase = [], []
    for number, (what, namespace, is_quick, target) in enumerate(CASES):
        folder = bench.folder / f"add{number}"
        folder.mkdir()
        node = Node(folder, tunnel=False, start=False, installer=bench.build / "static" / "ambient-installer",
                    settings=["log.level=info", f"listen.metrics={METRICS}"])
        try:
            node.join("shop")
            node.label("office")
            configuration = pods(node, namespace, bench.pairs + 10)
            node.start()
            eventually(node.tunnel_path.exists)
            node.tunnel = QuickTunnel(bench, node) if is_quick else TunnelProgram(node)
            floor, subject = bench.measure_pairs(bench.program("start"), str(bench.pairs), "0", "ADD", configuration,
                                                 bench.program("nothing"), bench.plugin(), namespace)
            rows.append(bench.compare(what, floor, subject, target))
            by_phase.append((what, phases(node)))
        finally:
            node.close()
    bench.table(["ADD", "nothing", "plugin, agent, tunnel", "ratio", "target"], rows)
    names = list(dict.fromkeys(name for _, times in by_phase for name in times))
    bench.table(["of that in the agent, average", *names],
                [[what, *(f"{times[name]:.3f}" if name in times else "–" for name in names)] for what, times in by_phase])
