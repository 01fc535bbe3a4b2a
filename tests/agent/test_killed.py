"""kill -9 of the agent after every step of enrolment and release, and the tunnel's end at every message: the node converges,
and nothing is left over."""
import contextlib
import itertools

import pytest

from .cluster import ClusterNode
from .cni import Runtime
from .node import Node, eventually

# Every step of each way is found by looking; the longest way must not be longer than what is tried.
STEPS_MOST = 80
SHARES = 4


def forgive_half_requests(node):
    """Killed between the head of a request and its body."""
    node.api.violations = [text for text in node.api.violations if "the body is no JSON" not in text]


def enrol_and_release_killed_at(node, pod, step, **which):
    """Returns the name of the step of that number in (enrolment, release), None where there were fewer."""
    came = []
    for flip, converge in ((node.join, pod.enter), (node.leave, pod.exit)):
        node.start_to_stop_at(step, **which)
        node.stop_now()
        flip()
        # A step that never comes is one behind the last: then everything is done already.
        while not (killed := node.was_killed(0.05)):
            if len(node.steps()) < step and (pod.is_in if flip == node.join else pod.is_out)():
                break
        if killed or node.was_killed(0.3):
            came.append(node.steps()[-1])
        else:
            came.append(None)
            node.kill()
        node.start()
        converge()
        eventually(lambda: node.enrolled() == ({pod.uid} if flip == node.join else set()))
        node.stop()
    return came


@pytest.mark.parametrize("share", range(SHARES))
def test_killed_at_every_step(new_node, share):
    node = new_node(start=False, tunnel=False, drain=0)
    pod = node.pod()
    node.start()
    node.connect()
    node.stop()
    seen = []
    for step in range(1 + share, STEPS_MOST, SHARES):
        seen.append(enrol_and_release_killed_at(node, pod, step))
        if seen[-1] == [None, None]:
            break
    else:
        raise AssertionError(f"more steps than are tried: {seen}")
    assert all(seen[0]), seen
    node.start()
    pod.exit()


def test_killed_at_every_message_to_the_api_server(new_cluster):
    """Around the annotation's patch: annotation, rules and tunnel agree again after the next start."""
    node = new_cluster(start=False, tunnel=False, drain=0)
    pod = node.pod()
    node.start()
    node.connect()
    node.stop()
    for step in itertools.count(1):
        came = enrol_and_release_killed_at(node, pod, step, AMBIENT_STOP_NAME="socket")
        assert pod.annotation() is None and all(value in ("enabled", None) for value in pod.patches()), pod.patches()
        if came == [None, None]:
            break
        assert step < 20
    assert step > 1 and "enabled" in pod.patches()
    forgive_half_requests(node)


@pytest.mark.parametrize("kind", ["named", "found", "ADD"])
def test_killed_on_the_way_in_and_its_object_goes(tmp_path, kind):
    """Then nobody but the agent's own state tells that the pod was on its way in, whose containers run on: nothing of ours may stay
    in it."""
    node = (ClusterNode if kind == "found" else Node)(tmp_path, drain=0)
    with contextlib.closing(node):
        pod = node.pod(show=False, starts=kind == "ADD")
        if kind == "ADD":
            runtime = Runtime(node)
            pod.show()
            pod.start_by_add(runtime)
            pod.hide()
            eventually(lambda: pod.state() is None)
        node.stop()
        node.join()
        for step in range(1, STEPS_MOST):
            node.start_to_stop_at(step)
            node.tunnel.wait(lambda: node.tunnel.is_ready)
            node.stop_now()
            pod.show()
            while not (killed := node.was_killed(0.05)) and not (len(node.steps()) < step and pod.is_in()):
                pass
            killed = killed or node.was_killed(1.2)  # it is all written down by then
            if not killed:
                node.kill()
            pod.hide()
            node.start()
            pod.exit()
            eventually(lambda: not node.enrolled())
            node.stop()
            if not killed:
                break
        assert 5 < step < STEPS_MOST - 1
        if kind == "ADD":
            node.start()
            runtime.delete(pod)
        if kind == "found":
            forgive_half_requests(node)


@pytest.mark.parametrize("when", ["before", "after"])
def test_the_tunnel_dies_at_every_message(node, when):
    pod, other = node.pod(), node.pod()
    other.annotations["unused"] = "x"
    for message in (("add", pod.uid), ("snapshot-sent", "")):
        node.tunnel.die_at = (*message, when)
        if message[0] == "snapshot-sent":
            node.tunnel.disconnect()
        node.join()
        node.tunnel.wait(lambda: node.tunnel.die_at is None)
        pod.enter()
        other.enter()
        node.leave()
        pod.exit()
        other.exit()
    node.join()
    pod.enter()
    other.enter()
    node.tunnel.die_at = ("delete", pod.uid, when)
    node.leave()
    node.tunnel.wait(lambda: node.tunnel.die_at is None)
    pod.exit()
    other.exit()


def test_tunnel_and_agent_die_in_turn(node):
    """Who comes back first makes no difference."""
    pods = [node.pod() for _ in range(3)]
    node.join()
    for pod in pods:
        pod.enter()
    for first, second in itertools.permutations(("agent", "tunnel")):
        for who in (first, second):
            if who == "agent":
                node.kill()
            else:
                node.tunnel.kill()
        node.start()
        for pod in pods:
            pod.enter()
    for pod in pods:
        assert pod.redirects()
