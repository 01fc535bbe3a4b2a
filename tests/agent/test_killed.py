"""kill -9 of the agent after every step of enrolment and release, and the tunnel's end at every message: the node converges,
and nothing is left over."""
import itertools

import pytest

from .node import eventually

# Every step of each way is found by looking; the longest way must not be longer than what is tried.
STEPS_MOST = 80
SHARES = 4


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
    # Killed between the head of a request and its body.
    node.api.violations = [text for text in node.api.violations if "the body is no JSON" not in text]


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
