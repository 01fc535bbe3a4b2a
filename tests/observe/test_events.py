"""Events of the Kubernetes kind: on pods and on the node, each once in a while, and never so many that they weigh."""
import json
import time

import pytest

from tests.agent.cluster import ClusterNode
from tests.agent.node import Node, eventually


@pytest.fixture
def cluster(tmp_path):
    cluster = ClusterNode(tmp_path, drain=0)
    yield cluster
    cluster.close()


def told(cluster, about=None, reason=None):
    return [event for event in cluster.api.events if (about is None or event["involvedObject"]["name"] == about)
            and (reason is None or event["reason"] == reason)]


def count(cluster, result):
    text = cluster.request("GET", "/metrics")[1]
    (line,) = [line for line in text.splitlines() if line.startswith(f'ambient_cni_events_total{{result="{result}"}}')]
    return int(line.split()[-1])


def test_a_pod_is_told_once_in_a_while(cluster):
    pod = cluster.pod()
    for _ in range(3):
        cluster.join()
        cluster.enabled()
        cluster.leave()
        eventually(lambda: not pod.is_in() and pod.annotation() is None)
    eventually(lambda: told(cluster, pod.name, "Released"))
    (enrolled,) = told(cluster, pod.name, "Enrolled")
    assert enrolled["involvedObject"]["kind"] == "Pod" and enrolled["involvedObject"]["uid"] == pod.uid
    assert enrolled["involvedObject"]["namespace"] == pod.namespace and enrolled["type"] == "Normal"
    assert "istio.io/dataplane-mode=ambient" in enrolled["message"] and enrolled["source"]["host"] == "node"
    (released,) = told(cluster, pod.name, "Released")
    eventually(lambda: count(cluster, "held-back") >= 4)
    eventually(lambda: count(cluster, "sent") == len(cluster.api.events))
    # The page shows all of them, as one line with a count.
    happened = {event["reason"]: event for event in cluster.get("/status")["events"] if event["pod"] == pod.key}
    assert happened["Enrolled"]["count"] == 3 and released["message"] == happened["Released"]["message"]


def test_a_repair_is_a_warning(cluster):
    pod = cluster.pod()
    cluster.join()
    cluster.enabled()
    pod.netns.run("nft", "flush", "chain", "inet", "ambient-cni", "output-redirect")
    (event,) = eventually(lambda: told(cluster, pod.name, "RedirectionRepaired"))
    assert event["type"] == "Warning" and "output-redirect" in event["message"]


def test_a_burst_leaves_room_for_warnings(cluster):
    pods = [cluster.pod() for _ in range(40)]
    cluster.join()
    cluster.enabled()
    eventually(lambda: count(cluster, "held-back") > 0)
    assert 25 <= len(told(cluster, reason="Enrolled")) <= 35
    pods[0].netns.run("nft", "flush", "chain", "inet", "ambient-cni", "output-redirect")
    eventually(lambda: told(cluster, pods[0].name, "RedirectionRepaired"))


def test_an_api_server_that_refuses_events_harms_nothing(cluster):
    cluster.api.forbidden.append("POST .*/events")
    pod = cluster.pod()
    cluster.join()
    cluster.enabled()
    cluster.leave()
    eventually(lambda: not pod.is_in())
    assert not cluster.api.events


def test_the_node_is_told_of_what_happens_on_the_host(tmp_path):
    for folder in ("bin", "net.d", "source"):
        (tmp_path / folder).mkdir()
    conflist = {"cniVersion": "1.0.0", "name": "podnet", "plugins": [{"type": "bridge"}]}
    (tmp_path / "net.d/10-bridge.conflist").write_text(json.dumps(conflist))
    settings = ["host.install=true", f"host.binDir={tmp_path}/bin", f"host.confDir={tmp_path}/net.d"]
    cluster = ClusterNode(tmp_path, drain=0, settings=settings)
    try:
        (event, *_) = eventually(lambda: [one for one in told(cluster, "node") if one["involvedObject"]["kind"] == "Node"],
                                 what=cluster.log)
        assert event["metadata"]["namespace"] == "default" and event["source"]["host"] == "node"
        eventually(lambda: cluster.get("/status")["host"].get("ready"), what=cluster.log)
        status = cluster.get("/status")
        assert status["host"]["file"] == "10-bridge.conflist" and any(one["pod"] == "" for one in status["events"])
    finally:
        cluster.close()


def test_none_with_a_folder(tmp_path):
    node = Node(tmp_path, drain=0)
    try:
        node.pod()
        node.join()
        node.wait_for("enabled")
        time.sleep(0.1)
        assert count(node, "sent") == count(node, "failed") == 0
        assert [event["reason"] for event in node.get("/status")["events"]] == ["Enrolled"]
    finally:
        node.close()
