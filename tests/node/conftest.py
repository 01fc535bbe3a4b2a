"""Fixtures of the real node.

    node   a node with the product installed and the double of the tunnel; shared by the tests that name the same kind of node in
           `pytestmark = on(KIND...)`, and made anew after a test that failed on it."""
import os
import shutil
import time

import pytest

from .cluster import Cluster
from .components import Components, Missing
from .machine import ADDRESS
from .pods import Workspace
from .product import Product

# Primary CNI, families in order, containerd's major version.
KINDS = {
    "bridge-dual-containerd1": ("bridge", (4, 6), 1),
    "ptp-ipv4-containerd2": ("ptp", (4,), 2),
    "bridge-ipv6-containerd2": ("bridge", (6,), 2),
    "ptp-dual6-containerd1": ("ptp", (6, 4), 1),
}
USUAL = "bridge-dual-containerd1"


@pytest.fixture(scope="session")
def components(request):
    return request.config.node_components


def pytest_collection_finish(session):
    """Before the first case: where a component is missing nothing is run. Cases of the machine alone need none."""
    needs = any("components" in getattr(item, "fixturenames", ()) for item in session.items)
    if needs and not session.config.option.collectonly:
        try:
            session.config.node_components = Components()
        except Missing as missing:
            pytest.exit(str(missing), returncode=1)


@pytest.fixture(scope="session")
def build():
    """Where the product was built."""
    return os.path.abspath(os.environ["AMBIENT_BUILD"])


# NODE_SECONDS in the environment: a case begins only within so many seconds from the start (CI). What did not is named at the end.
BEGUN = time.monotonic()
NOT_RUN = []


def pytest_runtest_protocol(item):
    seconds = float(os.environ.get("NODE_SECONDS", "inf"))
    if time.monotonic() < BEGUN + seconds:
        return None
    NOT_RUN.append(item.nodeid)
    return True


def pytest_terminal_summary(terminalreporter):
    if NOT_RUN:
        terminalreporter.section(f"NOT RUN, for want of time: {len(NOT_RUN)} cases", sep="=", red=True)
        for name in NOT_RUN:
            terminalreporter.line(f"NOT RUN {name}")


class Node:
    """A cluster with the product in it, and how each of them was before the test."""

    def __init__(self, components, build, kind):
        primary, families, containerd = KINDS[kind]
        self.kind = kind
        self.agent_may_end = False  # a test says that its container ends in another way than with its pod
        self.cluster = Cluster(components, families, primary, containerd)
        self.machine, self.api, self.families = self.cluster.machine, self.cluster.api, families
        try:
            self.first_conflist = self.cluster.read_conflist()
            self.product = Product(self.cluster, build)
            self.product.start()
        except BaseException:
            self.keep_logs()
            self.close()
            raise

    def serve_outside(self, port=9000):
        """A server that is no pod, on the node's own addresses."""
        if "server" not in self.machine.programs:
            self.machine.start("server", os.path.join(self.machine.state, "workload"), "serve", str(port))
        return port

    def serve_names(self):
        if "names" not in self.machine.programs:
            program = os.path.join(os.path.dirname(os.path.abspath(__file__)), "name_server.py")
            self.machine.start("names", "/usr/bin/python3", program, *(ADDRESS[family] for family in self.families))

    def keep_logs(self, test="start"):
        """The programs' logs of a failed test; NODE_LOGS names the folder."""
        if os.environ.get("NODE_LOGS"):
            folder = os.path.join(os.environ["NODE_LOGS"], test if self.kind in test else f"{test}[{self.kind}]")
            os.makedirs(folder, exist_ok=True)
            for program in self.machine.programs.values():
                shutil.copy(program.log, folder)
            if hasattr(self, "product"):
                with open(os.path.join(folder, "agent.log"), "w", encoding="utf-8") as file:
                    file.write(self.product.explain())

    def close(self):
        self.cluster.close()


@pytest.fixture(scope="session")
def _nodes():
    nodes = {}
    yield nodes
    for node in nodes.values():
        node.close()


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    outcome = yield
    report = outcome.get_result()
    if report.when == "call":
        item.failed_in_call = report.failed


def pytest_generate_tests(metafunc):
    if "node" in metafunc.fixturenames:
        marker = metafunc.definition.get_closest_marker("on")
        metafunc.parametrize("node", marker.args if marker else [USUAL], indirect=True, scope="function")


def pytest_configure(config):
    config.addinivalue_line("markers", "on(kinds): the kinds of node that a test runs on")


def pytest_collection_modifyitems(items):
    """All tests of one kind of node one after the other: one node stands at a time."""
    def kind(item):
        parameters = getattr(item, "callspec", None)
        named = parameters.params.get("node") if parameters else None
        return list(KINDS).index(named) if named else -1
    items.sort(key=kind)


@pytest.fixture
def node(request, _nodes, components, build):
    kind = request.param
    for other in [other for other in _nodes if other != kind]:
        _nodes.pop(other).close()
    if kind not in _nodes:
        _nodes[kind] = Node(components, build, kind)
    node = _nodes[kind]
    node.agent_may_end = False
    agent, restarts = node.product.agent(), node.product.restarts()
    yield node
    is_failed = getattr(request.node, "failed_in_call", True)
    try:
        if not is_failed:
            node.product.check_tunnel()
            if node.product.is_installed():
                node.product.wait_ready()
                if node.product.agent() == agent and not node.agent_may_end:
                    assert node.product.restarts() == restarts, f"the agent's container ended by itself\n{node.product.explain()}"
    except BaseException:
        is_failed = True
        raise
    finally:
        if is_failed:
            node.keep_logs(request.node.name)
            _nodes.pop(kind).close()


@pytest.fixture
def make_workspace():
    made = []

    def make(node, labels=None, prefix="case"):
        made.append(Workspace(getattr(node, "cluster", node), prefix, labels))
        return made[-1]

    yield make
    for workspace in reversed(made):
        workspace.close()
