"""When our pod stops: is it replaced, or are we uninstalled from this node?"""
import json
import subprocess

import pytest

from .tool import TOOL


def ask(**question):
    done = subprocess.run([str(TOOL), "upgrade", json.dumps(question)], capture_output=True, text=True, check=True)
    answer = json.loads(done.stdout)
    assert answer["reason"]
    return answer["verdict"]


def daemon_set(terms=None, selector=None, **metadata):
    pod = {}
    if terms is not None:
        pod["affinity"] = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}
    if selector:
        pod["nodeSelector"] = selector
    return {"kind": "DaemonSet", "metadata": {"name": "istio-cni-node", **metadata}, "spec": {"template": {"spec": pod}}}


NODE = {"metadata": {"name": "node1", "labels": {"kubernetes.io/os": "linux", "zone": "a", "cores": "8"}}}


def expression(key, operator, *values):
    return {"matchExpressions": [{"key": key, "operator": operator, "values": list(values)}]}


def test_our_daemon_set_stands():
    assert ask(status=200, daemon_set=daemon_set(), node=NODE) == "keep"
    assert ask(status=200, daemon_set=daemon_set()) == "keep"


def test_our_daemon_set_is_gone_or_going():
    assert ask(status=404) == "uninstall"
    assert ask(status=200, daemon_set=daemon_set(deletionTimestamp="2026-11-24T21:00:00Z"), node=NODE) == "uninstall"


@pytest.mark.parametrize("status", [401, 403])
def test_a_refusal_counts_only_when_it_lasts(status):
    assert ask(status=status) == "ask-again"
    assert ask(status=status, refused_seconds=19.9) == "ask-again"
    assert ask(status=status, refused_seconds=20) == "uninstall"


@pytest.mark.parametrize("status", [0, 429, 500, 503, 302])
def test_an_api_that_does_not_answer_keeps_everything(status):
    assert ask(status=status) == "keep"


def test_an_answer_that_is_none_keeps_everything():
    assert ask(status=200) == "keep"
    assert ask(status=200, daemon_set=[]) == "keep"


def test_safe_upgrade_off_always_uninstalls():
    for status in (0, 200, 403, 404):
        assert ask(safe_upgrade=False, status=status, daemon_set=daemon_set(), node=NODE) == "uninstall"


def test_a_node_selector_does_not_count():
    assert ask(status=200, daemon_set=daemon_set(selector={"zone": "b"}), node=NODE) == "keep"


@pytest.mark.parametrize("term, matches", [
    (expression("zone", "In", "a", "b"), True), (expression("zone", "In", "b"), False), (expression("none", "In", "a"), False),
    (expression("zone", "NotIn", "b"), True), (expression("zone", "NotIn", "a"), False), (expression("none", "NotIn", "a"), True),
    (expression("zone", "Exists"), True), (expression("none", "Exists"), False),
    (expression("zone", "DoesNotExist"), False), (expression("none", "DoesNotExist"), True),
    (expression("cores", "Gt", "4"), True), (expression("cores", "Gt", "8"), False), (expression("zone", "Gt", "1"), False),
    (expression("cores", "Lt", "9"), True), (expression("cores", "Lt", "8"), False), (expression("none", "Lt", "8"), False),
    (expression("cores", "Gt", "1", "2"), False), (expression("zone", "Nonsense", "a"), False),
    ({"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node1"]}]}, True),
    ({"matchFields": [{"key": "metadata.name", "operator": "NotIn", "values": ["node1"]}]}, False),
    ({"matchFields": [{"key": "spec.x", "operator": "Exists"}]}, False),
    ({}, False),
    ({"matchExpressions": [{"key": "zone", "operator": "Exists"}, {"key": "none", "operator": "Exists"}]}, False)])
def test_required_affinity(term, matches):
    assert ask(status=200, daemon_set=daemon_set([term]), node=NODE) == ("keep" if matches else "uninstall")


def test_one_term_that_matches_is_enough_and_none_is_not():
    no, yes = expression("zone", "In", "b"), expression("zone", "In", "a")
    assert ask(status=200, daemon_set=daemon_set([no, yes]), node=NODE) == "keep"
    assert ask(status=200, daemon_set=daemon_set([]), node=NODE) == "uninstall"
    # A node that is not known is not judged.
    assert ask(status=200, daemon_set=daemon_set([no])) == "keep"
    assert ask(status=200, daemon_set=daemon_set([no]), node={"metadata": {"name": "x"}}) == "uninstall"
