"""`ambient-installer uninstall --all-nodes`, which the chart's pre-delete hook runs, against a strict double of the API server."""
import subprocess
import sys
import time

import pytest

from .conftest import BUILD, SOURCE

sys.path.insert(0, str(SOURCE / "tests/peers"))
from api_server import ApiServer  # noqa: E402

NAMESPACE, NAME = "istio-system", "istio-cni-node"
PATH = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/{NAME}"


@pytest.fixture
def api(tmp_path):
    with ApiServer(tmp_path / "api") as server:
        server.write_kubeconfig(tmp_path / "kubeconfig")
        yield server
        server.check()


@pytest.fixture
def start(tmp_path):
    started = []

    def start_command(*arguments):
        started.append(subprocess.Popen([BUILD / "ambient-installer", "uninstall", "--all-nodes", "--set",
                                         f"kubeconfig={tmp_path / 'kubeconfig'}", *arguments],
                                        env={"POD_NAMESPACE": NAMESPACE}, text=True, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE))
        return started[-1]

    yield start_command
    for process in started:
        process.kill()
        process.communicate()


def end(process):
    out, errors = process.communicate(timeout=20)
    return process.returncode, out, errors


def is_deleted(api):
    return any(method == "DELETE" and path == PATH for method, path, _ in api.requests)


def test_waits_until_the_last_agent_is_gone(api, start):
    api.put_daemon_set(NAMESPACE, NAME, uid="u1")
    process = start()
    api.wait(lambda: sum(path == PATH for _, path, _ in api.requests) >= 3)
    assert process.poll() is None, "it did not wait"
    assert api.get("daemonsets", NAMESPACE, NAME)["metadata"]["deletionTimestamp"]
    api.delete("daemonsets", NAMESPACE, NAME)
    status, out, errors = end(process)
    assert status == 0, errors
    assert "every agent has released its node" in out


def test_no_daemon_set_is_success(api, start):
    status, out, _ = end(start())
    assert status == 0 and f"no DaemonSet {NAME} in {NAMESPACE}" in out


def test_an_api_server_that_stumbles_is_asked_again(api, start):
    api.put_daemon_set(NAMESPACE, NAME, uid="u1")
    process = start()
    api.wait(lambda: is_deleted(api))
    api.fail("GET .*daemonsets", 500, times=2)
    api.fail("GET .*daemonsets", "reset", times=1)
    time.sleep(2.5)
    assert process.poll() is None
    api.delete("daemonsets", NAMESPACE, NAME)
    status, _, errors = end(process)
    assert status == 0, errors


def test_nodes_that_do_not_answer_are_named(api, start):
    api.put_daemon_set(NAMESPACE, NAME, uid="u1")
    api.put_pod(NAMESPACE, "istio-cni-node-1", node="node-a", labels={"k8s-app": NAME})
    api.put_pod(NAMESPACE, "istio-cni-node-2", node="node-b", labels={"k8s-app": NAME})
    api.put_pod(NAMESPACE, "ztunnel-1", node="node-c", labels={"app": "ztunnel"})
    status, _, errors = end(start("--timeout", "2"))
    assert status == 1
    assert "node-a, node-b;" in errors and "node-c" not in errors and "--no-hooks" in errors


def test_not_permitted(api, start):
    api.put_daemon_set(NAMESPACE, NAME, uid="u1")
    api.forbidden.append("DELETE .*daemonsets")
    status, _, errors = end(start())
    assert status == 1
    assert f"cannot delete DaemonSet {NAMESPACE}/{NAME}" in errors and "forbidden" in errors


def test_somebody_makes_it_anew(api, start):
    api.put_daemon_set(NAMESPACE, NAME, uid="u1")
    process = start()
    api.wait(lambda: is_deleted(api))
    api.delete("daemonsets", NAMESPACE, NAME)
    api.put_daemon_set(NAMESPACE, NAME, uid="u2")
    status, out, errors = end(process)
    # It may look in the moment in which there is none.
    assert (status == 1 and "stands again" in errors) or (status == 0 and "every agent" in out)


@pytest.mark.parametrize("arguments, words", [
    (["--timeout", "0"], "--timeout"), (["--timeout", "soon"], 'found "soon"'), (["--timeout", "5m"], "expected seconds"),
    (["--force"], "--force")])
def test_wrong_arguments(api, start, arguments, words):
    status, _, errors = end(start(*arguments))
    assert status == 2 and words in errors
    assert not api.requests
