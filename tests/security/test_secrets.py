"""Tokens and keys are in no log line, message or view: docs/security.md, "Secrets"."""
import subprocess
import time

import pytest

from agent.cluster import ClusterNode
from agent.node import INSTALLER
from netns.namespace import Namespace

SECRET = "c2VjcmV0LXRva2VuLW9mLXRoZS1ub2Rl"
KUBECONFIG = """
current-context: c
clusters: [{name: a, cluster: {server: 'https://127.0.0.1:1', insecure-skip-tls-verify: true}}]
users: [{name: u, user: %s}]
contexts: [{name: c, context: {cluster: a, user: u}}]
"""


@pytest.fixture
def alone():
    namespace = Namespace()
    namespace.ip("link set lo up\n")
    yield namespace
    namespace.close()


@pytest.mark.parametrize("user", ["{token: %s}", '{token: "%s\\nx: y"}', "{token: [%s]}", "{tokens: %s}", "{token: %s, token: b}",
                                  "{client-key-data: %s, client-certificate-data: %s}", "{password: %s, username: a}",
                                  "{token: %s", "{exec: {command: %s}}"])
def test_no_token_is_told(alone, tmp_path, user):
    path = tmp_path / "kubeconfig"
    path.write_text(KUBECONFIG % user.replace("%s", SECRET))
    with alone:
        process = subprocess.Popen(
            [str(INSTALLER), "run", "--set", f"kubeconfig={path}", "--set", f"runDir={tmp_path / 'run'}", "--set", "nodeName=a",
             "--set", f"tunnelSocket={tmp_path / 'z.sock'}", "--set", "host.install=false", "--set", "log.level=debug", "--set",
             "listen.health=", "--set", "listen.metrics=", "--set", "listen.admin=", "--set", "host.procDir=/proc", "--set",
             f"host.netnsDir={tmp_path}"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    time.sleep(0.7)
    if process.poll() is None:
        process.kill()
    output = process.communicate(timeout=20)[0]
    assert output and SECRET not in output and SECRET[:12] not in output, output


def test_no_token_is_told_at_work(tmp_path):
    """Logged as much as there is to log, asked for everything that it shows, and refused by the API server in between."""
    node = ClusterNode(tmp_path, start=False, tunnel=False)
    try:
        node.api.tokens.add(SECRET)
        node.api.write_kubeconfig(node.kubeconfig, token=SECRET)
        node.start()
        node.connect()
        pod = node.pod()
        node.join()
        node.enabled([pod])
        node.api.tokens.remove(SECRET)
        node.api.order_watchers("close")
        node.log_has("401")
        told = [node.log()] + [node.request("GET", path)[1] for path in (
            "/", "/status", "/config", "/pods", f"/pods/{pod.key}?verify=1", "/metrics", "/readyz", "/nothing")]
        assert all(len(text) > 2 for text in told)
        assert not [text for text in told if SECRET in text or SECRET[:12] in text]
    finally:
        node.api.tokens.add(SECRET)
        node.close()
