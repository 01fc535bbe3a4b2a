"""Tunnels that come, go, overlap, refuse and break the protocol."""
import socket
import time

import pytest

from peers.tunnel import Tunnel

from .node import eventually
from .test_flips import Flow


def test_two_tunnels_during_an_upgrade(node):
    pods = [node.pod() for _ in range(2)]
    node.join()
    for pod in pods:
        pod.enter()
    old = node.tunnel
    new = Tunnel(node.tunnel_path).start()
    new.wait(lambda: set(new.workloads) == {pod.uid for pod in pods} and new.is_ready)
    late = node.pod()
    new.wait(lambda: late.uid in new.workloads)
    assert late.uid not in old.workloads, "an Add goes to the newest"
    # A Del goes to both.
    pods[0].show(**{"istio.io/dataplane-mode": "none"})
    new.wait(lambda: pods[0].uid not in new.workloads)
    old.wait(lambda: pods[0].uid not in old.workloads)
    node.tunnel = new
    late.enter()
    old.stop()
    old.check()
    time.sleep(0.1)
    assert late.is_in() and pods[1].is_in()


def test_the_newest_tunnel_goes_first(node):
    """The older one learns what it missed."""
    pod = node.pod()
    node.join()
    pod.enter()
    old = node.tunnel
    new = Tunnel(node.tunnel_path, redial=False).start()
    new.wait(lambda: new.is_ready)
    late = node.pod()
    new.wait(lambda: late.uid in new.workloads)
    new.stop()
    new.check()
    old.wait(lambda: late.uid in old.workloads)
    late.enter()
    pod.enter()


@pytest.mark.parametrize("older", ["has accepted", "accepts later"])
def test_the_newest_tunnel_refuses_what_the_older_one_takes(new_cluster, older):
    """The newest one's answer counts: it is the one that carries new connections when the older one goes."""
    cluster = new_cluster()
    pod = cluster.pod()
    old = cluster.tunnel
    if older == "accepts later":
        old.hold(True)
        cluster.join()
        eventually(pod.has_table)
    else:
        cluster.join()
        cluster.enabled()
    new = Tunnel(cluster.tunnel_path)
    new.refuse[pod.uid] = "no room"
    new.start()
    new.wait(lambda: ("add", pod.uid) in new.requests and new.is_connected)
    old.hold(False)
    old.wait(lambda: pod.uid in old.workloads)
    if older == "has accepted":
        # Its redirects stay, and its peers are told.
        eventually(lambda: pod.annotation() == "pending" and pod.state() == "failed", what=cluster.log)
        assert pod.redirects()
    else:
        time.sleep(0.3)
        assert pod.annotation() is None and not pod.redirects() and pod.state() == "failed"
    assert "no room" in pod.view()["lastError"]
    del new.refuse[pod.uid]
    cluster.tunnel = new
    cluster.enabled()
    assert pod.view()["lastError"] == ""
    old.stop()
    old.check()
    time.sleep(0.2)
    assert pod.is_enabled()


def test_reconnects_one_after_the_other(node):
    pods = [node.pod() for _ in range(5)]
    node.join()
    for pod in pods:
        pod.enter()
    handles = [pod.handles() for pod in pods]
    for number in range(6):
        (node.tunnel.kill if number % 2 else node.tunnel.disconnect)()
        node.tunnel.wait(lambda: node.tunnel.connections == number + 2 and node.tunnel.is_ready, 20)
        node.tunnel.wait(lambda: len(node.tunnel.workloads) == 5)
    for pod in pods:
        pod.enter()
    assert [pod.handles() for pod in pods] == handles


def test_labels_change_while_it_is_away(node):
    staying, leaving = node.pod(), node.pod()
    node.join()
    staying.enter()
    leaving.enter()
    node.tunnel.stop()
    leaving.show(**{"istio.io/dataplane-mode": "none"})
    eventually(lambda: not leaving.traces(), 10)
    coming = node.pod()
    eventually(coming.has_table)
    assert not coming.redirects() and staying.redirects()
    node.connect()
    staying.enter()
    coming.enter()
    assert leaving.uid not in node.tunnel.workloads and ("add", leaving.uid) not in node.tunnel.requests


@pytest.mark.parametrize("end", ["comes-back", "dies"])
def test_a_release_while_the_tunnel_that_listens_in_the_pod_is_away(new_node, end):
    """It runs, but is not connected, so that it can't be told: nothing of the pod goes its way any more, and the guard stands before
    its listeners as long as they do. Else it would take a connection to one of them for one to itself, and dial itself without
    end."""
    node = new_node(listeners=True, drain=1)
    outside, pod = node.pod(show=False), node.pod()
    flow = Flow(outside, pod)
    node.join()
    pod.enter()
    node.tunnel.stay_away(True)
    node.leave()
    eventually(lambda: not pod.redirects())
    time.sleep(0.05)
    before = len(node.tunnel.events)
    eventually(lambda: node.pods()[pod.key]["waitingFor"].startswith("no tunnel is connected, and one"), what=node.log)
    assert pod.uid in node.tunnel.workloads

    def connects(port):
        with outside.netns:
            sock = socket.socket()
        with sock:
            sock.settimeout(5)
            return sock.connect_ex((pod.address, port)) == 0
    assert connects(15008) and not connects(15001) and not connects(15006)
    time.sleep(2.5)  # a drain's time, and two looks
    assert not connects(15001) and not connects(15006)
    if end == "dies":
        node.tunnel.kill()
        eventually(lambda: not pod.traces(), what=node.log)
        assert not node.tunnel.is_connected
        node.tunnel.stay_away(False)
        node.tunnel.wait(lambda: node.tunnel.is_ready)
    else:
        node.tunnel.stay_away(False)
    pod.exit()
    assert not any(map(connects, (15001, 15006, 15008)))
    flow.end(least=200)
    assert not [event for event in node.tunnel.events[before:] if event["event"] == "carried" and event["listener"] != "hbone"]


def test_one_refused_pod_holds_up_no_other(node):
    bad, good = node.pod(), node.pod()
    node.tunnel.refuse[bad.uid] = "cannot bind"
    node.join()
    good.enter()
    node.log_has("cannot bind")
    eventually(lambda: [kind for kind, uid in node.tunnel.requests if uid == bad.uid].count("add") >= 4)
    time.sleep(1)
    adds = [kind for kind, uid in node.tunnel.requests if uid == bad.uid].count("add")
    assert adds < 20, f"{adds} Adds: the pause grows"
    assert not bad.redirects() and good.is_in()
    del node.tunnel.refuse[bad.uid]
    bad.enter()


def test_a_tunnel_that_stops_answering_is_left(node):
    """After 5 s without an answer its connection is closed; the next one's snapshot heals everything."""
    pod = node.pod()
    node.tunnel.hold(True)
    node.join()
    eventually(pod.has_table)
    node.log_has("not answer", 10)
    assert not pod.redirects()
    node.tunnel.hold(False)
    pod.enter()


def test_tunnels_that_break_the_protocol(node):
    pod = node.pod()
    node.join()
    pod.enter()
    for sent in (b"\xff\xff\xff", b"\x0a\x00", b"x" * 1024):
        rude = Tunnel(node.tunnel_path, redial=False).start()
        rude.wait(lambda: rude.is_ready)
        rude.send(sent)
        rude.wait(lambda: not rude.is_connected, 10)
        rude.stop()
    silent = Tunnel(node.tunnel_path, hello=None, redial=False).start()
    silent.wait(lambda: [event for event in silent.events if event["event"] == "disconnected"], 10)
    silent.stop()
    node.tunnel.wait(lambda: node.tunnel.is_connected)
    late = node.pod()
    late.enter()
    assert pod.is_in()


def test_somebody_unlinks_the_socket(node):
    """A leaving istio-cni removes the path, whoever owns it."""
    pod = node.pod()
    node.join()
    pod.enter()
    node.tunnel_path.unlink()
    eventually(node.tunnel_path.exists, 5)
    node.tunnel.kill()
    pod.enter()
