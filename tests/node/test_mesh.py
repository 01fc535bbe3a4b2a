"""Pods enter and leave the mesh on a real node; on every kind of node."""
import time

import pytest

from .conftest import KINDS
from .machine import ADDRESS
from .pods import MODE, client, container, server
from .probed import CONTAINERS, Probed
from .waiting import wait_until

pytestmark = pytest.mark.on(*KINDS)
AMBIENT = {MODE: "ambient"}


def test_a_new_pod_is_captured_before_its_first_packet(node, make_workspace):
    port = node.serve_outside()
    workspace, events = make_workspace(node, AMBIENT), node.product.events()
    once = "; ".join(f"workload first {ADDRESS[family]} {port}" for family in node.families)
    workspace.create("new", server(8080), init=[container("init", "sh", "-c", once)])
    workspace.wait_ready("new")
    uid = workspace.uid("new")
    assert workspace.redirection("new") == "enabled"
    assert workspace.log("new", "init").splitlines() == [f"pong 1 from {workspace.address('new', family)}" for family in node.families]
    carried = [event["destination"] for event in events.all(event="outbound", uid=uid)]
    assert carried == [[ADDRESS[family], port] for family in node.families]
    assert len(events.all(event="started", uid=uid)) == 1
    # What is gone is told to the tunnel, and leaves the set of probe addresses.
    address = workspace.address("new")
    workspace.api.delete("Pod", workspace.name, "new")
    workspace.wait_gone("new")
    events.wait(event="stopped", uid=uid)
    wait_until(lambda: not node.product.is_probed(address), 15, f"{address} leaves the set of probe addresses")


def test_a_namespace_is_labelled_and_unlabelled_under_traffic(node, make_workspace):
    port = node.serve_outside()
    workspace, outside = make_workspace(node), make_workspace(node)
    workspace.create("server", server(8080))
    workspace.wait_ready("server")
    addresses = [workspace.address("server", family) for family in node.families]
    # From the mesh to the mesh, and out of it; and from outside into it. Each family.
    inner = [client(address, 8080, name=f"to-pod-{at}") for at, address in enumerate(addresses)]
    outward = [client(ADDRESS[family], port, name=f"out-{family}") for family in node.families]
    foreign = [client(address, 8080, name=f"into-mesh-{at}") for at, address in enumerate(addresses)]
    workspace.create("client", *inner, *outward)
    outside.create("client", *foreign)
    workspace.wait_ready("client")
    outside.wait_ready("client")

    def all_traffic():
        return [(where, one["name"], where.traffic("client", one["name"]))
                for where, containers in ((workspace, inner + outward), (outside, foreign)) for one in containers]

    def go_on():
        for where, name, _ in all_traffic():
            where.wait_traffic("client", container=name)
        for where, name, traffic in all_traffic():
            assert traffic.lost == 0, f"{name}: {traffic}\n{node.product.log()}"

    go_on()
    for _ in range(2):
        events = node.product.events()
        workspace.label("ambient")
        for name in ("server", "client"):
            workspace.wait_redirection(name, "enabled")
        go_on()
        uid = {name: workspace.uid(name) for name in ("server", "client")}
        # New connections pass the tunnel; those that were open go on as they are.
        events.wait(event="outbound", uid=uid["client"], onward="tunnel")
        events.wait(event="outbound", uid=uid["client"], onward="direct")
        events.wait(event="hbone", uid=uid["server"])
        events.wait(event="inbound", uid=uid["server"])

        workspace.label(None)
        for name in ("server", "client"):
            workspace.wait_redirection(name, None)
        for name in ("server", "client"):
            wait_until(lambda name=name: not node.product.is_redirected(uid[name]), 30, f"{name} has no redirection")
            events.wait(event="stopped", uid=uid[name], seconds=60)
        go_on()
        assert "ambient" not in node.product.tables(uid["server"])
    assert workspace.restarts("client") == workspace.restarts("server") == outside.restarts("client") == 0


PROBE_ROUNDS = 4  # seconds, of which each has one


def test_probes_stay_green(node, make_workspace):
    workspace = make_workspace(node)
    probed = Probed(workspace)
    for mode, value in (("ambient", "enabled"), (None, None), ("ambient", "enabled")):
        workspace.label(mode)
        for kind in CONTAINERS:
            workspace.wait_redirection(kind, value)
        time.sleep(PROBE_ROUNDS)
        probed.check()
    # A pod that starts in the mesh.
    workspace.create("late", CONTAINERS["http"])
    workspace.wait_ready("late")
    assert workspace.redirection("late") == "enabled"


def test_names_are_resolved_by_the_tunnel(node, make_workspace):
    node.serve_names()
    server_address = ADDRESS[node.families[0]]
    workspace = make_workspace(node)
    resolver = {"dnsPolicy": "None", "dnsConfig": {"nameservers": [server_address]}}
    # Twice a second, for ever.
    ask = "while sleep 0.5; do busybox nslookup -type=a name.example && echo answered || echo lost; done"
    workspace.create("asks", container("asks", "sh", "-c", ask), **resolver)
    workspace.wait_ready("asks")

    def answered():
        return workspace.log("asks", "asks").count("\nanswered")

    def wait_more(count=3):
        start = answered()
        wait_until(lambda: answered() >= start + count, 30, "names are resolved", explain=lambda: workspace.log("asks", "asks")[-2000:])

    wait_more()
    for mode, value in (("ambient", "enabled"), (None, None)):
        workspace.label(mode)
        workspace.wait_redirection("asks", value)
        events = node.product.events()
        wait_more()
        is_captured = bool(events.all(event="dns", uid=workspace.uid("asks")))
        assert is_captured == (mode == "ambient")
    assert "\nlost" not in workspace.log("asks", "asks")
    assert "192.0.2.53" in workspace.log("asks", "asks")
