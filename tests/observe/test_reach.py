"""explain names what drops the packets of a pod of the mesh: the kubelet's probes, the mesh's own connections, or both. The engine of
a policy stands in the pod here, before everything else of it."""
import json
import os
import socket
import subprocess
import sys

import pytest

from tests.agent.node import INSTALLER, REPOSITORY, Node, eventually

sys.path.insert(0, str(REPOSITORY / "tests" / "peers"))
from api_server import ApiServer  # noqa: E402

PROBE = {4: "169.254.7.127", 6: "fd16:9254:7127:1337:ffff:ffff:ffff:ffff"}
PORT = 8080


@pytest.fixture(params=[4, 6])
def node(request, tmp_path):
    """Two pods in the mesh; one is probed, by the family that is first."""
    node = Node(tmp_path, listeners=True, drain=0)
    node.family = request.param
    node.probed, node.neighbour = node.pod(show=False), node.pod(show=False)
    for pod in (node.probed, node.neighbour):
        addresses = (pod.address, pod.address6) if node.family == 4 else (pod.address6, pod.address)
        pod.status.update(podIP=addresses[0], podIPs=[{"ip": address} for address in addresses])
        pod.netns.ip("route add default via fd91::1 dev eth0\n")
        pod.show()
    node.join()
    node.wait_for("enabled")
    with node.host:
        node.api = ApiServer(tmp_path / "api")
    node.api.for_people = {"/api/v1/namespaces/shop": {"metadata": {"name": "shop", "uid": "uid-shop"}}}
    node.kubeconfig = str(node.api.write_kubeconfig(tmp_path / "kubeconfig"))
    node.probed_by(httpGet={"port": PORT})
    with node.probed.netns:
        node.server = socket.create_server(("::", PORT), family=socket.AF_INET6, dualstack_ipv6=True)
    with node.api:
        yield node
        node.api.check()
    node.server.close()
    node.close()


def probed_by(node, **probe):
    item = node.probed.object()
    item["spec"]["containers"] = [{"name": "main", "readinessProbe": probe}]
    node.api.for_people[f"/api/v1/namespaces/shop/pods/{node.probed.name}"] = item


Node.probed_by = probed_by


def explain(node, *arguments, status=0, kubeconfig=True):
    command = [str(INSTALLER), "explain", node.probed.key, "--set", f"runDir={node.run_dir}", *arguments]
    with node.host:
        done = subprocess.run(command + (["--kubeconfig", node.kubeconfig] if kubeconfig else []), capture_output=True, text=True,
                              timeout=20, env={key: value for key, value in os.environ.items() if key not in ("KUBECONFIG", "HOME")})
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def firewall(node, *rules):
    """Default deny of what begins, but for `rules`."""
    allowed = "\n".join(f"{rule} accept" for rule in rules)
    node.probed.netns.nft(f"""table inet engine
delete table inet engine
table inet engine {{
  chain in {{
    type filter hook prerouting priority -150
    iif lo accept
    ct state established,related accept
    meta l4proto != tcp accept
    {allowed}
    drop
  }}
}}
""")


def test_what_a_firewall_drops_is_named(node):
    source = f"{'ip' if node.family == 4 else 'ip6'} saddr {PROBE[node.family]}"
    address = node.probed.address if node.family == 4 else node.probed.address6
    text = explain(node)
    assert f"another pod of the mesh ({node.neighbour.key}) reaches port 15008" in text
    assert f"the node reaches port {PORT}, from {PROBE[node.family]} as the kubelet's probes do" in text
    assert "nothing is wrong with it on this node.\n" in text
    before = list(node.tunnel.violations)

    firewall(node)
    text = explain(node, status=3)
    assert f"what another pod of it ({node.neighbour.key}) sends to {address} port 15008 gets no answer" in text
    assert f"what the node sends to {address} port {PORT} from {PROBE[node.family]} gets no answer" in text
    assert "something drops its packets: the mesh's connections do not get through" in text and "must let TCP 15008 in" in text

    firewall(node, "tcp dport 15008")
    text = explain(node, status=3)
    assert "reaches port 15008" in text
    assert "something drops its packets: the kubelet's probes do not get through" in text

    firewall(node, "tcp dport 15008", source)
    assert "nothing is wrong with it on this node.\n" in explain(node)
    assert before == node.tunnel.violations


def test_for_machines_and_without_rights(node):
    firewall(node, "tcp dport 15008")
    whole = json.loads(explain(node, "-o", "json", status=3))
    assert whole["healthy"] is False and [entry["blocked"] for entry in whole["reach"]] == [False, True] and whole["untried"] == ""
    # Without anybody's rights the probes are not known; the mesh is tried all the same.
    text = explain(node, kubeconfig=False)
    assert "reaches port 15008" in text and f"port {PORT}" not in text
    # Nothing listens; a firewall that rejects looks the same, and both are said.
    node.probed_by(tcpSocket={"port": PORT + 1})
    firewall(node, "meta l4proto tcp")
    assert f"port {PORT + 1} refuses the node's connections" in explain(node)
    # By exec nothing is probed over the network.
    node.probed_by(exec={"command": ["true"]})
    assert "as the kubelet's probes do" not in explain(node)


def test_a_pod_alone(node):
    node.neighbour.hide()
    eventually(lambda: node.neighbour.key not in node.pods())
    text = explain(node)
    assert "whether port 15008 is let in: no other pod of the mesh is here to try it from" in text
