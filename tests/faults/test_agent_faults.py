"""Every kind of call of the node agent fails once, in the middle of its work: at its start, while pods come in and go out, while it
serves ADD and DEL, when it is stopped. It goes on and converges, or ends with a sentence and converges when it is started again;
nothing is lost on the way, and nothing is left open."""
import http.client
import os
import signal
import time

import pytest

from agent.cni import Runtime
from agent.node import Node, eventually
from .control import CASES, Control, case_name

# Of all times that a call is made: this many, evenly spread (Noted.points).
POINTS = 2
# A thread that cannot come back from a pod's namespace ends the process: by design (netns_leave). Memory that runs out inside
# of libevent ends it too (installer/memory.h): it says so, and the kubelet starts it again.
MAY_DIE = {"setns", "malloc"}


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
    with node.control.noting(call) as flipping:
        node.join()
        node.wait_for("enabled")
        node.leave()
        node.wait_for("none")
    eventually(lambda: len(os.listdir(node.run_dir)) >= 2)
    open_before, pid = descriptors(node), node.agent.pid
    for point in flipping.points(POINTS):
        where = f"{case_name(case)} {point} of {flipping.total}"
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
    with node.control.noting(call) as starting:
        node.start(**node.control.environment)
        node.wait_for("enabled")
    node.stop()
    for point in starting.points(POINTS):
        where = f"{case_name(case)} {point} of {starting.total}"
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


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_add_served(faulty, case):
    """An ADD during which a call of the agent fails: the pod is in the mesh, or the ADD failed with a sentence and left nothing; the
    next ADD succeeds, and after the DEL nothing is left."""
    node, (call, number) = faulty, case
    runtime = Runtime(node)
    pod = node.pod(starts=True, namespace="inside")
    node.join("inside")
    eventually(lambda: node.get(f"/pods/{pod.key}"), what=node.log)

    with node.control.noting(call) as serving:
        runtime.add(pod)
    with node.control.noting(call) as deleting:
        runtime.delete(pod)
        pod.exit()
    settled(node)
    open_before, pid = descriptors(node), node.agent.pid
    for point in serving.points(POINTS):
        where = f"ADD {case_name(case)} {point} of {serving.total}"
        node.control.arm(call, point, number)
        status, answer = runtime.call("ADD", pod)
        node.control.disarm()
        revive(node, call, where)
        if status == 0:
            assert pod.redirects(), (where, node.log()[-4000:])
        else:
            assert status == 1 and answer["code"] > 0 and " " in answer["msg"], (where, answer)
            eventually(lambda: not pod.traces(), what=lambda: f"{where}: {answer}, {pod.traces()}\n{node.log()[-4000:]}")
            eventually(lambda: runtime.call("ADD", pod)[0] == 0, what=lambda: f"{where}: {node.log()[-4000:]}")
        pod.enter()
        runtime.delete(pod)
        pod.exit()
    for point in deleting.points(POINTS):
        where = f"DEL {case_name(case)} {point} of {deleting.total}"
        runtime.add(pod)
        node.control.arm(call, point, number)
        status, answer = runtime.call("DEL", pod)
        eventually(lambda: node.control.fired or pod.is_out(), 5, what=where)
        node.control.disarm()
        revive(node, call, where)
        assert status == 0, (where, answer)
        eventually(pod.is_out, 15, what=lambda: f"{where}: {pod.traces()} {node.probes()}\n{node.log()[-4000:]}")
        assert not runtime.attachments(), where
    if node.agent.pid == pid:
        eventually(lambda: descriptors(node) <= open_before + 2, 10,
                   what=lambda: f"{open_before} descriptors, then {descriptors(node)}")


def settled(node):
    """What a pod needed is closed a second late."""
    last, since = descriptors(node), time.monotonic()
    while time.monotonic() < since + 1.2:
        time.sleep(0.1)
        if descriptors(node) != last:
            last, since = descriptors(node), time.monotonic()


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_stop(faulty, case):
    """It ends, in time, and leaves its pods' rules; the next one takes over what is there."""
    node, (call, number) = faulty, case
    node.join()
    node.wait_for("enabled")
    with node.control.noting(call) as stopping:
        node.stop()
    for point in stopping.points(POINTS):
        where = f"{case_name(case)} {point} of {stopping.total}"
        node.start(**node.control.environment)
        node.wait_for("enabled")
        node.control.arm(call, point, number)
        node.agent.send_signal(signal.SIGTERM)
        status = node.agent.wait(30)
        node.control.disarm()
        assert status in ((0, 1, -6) if call in MAY_DIE else (0,)), f"{where}: exit status {status}: {node.log()[-3000:]}"
        node.agent = None
        assert all(pod.redirects() for pod in node.pods_made), where
    node.start()
    node.wait_for("enabled")
