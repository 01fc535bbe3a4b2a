"""Plugin and agent stay as small to run as tests/bench/budgets.json says, and a pod costs the same beside few and beside many."""
import json

import pytest

from . import instructions

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
