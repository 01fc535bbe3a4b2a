"""Every kind of call of the node agent fails once, in the middle of its work: at its start, while pods come in and go out. It
goes on and converges, or ends with a sentence and converges when it is started again; nothing is lost on the way, and nothing
is left open."""
import http.client
import os

import pytest

from agent.node import Node, eventually
from .control import CASES, Control, case_name

POINTS = 1000 if os.environ.get("FAULTS") == "all" else 2
# A thread that cannot come back from a pod's namespace ends the process: by design (netns_leave). Memory that runs out inside
# of libevent ends it too (event_err): it says so, and the kubelet starts it again.
MAY_DIE = {"setns", "malloc"}


def points(total):
    step = max(1, -(-total // POINTS))
    return range(1, total + 1, step)


@pytest.fixture
def faulty(tmp_path):
    control = Control(tmp_path / "control")
    node = Node(tmp_path, start=False, tunnel=False)
    node.control = control
    node.start(**control.environment)
    node.connect()
    for _ in range(2):
        node.pod()
    yield node
    node.close()


def revive(node, call, where):
    """Starts the agent again if it ended."""
    if node.agent.poll() is None:
        return
    assert call in MAY_DIE, f"{where}: exit status {node.agent.returncode}: {node.log()[-3000:]}"
    assert node.agent.returncode != -11, f"{where}: {node.log()[-3000:]}"
    node.start(**node.control.environment)


def settle(node, call, state, where):
    """Waits until the pods are what they should be, over the agent's end if need be."""
    def reached():
        revive(node, call, where)
        try:
            # Without memory the answer is an error, or none.
            listed = node.get("/pods")
        except (OSError, http.client.HTTPException):
            listed = None
        if listed is None:
            return False
        seen = {f"{pod['namespace']}/{pod['name']}": pod for pod in listed}
        return all((seen.get(pod.key) or {"state": "none"})["state"] == state for pod in node.pods_made)
    eventually(reached, 30, what=lambda: f"{where}: {node.get('/pods')}\n{node.log()[-5000:]}")
    node.control.disarm()


def descriptors(node):
    return len(os.listdir(f"/proc/{node.agent.pid}/fd"))


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_flip(faulty, case):
    node, (call, number) = faulty, case
    before = node.control.counts()[call]
    node.join()
    node.wait_for("enabled")
    joining = node.control.counts()[call] - before
    node.leave()
    node.wait_for("none")
    eventually(lambda: len(os.listdir(node.run_dir)) >= 2)
    open_before, pid = descriptors(node), node.agent.pid
    for point in points(joining):
        where = f"{case_name(case)} {point} of {joining}"
        node.control.arm(call, point, number)
        node.join()
        settle(node, call, "enabled", where)
        assert all(pod.redirects() for pod in node.pods_made), where
        node.control.arm(call, point, number)
        node.leave()
        settle(node, call, "none", where)
        eventually(lambda: not any(pod.has_table() for pod in node.pods_made), 10,
                   what=lambda: f"{where}: {node.log()[-5000:]}")
    if node.agent.pid == pid:
        # Sessions of pods that went are closed a while later.
        eventually(lambda: descriptors(node) <= open_before + 2, 10,
                   what=lambda: f"{open_before} descriptors, then {descriptors(node)}")
    node.tunnel.check()


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_start(faulty, case):
    """With pods of the mesh that must not lose their rules."""
    node, (call, number) = faulty, case
    node.join()
    node.wait_for("enabled")
    node.stop()
    before = node.control.counts()[call]
    node.start(**node.control.environment)
    node.wait_for("enabled")
    starting = node.control.counts()[call] - before
    node.stop()
    for point in points(starting):
        where = f"{case_name(case)} {point} of {starting}"
        node.control.arm(call, point, number)
        node.start(wait=False, **node.control.environment)
        started = node.agent
        eventually(lambda: started.poll() is not None or (node.run_dir / "admin.sock").exists(), 10, what=node.log)
        if started.poll() is not None:
            assert started.returncode in (1, 2, -6), f"{where}: exit status {started.returncode}: {node.log()[-3000:]}"
            node.control.disarm()
            node.start(**node.control.environment)
        settle(node, call, "enabled", where)
        assert all(pod.redirects() for pod in node.pods_made), where
        node.stop()
        assert all(pod.redirects() for pod in node.pods_made), where
