"""The same before and after, however often pods are added and deleted, go in and out of the mesh, the tunnel reconnects, and watches
end: descriptors of each kind (sockets, namespaces), memory, state files, the rules and routes of the host and of every pod.

    make soak        10,000 ADD and DEL, 10,000 flips, 200 reconnects, 1,000 watches; a run of make test takes a few of each

SOAK=1 is the whole one. What was counted, and was seen before and after, is printed (docs/hardening.md)."""
import collections
import concurrent.futures
import json
import os
import re
import signal
import time

import pytest

from agent.cluster import ClusterNode
from agent.cni import Runtime
from agent.node import Node, eventually

IS_WHOLE = os.environ.get("SOAK") == "1"
PODS, FLIPS = (50, 200) if IS_WHOLE else (6, 12)  # a flip is of all pods, and each has a reconnect of the tunnel
ADDS = 10000 if IS_WHOLE else 40
WATCHES = 1000 if IS_WHOLE else 10
SLACK_KIB = 1024


def descriptors(node):
    """How many of each kind."""
    folder = f"/proc/{node.agent.pid}/fd"
    kinds = collections.Counter()
    for name in os.listdir(folder):
        try:
            kinds[re.match(r"[a-z_]+|/", os.readlink(f"{folder}/{name}"))[0]] += 1
        except FileNotFoundError:
            pass
    return dict(kinds)


def resident(node):
    with open(f"/proc/{node.agent.pid}/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * 4


ROUTING = "ip rule; ip -6 rule; ip route show table all; ip -6 route show table all; nft -s list ruleset"


def state(node):
    """Of the kernel and the disk, and what the agent has open; all but memory."""
    return {"descriptors": descriptors(node), "files": sorted(path.name for path in node.run_dir.rglob("*")),
            "host": node.host.run("sh", "-c", ROUTING), "pods": [pod.netns.run("sh", "-c", ROUTING) for pod in node.pods_made],
            "host sockets": node.host.run("sh", "-c", "tail -q -n +2 /proc/net/unix /proc/net/netlink | wc -l")}


class Before:
    """What there is before; `check` compares with it, and says what it saw."""

    def __init__(self, node):
        # What a pod needed is closed a second late.
        time.sleep(2.5)
        self.node, self.state, self.resident = node, state(node), resident(node)

    def check(self, what):
        node, last = self.node, {}

        def is_same():
            last.update(state(node))
            return last == self.state
        eventually(is_same, 20, what=lambda: "\n".join(
            f"{key} before: {self.state[key]}\n{key} after: {last[key]}" for key in last if last[key] != self.state[key]))
        after = resident(node)
        print("\nsoak " + json.dumps({"what": what, "descriptors": self.state["descriptors"], "files": len(self.state["files"]),
                                      "resident KiB": [self.resident, after]}))
        # The address sanitizer keeps what was freed for a while, and finds leaks by itself at the end.
        if "ASAN_OPTIONS" not in os.environ:
            assert after <= self.resident + SLACK_KIB, f"{self.resident} KiB resident, now {after}"
        assert node.agent.poll() is None


@pytest.fixture
def node(tmp_path):
    made = Node(tmp_path, drain=0)
    yield made
    if made.agent:
        made.stop(signal.SIGTERM)
    made.close()


def test_flips_and_reconnects(node):
    for _ in range(PODS):
        node.pod()

    def flip():
        node.join()
        node.wait_for("enabled", seconds=60)
        node.leave()
        node.wait_for("none", seconds=60)
        node.tunnel.disconnect()
        node.tunnel.wait(lambda: node.tunnel.is_connected)
    for _ in range(5):
        flip()
    before = Before(node)
    for _ in range(FLIPS):
        flip()
    before.check(f"{PODS * FLIPS} flips, {FLIPS} reconnects of the tunnel")


def test_adds_and_deletes(node):
    runtime, pods = Runtime(node), 4
    node.join()
    for _ in range(pods):
        node.pod(starts=True)
    eventually(lambda: len(node.pods()) == pods)

    def rounds(pod, count):
        for _ in range(count):
            runtime.add(pod)
            assert pod.uid in node.tunnel.workloads
            runtime.delete(pod)
    with concurrent.futures.ThreadPoolExecutor(pods) as pool:
        list(pool.map(rounds, node.pods_made, [3] * pods))
        before = Before(node)
        list(pool.map(rounds, node.pods_made, [ADDS // pods] * pods))
    for pod in node.pods_made:
        pod.exit()
    assert not runtime.attachments() and not runtime.marks()
    before.check(f"{ADDS} ADD and DEL")


def test_watches_that_end(tmp_path):
    """As a server ends them, because the version is too old (410), and cut off."""
    node = ClusterNode(tmp_path, drain=0, settings=["log.level=info"])
    try:
        node.pod()
        node.join()
        node.enabled()

        def watches():
            with node.api.changed:
                return sum("watch=" in path and status == 200 for _, path, status in node.api.requests)

        def again(number):
            seen = watches()
            if number % 2 == 0:
                # One that ends within a second of its beginning is a failure, with growing pauses.
                time.sleep(1.05)
            if number % 20 == 0:
                node.api.cut_connections()
            else:
                node.api.order_watchers("end" if number % 2 == 0 else "expire")
            eventually(lambda: watches() >= seen + 2, 40, what=node.log)
        for number in range(3):
            again(number)
        before = Before(node)
        began, number = watches(), 0
        while watches() < began + WATCHES:
            again(number)
            number += 1
        node.enabled()
        before.check(f"{watches() - began} watches made again")
        node.stop(signal.SIGTERM)
    finally:
        node.close()
