"""Plugin and agent stay as small to run as tests/bench/budgets.json says, and a pod costs the same beside few and beside many."""
import json

from . import instructions

MAY_DIFFER = 0.10
MAY_GROW = 1.15  # from 20 pods to 80


def compare(what, measured):
    budgets = json.loads(instructions.BUDGETS.read_text(encoding="utf-8"))[what]
    assert set(budgets) == set(measured)
    outside = [f"{call}: {measured[call]} instructions, {measured[call] / budget:.2f} times the budget of {budget}"
               for call, budget in budgets.items() if abs(measured[call] / budget - 1) > MAY_DIFFER]
    assert not outside, "\n".join([*outside, "where that is wanted, write the budgets anew: "
                                             "PYTHONPATH=tests python3 -m budgets.instructions"])


def test_each_call_is_within_its_budget():
    compare("plugin instructions", instructions.measure_plugin())


def test_what_the_agent_does_for_a_pod_is_within_its_budget():
    measured = instructions.measure_agent()
    compare("agent instructions", measured)
    few, many = (measured[f"a pod into the mesh and out again, beside {count}"] for count in (20, 80))
    assert many < MAY_GROW * few, f"beside 80 pods {many} instructions, beside 20 {few}"
