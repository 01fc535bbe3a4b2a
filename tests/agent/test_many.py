"""Many pods at once: what would tell of a rate limit, of one thing waiting for the other, or of memory by the pod. The limits leave
room for a busy machine and for sanitizers; `make bench` measures."""
import os

import pytest

from .many import ManyPods

PODS = 100
IS_SANITIZED = "ASAN_OPTIONS" in os.environ


@pytest.fixture
def node(tmp_path):
    node = ManyPods(tmp_path, PODS, settings=["releaseDrainSeconds=0"])
    yield node
    node.close()


def test_a_hundred_pods_flip_side_by_side(node):
    """istio-cni needs 7 s, and 2.8 of the processor's, for as many: one transaction at a time, and a limit of requests."""
    node.start()
    node.connect()
    for is_in in (True, False, True):
        took = node.flip(is_in)
        assert took["cpu"] < (6 if IS_SANITIZED else 1), took
        assert max(took["rules"], took["acks"], took["patches"]) < (20 if IS_SANITIZED else 5), took
    if not IS_SANITIZED:
        assert node.memory("VmHWM") < 25, "istio-cni takes 100 MB and more"
