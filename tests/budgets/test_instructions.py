"""The plugin stays as small to run as tests/bench/budgets.json says."""
import json

from . import instructions

MAY_DIFFER = 0.10


def test_each_call_is_within_its_budget():
    budgets = json.loads(instructions.BUDGETS.read_text(encoding="utf-8"))["plugin instructions"]
    measured = instructions.measure()
    assert set(budgets) == set(measured)
    outside = [f"{call}: {measured[call]} instructions, {measured[call] / budget:.2f} times the budget of {budget}"
               for call, budget in budgets.items() if abs(measured[call] / budget - 1) > MAY_DIFFER]
    assert not outside, "\n".join([*outside, "where that is wanted, write the budgets anew: "
                                             "PYTHONPATH=tests python3 -m budgets.instructions"])
