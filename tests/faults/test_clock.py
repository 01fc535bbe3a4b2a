"""The clock of the day jumps while the agent runs, as it does on nodes that boot without one: nothing waits, nothing is given up. What
was remembered in the future, or long ago, counts as what was remembered now."""
import json
import time

import pytest

from agent.cni import Runtime
from agent.node import Node, eventually
from .control import Control


@pytest.fixture
def jumping(tmp_path):
    control = Control(tmp_path / "control")
    node = Node(tmp_path, start=False, tunnel=False, drain=1)
    node.control = control
    node.start(**control.environment)
    node.connect()
    yield node
    node.close()


@pytest.mark.parametrize("days", [3650, -3650], ids=["ten years on", "ten years back"])
def test_the_clock_jumps_while_pods_come_in_and_go_out(jumping, days):
    node = jumping
    pods = [node.pod() for _ in range(2)]
    node.join()
    node.wait_for("enabled")
    node.control.set_clock(days)
    year = time.gmtime(time.time() + days * 86400).tm_year
    # In the middle of a drain, and of what waits for a tunnel.
    node.leave()
    time.sleep(0.2)
    node.control.set_clock(0)
    node.wait_for("none")
    node.control.set_clock(days)
    node.tunnel.disconnect()
    node.join()
    for pod in pods:
        pod.enter()
    node.log_has(f"{year}-")
    assert all(pod.view()["since"].startswith(str(year)) for pod in pods)
    # A repair, an ADD and a DEL go on as well.
    pods[0].netns.run("nft", "delete", "table", "inet", "ambient-cni")
    eventually(pods[0].redirects)
    new, runtime = node.pod(starts=True), Runtime(node)
    runtime.add(new)
    runtime.delete(new)
    new.exit()
    assert node.tunnel.is_connected
    node.stop()
    # The next one begins with a clock that is right, and what was written under the wrong one.
    node.control.set_clock(0)
    node.start(**node.control.environment)
    node.wait_for("enabled", pods)


@pytest.mark.parametrize("moment", [7226582400, 0], ids=["2199", "1970"])
def test_what_is_known_to_be_outside_has_no_age(jumping, moment):
    node = jumping
    eventually(lambda: "shop" in node.outside(), what=node.log)
    node.kill()
    path = node.run_dir / "outside.json"
    outside = json.loads(path.read_text())
    assert abs(outside["time"] - time.time()) < 3600, outside
    path.write_text(json.dumps({**outside, "time": moment}))
    pod = node.pod(starts=True)
    Runtime(node).add(pod)
    assert not pod.traces()
