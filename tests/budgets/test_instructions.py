"""Plugin and agent stay as small to run as tests/bench/budgets.json says, and a pod costs the same beside few and beside many."""
import json
import os
import subprocess

import pytest

from . import instructions

MAY_DIFFER = 0.01  # bytes of two runs of different speed
MAY_GROW = 1.05  # from 20 pods to 80


@pytest.mark.parametrize("what", instructions.MEASURES)
def test_within_the_budget(what):
    measure, may_differ = instructions.MEASURES[what]
    measured = measure()
    budgets = json.loads(instructions.BUDGETS.read_text(encoding="utf-8"))[what]
    assert set(budgets) == set(measured)
    outside = [f"{name}: {measured[name]} {what.split()[1]}, {measured[name] / budget:.3f} times the budget of {budget}"
               for name, budget in budgets.items() if abs(measured[name] / budget - 1) > may_differ]
    assert not outside, "\n".join([*outside, "where that is wanted, write the budgets anew: "
                                             "PYTHONPATH=tests python3 -m budgets.instructions"])
    for name in measured:
        few, many = measured[name], measured.get(name.replace("beside 20", "beside 80"), 0)
        assert many < MAY_GROW * few, f"{name}: {few}, beside 80 pods {many}"


def test_a_slow_machine_counts_the_same_bytes():
    """Sockets are closed late: how many wait for that depends on how fast everything is, and how high the numbers of descriptors
    get, by which libevent has a table."""
    descriptors = [os.open("/dev/null", os.O_RDONLY) for _ in range(300)]
    try:
        slow = instructions.heap(160, ["strace", "-f", "-o", "/dev/null", "-e", "trace=setns", "-e", "inject=setns:delay_exit=500"],
                                 pass_fds=descriptors)
    finally:
        for descriptor in descriptors:
            os.close(descriptor)
    assert abs(slow / instructions.heap(160) - 1) < MAY_DIFFER


def test_too_few_descriptors_are_told():
    """It would wait forever for pods that can't come in."""
    done = subprocess.run(["prlimit", "--nofile=1024:1024", str(instructions.BUILD / "bench" / "flips"), "320", "0", "0", "0"],
                          text=True, capture_output=True, check=False, timeout=60)
    assert done.returncode == 1 and "8192 descriptors are needed (ulimit -n)" in done.stderr
