"""Instructions, which do not depend on what else the machine does: of one call of the plugin, and of the agent's own code for a
pod, beside the budgets that `make test` holds them to (tests/budgets)."""
import json
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from budgets import instructions  # noqa: E402

TITLE = "Instructions (valgrind), beside their budgets"


def run(bench):
    budgets = json.loads(instructions.BUDGETS.read_text(encoding="utf-8"))
    rows = []
    for what, (measure, may_differ) in instructions.MEASURES.items():
        for name, count in measure().items():
            budget = budgets[what][name]
            rows.append([f"{what.split()[0]}: {name}", f"{count:,}", f"{budget:,}", f"{count / budget:.3f}",
                         bench.judge(name, count / budget, 1 + may_differ)])
    bench.table(["instructions, bytes", "measured", "budget", "ratio", "target"], rows)
