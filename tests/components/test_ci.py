""".ci/run's way to the cases on a real node, with doubles of make and of the node: what can't be run is named and fails nothing, what
runs and fails does."""
import os
import pathlib
import shutil
import subprocess

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
NOT_RUN = "=== NOT RUN HERE: the cases on a real node (make test-node"


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / ".ci").mkdir()
    shutil.copy(REPOSITORY / ".ci/run", tmp_path / ".ci/run")
    (tmp_path / "tests/node").mkdir(parents=True)
    (tmp_path / "tests/node/__init__.py").touch()
    (tmp_path / "bin").mkdir()
    return tmp_path


def run(checkout, can_start="", status=0, environment=None, **targets):
    """`targets`: what a target of make does, in sh."""
    (checkout / "tests/node/can_start.py").write_text(can_start)
    cases = "\n".join(f"{target.replace('_', '-')}) {command};;" for target, command in targets.items())
    (checkout / "bin/make").write_text(f"#!/bin/sh\nfor target in \"$@\"; do echo made $target\ncase $target in\n{cases}\nesac; done\n")
    (checkout / "bin/make").chmod(0o755)
    done = subprocess.run([checkout / ".ci/run"], capture_output=True, text=True, timeout=60, check=False,
                          env={"PATH": f"{checkout}/bin:{os.environ['PATH']}", **(environment or {})})
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout


def test_all_is_run(checkout):
    said = run(checkout, test_node="echo for $NODE_SECONDS seconds")
    assert said.splitlines()[:3] == ["made deps", "made test", "made node-deps"]
    assert "made test-node" in said and NOT_RUN not in said
    seconds = int(said.split("for ")[-1].split()[0])
    assert 64 * 60 < seconds <= 65 * 60


def test_the_usual_tests_come_first_and_count(checkout):
    assert "node" not in run(checkout, test="exit 2", status=2)


def test_what_cannot_be_had_fails_nothing(checkout):
    said = run(checkout, node_deps="echo components: no go >&2; exit 2")
    assert NOT_RUN in said and "its components can't be had" in said and "made test-node" not in said


def test_components_that_take_too_long(checkout):
    said = run(checkout, node_deps="sleep 30", environment={"COMPONENTS": "1"})
    assert NOT_RUN in said and "were not built within" in said and "made test-node" not in said
    said = run(checkout, environment={"LIMIT": "1000"})
    assert NOT_RUN in said and "no time is left" in said and "made node-deps" not in said


def test_a_place_where_no_node_starts(checkout):
    said = run(checkout, can_start="raise SystemExit('no overlayfs')")
    assert NOT_RUN in said and "no node starts here" in said and "made test-node" not in said


def test_a_case_that_fails_counts(checkout):
    assert NOT_RUN not in run(checkout, test_node="exit 1", status=1)


def test_a_run_that_does_not_end_counts(checkout):
    run(checkout, test_node="sleep 30", status=124, environment={"LIMIT": "2", "CASES": "-1000", "GRACE": "1"})
