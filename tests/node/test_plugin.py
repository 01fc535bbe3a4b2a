"""The plugin alone behind the real kubelet and both runtimes, without a node agent: `enrollment: always` redirects every pod. No
tunnel is there, so a connection that is captured is refused, and one that is not gets its answer."""
import os
import shutil
import time

import pytest

from .cluster import BIN_DIR, Cluster
from .machine import ADDRESS
from .pods import container, pod
from .waiting import wait_until

PORT = 9000
CHAINED = {"type": "ambient-cni", "enrollment": "always"}


@pytest.fixture(scope="module", params=[("bridge", (4, 6), 1), ("ptp", (4,), 2), ("bridge", (6,), 2), ("ptp", (6, 4), 1)],
                ids=["bridge-dual-containerd1", "ptp-ipv4-containerd2", "bridge-ipv6-containerd2", "ptp-dual6-containerd1"])
def cluster(request, components, build):
    primary, families, containerd = request.param
    cluster = Cluster(components, families, primary, containerd)
    try:
        shutil.copy(os.path.join(build, "ambient-cni"), cluster.machine.path(BIN_DIR))
        cluster.machine.start("server", os.path.join(cluster.machine.state, "workload"), "serve", str(PORT))
        yield cluster
    finally:
        cluster.close()


def first_words(cluster, workspace, name):
    """A pod whose init container sends a packet as the first thing that it does, to each of the node's addresses."""
    once = "; ".join(f"workload first {ADDRESS[family]} {PORT}" for family in cluster.families)
    workspace.create(name, container("idle", "workload", "pause"), init=[container("init", "sh", "-c", f"{once}; true")])
    workspace.wait_ready(name)
    return workspace.log(name, "init").splitlines()


def test_the_first_packet_of_an_init_container_is_captured(cluster, make_workspace):
    workspace = make_workspace(cluster)
    plain = cluster.read_conflist()
    said = first_words(cluster, workspace, "outside")
    assert [line.split(" from ")[0] for line in said] == ["pong 1"] * len(cluster.families)
    assert [line.split(" from ")[1] for line in said] == [workspace.address("outside", family) for family in cluster.families]

    cluster.write_conflist({**plain, "plugins": plain["plugins"] + [CHAINED]})
    try:
        assert first_words(cluster, workspace, "inside") == ["lost: Connection refused"] * len(cluster.families)
        rules = cluster.machine.run("sh", "-c", "for netns in /run/netns/*; do nsenter --net=$netns nft list tables; done")
        assert rules.count("ambient") == 1, rules
        # And it goes, although the configuration and the plugin stay.
        workspace.api.delete("Pod", workspace.name, "inside")
        workspace.wait_gone("inside")
    finally:
        cluster.write_conflist(plain)


def test_no_agent_was_ever_here(cluster, make_workspace):
    """The node is ready, pods of excluded namespaces start, all others wait and say why; when the plugin is taken out, they start."""
    plain = cluster.read_conflist()
    workspace = make_workspace(cluster)
    cluster.write_conflist({**plain, "plugins": plain["plugins"] + [{"type": "ambient-cni"}]})
    try:
        cluster.api.create(pod("excluded", "kube-system", container("idle", "workload", "pause")))
        workspace.create("waiting", container("idle", "workload", "pause"))
        wait_until(lambda: cluster.api.get("Pod", "kube-system", "excluded")["status"]["phase"] == "Running", 30,
                   "a pod of kube-system starts", explain=workspace.explain)
        said = wait_until(lambda: [event["message"] for event in cluster.api.list("Event", workspace.name)
                                   if event["reason"] == "FailedCreatePodSandBox"], 30, "an event says why", explain=workspace.explain)
        assert "ambient-cni" in said[0] and "k8s-app=istio-cni-node" in said[0], said
        # Longer than a runtime that asks for STATUS (containerd 2, CNI 1.1.0: every 5 s) would take to call the node not ready.
        for _ in range(8):
            time.sleep(1)
            cluster.wait_ready(0)
        assert workspace.get("waiting")["status"]["phase"] == "Pending"
    finally:
        cluster.write_conflist(plain)
        cluster.api.delete("Pod", "kube-system", "excluded")
    workspace.wait_ready("waiting")
