"""Whatever of the node is restarted, and the node itself: pods of the mesh stay in it, new ones enter it, no connection breaks."""
import signal
import time

import pytest

from .churn import Churn
from .machine import ADDRESS
from .pods import MODE, client, container, server
from .probed import Probed
from .waiting import wait_until

AMBIENT = {MODE: "ambient"}


@pytest.fixture
def pair(node, make_workspace):
    """A client and a server in the mesh, with traffic on; at the end nothing may be lost."""
    workspace = make_workspace(node, AMBIENT)
    workspace.create_pair()
    yield workspace


def check_pair(node, workspace):
    workspace.wait_traffic("client")
    traffic = workspace.traffic("client")
    assert traffic.lost == 0, f"{traffic}\n{node.product.log()}"
    assert workspace.restarts("client") == workspace.restarts("server") == 0
    for name in ("client", "server"):
        assert workspace.redirection(name) == "enabled"
        assert node.product.is_redirected(workspace.uid(name))


def restart_apiserver(node):
    node.cluster.stop("apiserver", signal.SIGKILL)
    time.sleep(5)
    node.cluster.start_apiserver()


def restart_containerd(node):
    node.cluster.stop("containerd")
    time.sleep(1)
    node.cluster.start_containerd()


def restart_kubelet(node):
    node.cluster.stop("kubelet")
    time.sleep(1)
    node.cluster.start_kubelet()


def restart_agent(node):
    node.product.restart()


def kill_agent(node):
    """As the out-of-memory killer does; the kubelet starts the container again."""
    restarts = node.product.restarts()
    node.agent_may_end = True
    node.machine.run("pkill", "-KILL", "-f", "^ambient-installer run")
    wait_until(lambda: node.product.restarts() > restarts, 60, "the agent's container is started again", explain=node.product.explain)
    node.product.wait_ready()


@pytest.mark.parametrize("restart", [restart_containerd, restart_kubelet, restart_agent, kill_agent, restart_apiserver])
def test_a_restart_under_churn(node, make_workspace, pair, restart):
    port = node.serve_outside()
    # A kubelet that starts calls every pod unready until its first probe, and one that finds no runtime probes nothing by exec.
    probed = None if restart in (restart_kubelet, restart_containerd) else Probed(make_workspace(node, AMBIENT))
    workspace, events = make_workspace(node, AMBIENT), node.product.events()
    with Churn(workspace, port) as churn:
        wait_until(lambda: len(churn.finished) >= 2, 60, "the churn runs", explain=workspace.explain)
        restart(node)
        node.cluster.wait_ready()
        finished = len(churn.finished)
        wait_until(lambda: len(churn.finished) >= finished + 2, 90, "the churn goes on",
                   explain=lambda: "\n".join(churn.problems) + workspace.explain() + node.product.log())
    wait_until(lambda: not churn.check(events), 30, "the tunnel is told of every pod's end", explain=lambda: str(churn.check(events)))
    check_pair(node, pair)
    if probed:
        probed.check()


def test_the_tunnel_is_restarted(node, make_workspace):
    """Its connections end with it; what opens afterwards passes the new one, and `enabled` stays all the while."""
    workspace = make_workspace(node, AMBIENT)
    workspace.create_pair()
    node.machine.programs["tunnel"].stop()
    time.sleep(1)
    assert workspace.redirection("server") == workspace.redirection("client") == "enabled"
    # A pod of the mesh waits for a tunnel, one outside does not.
    workspace.create("waiting", container("idle", "workload", "pause"))
    outside = make_workspace(node)
    outside.create("outside", container("idle", "workload", "pause"))
    outside.wait_ready("outside")
    assert not workspace.is_ready("waiting")
    node.product.start_tunnel()
    events = node.product.events()
    events.wait(event="hbone", uid=workspace.uid("server"))
    workspace.wait_ready("waiting")
    workspace.wait_traffic("client")
    assert workspace.redirection("server") == workspace.redirection("client") == workspace.redirection("waiting") == "enabled"


def test_the_node_reboots(node, make_workspace):
    port = node.serve_outside()
    workspace, outside = make_workspace(node, AMBIENT), make_workspace(node)
    # Each tells in its own words whether its first packet after the reboot was carried: the tunnel does.
    workspace.create("mesh", server(8080), init=[container("init", "workload", "first", ADDRESS[4], str(port))])
    outside.create("plain", server(8080))
    workspace.wait_ready("mesh")
    outside.wait_ready("plain")
    uid, address = workspace.uid("mesh"), workspace.address("mesh")
    restarts = node.product.restarts()
    node.agent_may_end = True
    node.machine.reboot()
    node.serve_outside()
    node.cluster.start()
    node.product.start_tunnel()
    events = node.product.events()
    wait_until(lambda: node.product.restarts() > restarts and node.product.is_ready(), 120, "the agent is back",
               explain=node.product.explain)
    wait_until(lambda: workspace.restarts("mesh") and workspace.is_ready("mesh"), 120, "the pod of the mesh is back",
               explain=lambda: workspace.explain() + node.product.log())
    wait_until(lambda: outside.restarts("plain") and outside.is_ready("plain"), 60, "the pod outside is back", explain=outside.explain)
    assert workspace.uid("mesh") == uid
    workspace.wait_redirection("mesh", "enabled")
    assert node.product.is_redirected(uid)
    assert workspace.log("mesh", "init").strip() == f"pong 1 from {workspace.address('mesh')}"
    assert events.all(event="outbound", uid=uid)
    assert address == workspace.address("mesh") or not node.product.is_probed(address)
    assert outside.redirection("plain") is None


@pytest.mark.on("bridge-dual-containerd1", "ptp-ipv4-containerd2")
def test_the_agent_is_away_for_a_minute(node, make_workspace):
    workspace, outside = make_workspace(node, AMBIENT), make_workspace(node)
    workspace.create("server", server(8080))
    outside.create("client", server(8080))
    workspace.wait_ready("server")
    workspace.create("client", client(workspace.address("server"), 8080))
    workspace.wait_ready("client")
    outside.wait_ready("client")
    node.product.stop()
    try:
        begin = time.monotonic()
        outside.create("new", server(8080))
        outside.wait_ready("new", seconds=30)
        workspace.create("waiting", container("idle", "workload", "pause"))
        while time.monotonic() < begin + 60:
            ready, = [condition for condition in node.cluster.find_node()["status"]["conditions"] if condition["type"] == "Ready"]
            assert ready["status"] == "True", ready
            assert workspace.get("waiting")["status"]["phase"] == "Pending"
            time.sleep(2)
        # A namespace that is labelled meanwhile: what starts there is healed when the agent is back.
        outside.label("ambient")
        outside.create("late", server(8080))
        outside.wait_ready("late", seconds=30)
        assert workspace.redirection("server") == "enabled"
    finally:
        node.product.resume()
    workspace.wait_ready("waiting")
    assert workspace.redirection("waiting") == "enabled"
    for name in ("client", "new", "late"):
        outside.wait_redirection(name, "enabled")
        assert node.product.is_redirected(outside.uid(name))
    check_pair(node, workspace)
