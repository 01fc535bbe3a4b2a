"""Running pods enter and leave the mesh while they talk: nothing that is open breaks, nothing new is refused or reset."""
import json
import os
import random
import socket
import subprocess
import sys
import time

import pytest

from .node import HERE, die_with_parent, eventually

FLIPS = int(os.environ.get("AMBIENT_FLIPS", "5"))


class Flow:
    """Traffic between a pod of the mesh and one outside, in both directions, from here to `end`."""

    def __init__(self, outside, pod, interval=0.005):
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "flow.py"), outside.path, pod.path, f"{outside.address},{outside.address6}",
             f"{pod.address},{pod.address6}", str(interval)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent)
        assert self.process.stdout.readline() == "ready\n"

    def end(self, least):
        """Nothing was lost."""
        report = json.loads(self.process.communicate()[0])
        assert not report["lost"], f"{len(report['lost'])} of {report['opened']} lost: {report['lost'][:8]}"
        assert report["opened"] >= least
        for direction, state in report["lasting"].items():
            assert state["failure"] is None, (direction, state)
            assert state["answers"] > least / 20, (direction, state)
        return report


def carried(node, since=0):
    return [event for event in node.tunnel.events[since:] if event["event"] == "carried"]


def test_flips_under_traffic(new_node):
    node = new_node(listeners=True, drain=1)
    outside, pod = node.pod(show=False), node.pod()
    flow = Flow(outside, pod)
    for _ in range(FLIPS):
        before = len(node.tunnel.events)
        node.join()
        pod.enter()
        # New connections go through the tunnel now, in both directions.
        eventually(lambda: {event["listener"] for event in carried(node, before)} == {"inbound", "outbound"})
        time.sleep(0.2)
        node.leave()
        eventually(lambda: not pod.redirects())
        time.sleep(0.05)
        before = len(node.tunnel.events)
        pod.exit()
        assert not carried(node, before)
    flow.end(least=FLIPS * 30)


def test_labelled_again_before_the_release_is_over(new_node):
    node = new_node(listeners=True, drain=30)
    outside, pod = node.pod(show=False), node.pod()
    node.join()
    pod.enter()
    flow = Flow(outside, pod)
    for _ in range(FLIPS):
        node.leave()
        eventually(lambda: not pod.redirects())
        time.sleep(0.1)
        node.join()
        eventually(pod.redirects)
        time.sleep(0.1)
    flow.end(least=FLIPS * 20)
    kinds = [kind for kind, uid in node.tunnel.requests if uid == pod.uid]
    assert "delete" not in kinds, kinds


def test_what_the_tunnel_carries_is_drained_to_its_end(new_node):
    node = new_node(listeners=True, drain=60)
    outside, pod = node.pod(show=False), node.pod()
    with pod.netns:
        server = socket.create_server(("0.0.0.0", 7100))
    node.join()
    pod.enter()
    with outside.netns:
        client = socket.create_connection((pod.address, 7100), timeout=5)
    peer, _ = server.accept()
    peer.settimeout(5)

    def talks():
        client.sendall(b"?")
        peer.sendall(peer.recv(1))
        return client.recv(1) == b"?"

    assert talks() and carried(node)[-1]["listener"] == "inbound"
    node.leave()
    eventually(lambda: not pod.redirects())
    began = time.monotonic()
    while time.monotonic() - began < 4:  # longer than the least that a drain takes
        assert talks()
        time.sleep(0.01)
    assert pod.uid in node.tunnel.workloads and pod.is_probed()
    client.close()
    peer.close()
    closed = time.monotonic()
    pod.exit()
    assert time.monotonic() - closed < 3


def test_the_label_comes_while_no_tunnel_is_connected(new_node):
    node = new_node(listeners=True, tunnel=False, drain=1)
    outside, pod = node.pod(show=False), node.pod()
    flow = Flow(outside, pod)
    node.join()
    eventually(pod.has_table)
    time.sleep(0.5)
    assert not pod.redirects()
    node.connect()
    pod.enter()
    eventually(lambda: carried(node))
    # And while it is away again, nothing is taken back: its listeners stay in the pod.
    node.leave()
    pod.exit()
    flow.end(least=30)


@pytest.mark.parametrize("seed", [1, 2])
def test_a_storm_of_labels(new_cluster, seed):
    """Of namespace and pods, faster than anything can follow, with a drain that nearly ends and a tunnel that redials in between: no
    connection is lost, and when it is over all is as the labels say."""
    node = new_cluster(listeners=True, drain=1)
    choice = random.Random(seed)
    outside = node.pod(show=False)
    pods = [node.pod() for _ in range(3)]
    flow = Flow(outside, pods[0], 0.02)
    modes = ({"istio.io/dataplane-mode": "ambient"}, {"istio.io/dataplane-mode": "none"}, {})
    is_in = False
    end = time.monotonic() + 5
    while time.monotonic() < end:
        what = choice.random()
        if what < 0.5:
            is_in = not is_in
            (node.join if is_in else node.leave)()
        elif what < 0.97:
            pod = choice.choice(pods)
            pod.labels = dict(choice.choice(modes))
            pod.show()
        else:
            node.tunnel.disconnect()
        # Mostly at once, now and then long enough for a way in, or for most of a way out.
        time.sleep(choice.choice([0, 0, 0.002, 0.02, 0.05, 0.3]))
    for pod in pods:
        pod.labels = {}
        pod.show()
    node.join()
    node.enabled(pods)
    node.leave()
    for pod in pods:
        pod.exit()
        eventually(lambda pod=pod: pod.annotation() is None)
    flow.end(least=100)
    assert node.get("/pods") and not any(pod["lastError"] for pod in node.pods().values())
    assert "somebody changed" not in node.log()
