"""The agent's log: one line for each decision with pod, step, duration and cause, as text or JSON; what plugins say; nothing twice a
second."""
import collections
import datetime
import json
import re

import pytest

from tests.agent.cni import Runtime
from tests.agent.node import Node, eventually

AFTER = r" after \d+\.\d ms: "


def lines(node):
    return [json.loads(line) for line in node.log().splitlines()]


def told(node, step, pod):
    return [line for line in lines(node) if line.get("step") == step and line.get("pod") == pod.key and line["level"] != "debug"]


def the_line(node, step, pod):
    found = eventually(lambda: told(node, step, pod), what=node.log)
    assert len(found) == 1, found
    return found[0]


@pytest.fixture
def node(tmp_path):
    node = Node(tmp_path, drain=0, listeners=True, settings=["log.format=json"])
    yield node
    assert all(set(line) >= {"time", "level", "program", "msg"} for line in lines(node))
    node.close()


def test_each_decision_about_a_running_pod(node):
    pod = node.pod()
    node.join()
    pod.enter()
    entered = the_line(node, "enrol", pod)
    assert re.fullmatch("the pod is in the mesh" + AFTER + r"its namespace has label istio.io/dataplane-mode=ambient .*", entered["msg"])
    assert entered["uid"] == pod.uid and entered["level"] == "info" and entered["program"] == "ambient-installer"
    assert abs(datetime.datetime.fromisoformat(entered["time"].replace("Z", "+00:00")).timestamp() - datetime.datetime.now().timestamp()) < 60
    assert the_line(node, "decide", pod)["msg"].startswith("belongs to the mesh: its namespace has label")
    node.leave()
    pod.exit()
    eventually(lambda: len(told(node, "release", pod)) == 2)
    left = told(node, "release", pod)[-1]
    assert re.fullmatch("the pod is out of the mesh" + AFTER + "no enablement selector matches.*", left["msg"])


def test_each_decision_about_a_new_pod(node):
    runtime = Runtime(node)
    node.label("plain")
    node.join()
    inside, outside = node.pod(starts=True), node.pod(starts=True, namespace="plain")
    runtime.add(inside, config={"logLevel": "debug"})
    assert re.fullmatch("the new pod is in the mesh" + AFTER + "its namespace has label .*", the_line(node, "add", inside)["msg"])
    runtime.add(outside)
    line = the_line(node, "add", outside)
    assert re.fullmatch("the new pod is outside the mesh" + AFTER + "no enablement selector matches.*", line["msg"])
    assert line["uid"] == outside.uid and line["level"] == "info"
    node.tunnel.stop()
    refused = node.pod(starts=True)
    status, answer = runtime.call("ADD", refused, config={"timeoutSeconds": 1})
    assert status != 0 and answer["code"]
    line = the_line(node, "add", refused)
    assert re.fullmatch("the pod can't start yet" + AFTER + ".*tunnel.*", line["msg"]) and line["level"] == "warn"
    # What the plugin says of it itself is here too, as the plugin's.
    plugins = [line for line in lines(node) if line.get("from") == "plugin" and line.get("pod") == inside.key]
    assert any("redirected container" in line["msg"] for line in plugins), node.log()


def test_nothing_twice_a_second(node):
    """Somebody deletes a pod's rules all the time; each is put right, and one line a second says so, with how often."""
    pod = node.pod()
    node.join()
    pod.enter()
    for _ in range(8):
        handles = pod.handles()
        pod.netns.run("nft", "flush", "chain", "inet", "ambient-cni", "output-redirect")
        eventually(lambda: pod.redirects() and len(pod.handles()) == len(handles))

    def repairs():
        return [line for line in lines(node) if line["level"] == "warn" and "put right" in line["msg"] and line["pod"] == pod.key]
    eventually(lambda: sum(int(line.get("repeated", 1)) for line in repairs()) >= 8, what=node.log)
    assert len(repairs()) < 8
    kinds = collections.defaultdict(list)
    for line in lines(node):
        if line["level"] in ("warn", "error"):
            text = re.sub(r"[\d.]+(?= ms)", "", line["msg"])
            kinds[line["level"], text, line.get("pod"), line.get("step")].append(datetime.datetime.fromisoformat(line["time"][:-1]))
    for kind, times in kinds.items():
        for earlier, later in zip(times, times[1:]):
            assert (later - earlier).total_seconds() >= 0.99, (kind, times)
