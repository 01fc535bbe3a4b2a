"""Each pain of docs/pains.md has tests, and they are there."""
import pathlib
import re

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
ROWS = re.findall(r"^\| (\d+) \|(.*)\|$", (REPOSITORY / "docs/pains.md").read_text(encoding="utf-8"), re.M)


def test_all_of_them():
    assert [int(number) for number, _ in ROWS] == list(range(1, 27))


@pytest.mark.parametrize("number, row", ROWS, ids=[number for number, _ in ROWS])
def test_its_tests_are_there(number, row):
    tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row.rpartition("|")[2])
    assert tests, f"pain {number} names no test"
    for file, name in tests:
        text = (REPOSITORY / file).read_text(encoding="utf-8")
        assert re.search(rf"^def {name}\(", text, re.M), f"{file} has no {name}"
        # One that can be passed over shows nothing.
        assert "xfail" not in text and not re.search(rf"mark\.skip[^\n]*\n(?:@[^\n]*\n)*def {name}\(", text), (file, name)
    # At least one of them is run by `make test`.
    assert any(not file.startswith("tests/node/") for file, _ in tests), number
