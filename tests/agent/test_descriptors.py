"""An agent that has no descriptor left waits without being busy, says why, and goes on by itself when there are some again."""
import os
import pathlib
import resource
import time

import pytest

from .cni import Runtime

WAIT = 1.5
BUSY = 0.5  # seconds of the processor in that time


def processor_time(node):
    fields = pathlib.Path(f"/proc/{node.agent.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def leave_descriptors(node, spare):
    """So many more can be opened, beside those that stay open."""
    used = set(range(1 << 10))
    for _ in range(6):
        used &= {int(name) for name in os.listdir(f"/proc/{node.agent.pid}/fd")}
        time.sleep(0.05)
    free = [number for number in range(max(used) + spare + 2) if number not in used]
    resource.prlimit(node.agent.pid, resource.RLIMIT_NOFILE, (free[spare], resource.prlimit(node.agent.pid, resource.RLIMIT_NOFILE)[1]))


def allow_all(node):
    hard = resource.prlimit(node.agent.pid, resource.RLIMIT_NOFILE)[1]
    resource.prlimit(node.agent.pid, resource.RLIMIT_NOFILE, (hard, hard))


def wait_idle(node):
    before = processor_time(node)
    time.sleep(WAIT)
    assert processor_time(node) - before < BUSY, node.log()[-3000:]


@pytest.mark.parametrize("spare", [1, 3, 6])
def test_pods_come_in_when_there_are_descriptors_again(node, spare):
    pods = [node.pod() for _ in range(3)]
    node.wait_for("none")
    leave_descriptors(node, spare)
    node.join()
    node.log_has("Too many open files; it is tried again")
    wait_idle(node)
    assert any(not pod.is_in() for pod in pods)
    allow_all(node)
    for pod in pods:
        pod.enter()


@pytest.mark.parametrize("spare, words", [(0, "installer.sock: cannot accept a connection: Too many open files"),
                                          (1, "a plugin's connection is closed: cannot receive the descriptor that comes with a "
                                              "message: Too many open files")])
def test_an_add_waits_for_a_descriptor(node, spare, words):
    node.join()
    pod = node.pod(starts=True)
    node.wait_for("pending")
    runtime = Runtime(node)
    runtime.config["timeoutSeconds"] = 25
    leave_descriptors(node, spare)
    process = runtime.start("ADD", pod)
    node.log_has(words)
    wait_idle(node)
    assert process.poll() is None
    allow_all(node)
    status, answer = runtime.finish(process)
    assert status == 0 and pod.is_in(), answer
    assert "broke the protocol" not in node.log()


@pytest.mark.parametrize("spare", [2, 3, 6])
def test_an_add_that_lacks_descriptors_is_refused_and_can_be_tried_again(node, spare):
    node.join()
    pod = node.pod(starts=True)
    node.wait_for("pending")
    runtime = Runtime(node)
    leave_descriptors(node, spare)
    status, answer = runtime.call("ADD", pod)
    assert status == 1 and "Too many open files" in answer["msg"], (answer, node.log()[-2500:])
    allow_all(node)
    runtime.add(pod)
    assert pod.is_in()
