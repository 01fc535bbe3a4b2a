"""A node that istio-cni ran is taken over by the node agent, with pods that run and talk all the while."""
import json
import pathlib
import shutil
import sys
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from agent.conftest import new_node  # noqa: E402,F401  pylint: disable=unused-import
from agent.node import eventually  # noqa: E402
from agent.test_flips import Flow as EndlessFlow  # noqa: E402
from agent.test_flips import carried  # noqa: E402

from . import istio  # noqa: E402


class Flow(EndlessFlow):
    def report(self):
        return json.loads(self.process.communicate()[0])


def istio_node(new_node, backend, **options):
    """A node whose pod was enrolled by istio-cni: its rules in the pod and on the host, the tunnel's listeners in the pod, nothing of
    ours."""
    node = new_node(listeners=True, **options)
    outside, pod = node.pod(show=False), node.pod()
    node.join()
    pod.enter()
    node.kill()
    shutil.rmtree(node.run_dir)
    getattr(istio, f"{backend}_pod")(pod.netns)
    pod.netns.run("nft", "delete", "table", "inet", "ambient-cni")
    node.host.run("nft", "delete", "table", "inet", "ambient-cni-host")
    getattr(istio, f"{backend}_host")(node.host)
    pod.annotations["ambient.istio.io/redirection"] = "enabled"
    pod.show()
    return node, outside, pod


def is_clean(namespace):
    ruleset = namespace.run("nft", "list", "ruleset")
    return "istio" not in ruleset and "ISTIO" not in ruleset


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_a_node_changes_hands_without_losing_a_connection(new_node, backend):  # noqa: F811
    node, outside, pod = istio_node(new_node, backend)
    before = len(node.tunnel.events)
    flow = Flow(outside, pod)
    eventually(lambda: {event["listener"] for event in carried(node, before)} == {"inbound", "outbound"})
    node.start()
    pod.enter()
    eventually(lambda: is_clean(pod.netns), what=node.log)
    eventually(lambda: is_clean(node.host) and node.host.run("ipset", "list", "-name") == "", what=node.log)
    assert pod.address in node.probes()
    # By our rules now: new connections go through the tunnel.
    before = len(node.tunnel.events)
    eventually(lambda: {event["listener"] for event in carried(node, before)} == {"inbound", "outbound"})
    time.sleep(0.2)
    flow.end(least=10)
    tables = [line for line in pod.netns.run("nft", "list", "tables").splitlines() if line]
    assert tables == ["table inet ambient-cni"]
    assert "istio-cni's rules in the pod" in node.log() and "istio-cni's rules on the host were replaced" in node.log()
    kinds = [kind for kind, uid in node.tunnel.requests if uid == pod.uid]
    assert "delete" not in kinds, kinds


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_a_pod_that_left_the_mesh_meanwhile_is_released(new_node, backend):  # noqa: F811
    node, outside, pod = istio_node(new_node, backend)
    flow = Flow(outside, pod)
    node.leave()
    node.start()
    eventually(lambda: pod.traces() == "", what=lambda: pod.traces() + node.log())
    # What the tunnel carries had its time (releaseDrainSeconds), what was opened meanwhile went on.
    report = flow.report()
    assert report["lost"] == [] and report["opened"] > 5


def test_legacy_rules_are_told(new_node):  # noqa: F811
    node = new_node(listeners=True)
    pod = node.pod()
    node.join()
    pod.enter()
    node.kill()
    istio.iptables_pod(pod.netns, variant="legacy")
    node.start()
    eventually(lambda: "legacy iptables" in node.log(), what=node.log)
    assert "nsenter --net=PATH" in node.log()
    pod.enter()
