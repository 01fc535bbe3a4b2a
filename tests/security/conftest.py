import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from agent.node import Node  # noqa: E402


@pytest.fixture
def node(tmp_path):
    made = Node(tmp_path)
    yield made
    made.close()


def is_sanitized():
    return "asan" in os.environ.get("AMBIENT_BUILD", "")
