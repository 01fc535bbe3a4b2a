"""Whole nodes for the tests of this folder; each is closed, and its tunnel asked for violations, whatever the test did."""
import pytest

from .cluster import ClusterNode
from .node import Node


@pytest.fixture
def new_node(tmp_path):
    made = []

    def make(**options):
        made.append(Node(tmp_path, **options))
        return made[-1]

    yield make
    for node in made:
        node.close()


@pytest.fixture
def node(new_node):
    return new_node()


@pytest.fixture
def new_cluster(tmp_path):
    made = []

    def make(**options):
        made.append(ClusterNode(tmp_path, **options))
        return made[-1]

    yield make
    for node in made:
        node.close()


@pytest.fixture
def cluster(new_cluster):
    return new_cluster()
