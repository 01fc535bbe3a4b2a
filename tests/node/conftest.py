"""Fixtures of the real node."""
import os

import pytest

from .components import Components
from .pods import Workspace


@pytest.fixture(scope="session")
def components():
    return Components()


@pytest.fixture(scope="session")
def build():
    """Where the product was built."""
    return os.path.abspath(os.environ["AMBIENT_BUILD"])


@pytest.fixture
def make_workspace():
    made = []

    def make(cluster, prefix="case", labels=None):
        made.append(Workspace(cluster, prefix, labels))
        return made[-1]

    yield make
    for workspace in made:
        workspace.close()
