"""The same before and after: descriptors, memory, files and rules, however often pods go in and out and the tunnel reconnects.

    make soak FLIPS=100      a run of make test is short"""
import os
import signal
import time

from agent.node import Node, eventually

PODS = 6


def descriptors(node):
    return len(os.listdir(f"/proc/{node.agent.pid}/fd"))


def test_flips_leak_nothing(tmp_path):
    """Descriptors, memory, files and rules after many flips and reconnects are those of before. SOAK_FLIPS: how many."""
    node = Node(tmp_path, drain=0)
    try:
        for _ in range(PODS):
            node.pod()

        def measure():
            with open(f"/proc/{node.agent.pid}/statm", encoding="ascii") as file:
                resident = int(file.read().split()[1]) * 4
            return resident, sorted(path.name for path in node.run_dir.rglob("*"))

        def flip():
            node.join()
            node.wait_for("enabled")
            node.leave()
            node.wait_for("none")
            node.tunnel.disconnect()
            node.tunnel.wait(lambda: node.tunnel.is_connected)
        for _ in range(5):
            flip()
        traces = [pod.traces() for pod in node.pods_made]
        # What a pod needed is closed a second late.
        time.sleep(2)
        before, (resident, files) = descriptors(node), measure()
        for _ in range(int(os.environ.get("SOAK_FLIPS") or 12)):
            flip()
        eventually(lambda: descriptors(node) <= before, 10, what=lambda: f"{before} descriptors, now {descriptors(node)}")
        eventually(lambda: [pod.traces() for pod in node.pods_made] == traces, 10)
        eventually(lambda: measure()[1] == files, 10, what=lambda: f"{files}, now {measure()[1]}")
        # The address sanitizer keeps what was freed for a while, and finds leaks by itself at the end.
        if "ASAN_OPTIONS" not in os.environ:
            assert measure()[0] <= resident + 1024, f"{resident} KiB resident, now {measure()[0]}"
        assert node.agent.poll() is None
        node.stop(signal.SIGTERM)
    finally:
        node.close()
