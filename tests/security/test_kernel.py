"""What the running agent may still ask of the kernel, and what is left of it when it dies: docs/security.md, "A process that was
taken over". tests/unit/test_seccomp.c tries the calls themselves."""
import concurrent.futures
import os
import pathlib
import re

import pytest

from agent.cni import Runtime
from agent.node import Node, eventually

CHART = pathlib.Path(__file__).resolve().parents[2] / "deploy/helm/ambient-cni/templates/daemonset.yaml"
CAPABILITIES = {"DAC_OVERRIDE": 1, "NET_ADMIN": 12, "SYS_PTRACE": 19, "SYS_ADMIN": 21}


class ConfinedNode(Node):
    """Its agent has the capabilities that the chart gives it, and can get no others."""

    def command(self):
        names = "".join(f",+{name.lower()}" for name in CAPABILITIES)
        return ["setpriv", "--bounding-set", f"-all{names}", "--inh-caps", "-all", *super().command()]


@pytest.fixture
def confined(tmp_path):
    made = ConfinedNode(tmp_path, drain=0)
    yield made
    made.close()


def test_capabilities_and_system_calls_under_load(confined):
    """Pods come in and go out, ADDs and DELs are served, the tunnel reconnects: with what the chart gives, and nothing is refused by
    the kernel."""
    granted = set(re.findall(r"^ +- ([A-Z_]+)$", re.search(r"add:\n((?: +[-#].*\n)+)", CHART.read_text())[1], re.MULTILINE))
    assert granted == set(CAPABILITIES)
    node, runtime = confined, Runtime(confined)
    for _ in range(10):
        node.pod()
    new = [node.pod(starts=True, namespace="inside") for _ in range(4)]
    node.join("inside")
    eventually(lambda: len(node.pods()) == 14)

    def serve(pod):
        for _ in range(3):
            runtime.add(pod)
            runtime.delete(pod)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        served = [pool.submit(serve, pod) for pod in new]
        for _ in range(3):
            node.join()
            node.wait_for("enabled", node.pods_made[:10], 30)
            node.leave()
            node.wait_for("none", node.pods_made[:10], 30)
            node.tunnel.disconnect()
        for one in served:
            one.result()
    mask = f"{sum(1 << number for number in CAPABILITIES.values()):016x}"
    for thread in os.listdir(f"/proc/{node.agent.pid}/task"):
        status = dict(re.findall(r"^(\w+):\s*(.*)$", fields(node, f"task/{thread}/status"), re.MULTILINE))
        assert (status["Seccomp"], status["NoNewPrivs"]) == ("2", "1"), status
        assert status["CapEff"] == status["CapBnd"] == mask, status
    assert "not permitted" not in node.log(), node.log()


def fields(node, name):
    with open(f"/proc/{node.agent.pid}/{name}", encoding="ascii") as file:
        return file.read()


def test_system_calls_are_filtered(node):
    status = dict(re.findall(r"^(\w+):\s*(.*)$", fields(node, "status"), re.MULTILINE))
    assert status["Seccomp"] == "2" and status["NoNewPrivs"] == "1", status


def test_nothing_secret_is_in_a_core(node):
    """A core of the agent would hold the API server's token. A program that cores are piped to gets none of its memory."""
    limit = next(line for line in fields(node, "limits").splitlines() if line.startswith("Max core file size"))
    assert limit.split()[4:6] == ["0", "0"], limit
    assert int(fields(node, "coredump_filter"), 16) == 0
