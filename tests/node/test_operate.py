"""The product is upgraded, uninstalled, refused what it must not have, and stands beside a firewall."""
import base64
import concurrent.futures
import json
import os
import shutil
import time

import pytest

from .churn import Churn
from .cluster import BIN_DIR, CONF_DIR
from .pods import MODE, container, server
from .probed import Probed
from .product import CHART, DAEMON_SET, NAMESPACE
from .waiting import wait_until

AMBIENT = {MODE: "ambient"}
ACCOUNT = f"system:serviceaccount:{NAMESPACE}:istio-cni"


def traffic_pair(node, make_workspace):
    """In the mesh; but the connection that stays open is older, and so none of the tunnel's."""
    workspace = make_workspace(node)
    workspace.create_pair()
    workspace.label("ambient")
    for name in ("server", "client"):
        workspace.wait_redirection(name, "enabled")
    workspace.wait_traffic("client")
    return workspace


def test_the_chart_is_accepted_by_the_api_server(node):
    text = node.product.helm("template", "istio-cni", CHART, "--values=-",
                             f"--kube-version={node.cluster.components.versions['KUBERNETES']}", stdin=json.dumps(node.product.values))
    for how in ("--dry-run=server", "--server-side=true"):
        more = ("--force-conflicts", "--dry-run=server") if how == "--server-side=true" else ()
        said = node.cluster.kubectl("apply", how, *more, "--namespace", NAMESPACE, "-f", "-", stdin=text)
        assert f"daemonset.apps/{DAEMON_SET}" in said


VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")
# Everything that the agent asks the API server for (installer/kube/); the chart gives it no more.
NEEDED = {"pods": ("get", "list", "watch"), "namespaces": ("get", "list", "watch"), "pods/status": ("patch",), "nodes": ("get",),
          "events": ("create",)}


def test_the_service_account_may_do_what_it_needs_and_nothing_else(node):
    def may(verb, resource, namespace="default", name=None):
        resource, _, subresource = resource.partition("/")
        arguments = [verb, resource + (f"/{name}" if name else "")] + ([f"--subresource={subresource}"] if subresource else [])
        where = [f"--namespace={namespace}"] if resource not in ("nodes", "namespaces") else []
        return node.cluster.kubectl("auth", "can-i", *arguments, *where, f"--as={ACCOUNT}", check=False).strip() == "yes"

    for resource, needed in NEEDED.items():
        for verb in VERBS:
            assert may(verb, resource) == (verb in needed), (verb, resource)
    for verb in VERBS:
        assert may(verb, "daemonsets.apps", NAMESPACE, name=DAEMON_SET) == (verb == "get"), verb
    assert not may("get", "daemonsets.apps", NAMESPACE, name="other")
    assert not may("get", "daemonsets.apps", "kube-system", name=DAEMON_SET)
    for verb, resource in (("create", "pods/exec"), ("create", "serviceaccounts/token"), ("get", "secrets"), ("patch", "nodes/status"),
                           ("impersonate", "users"), ("bind", "clusterroles.rbac.authorization.k8s.io"),
                           ("escalate", "clusterroles.rbac.authorization.k8s.io")):
        assert not may(verb, resource), (verb, resource)


def test_the_service_account_may_do_nothing_of_all_that_the_server_knows(node):
    """The same question, without kubectl, of every resource and subresource that the API server serves, with every verb that it has."""
    def groups():
        yield "", "/api/v1"
        for group in node.api.request("GET", "/apis")["groups"]:
            yield group["name"], f"/apis/{group['preferredVersion']['groupVersion']}"

    def is_allowed(what):
        verb, group, resource, namespace = what
        resource, _, subresource = resource.partition("/")
        review = {"kind": "SubjectAccessReview", "apiVersion": "authorization.k8s.io/v1", "spec": {
            "user": ACCOUNT, "groups": ["system:serviceaccounts", f"system:serviceaccounts:{NAMESPACE}", "system:authenticated"],
            "resourceAttributes": {"verb": verb, "group": group, "resource": resource, "subresource": subresource,
                                   "namespace": namespace}}}
        return node.api.request("POST", "/apis/authorization.k8s.io/v1/subjectaccessreviews", review)["status"]["allowed"]

    asked = [(verb, group, entry["name"], NAMESPACE if entry["namespaced"] else "") for group, path in groups()
             for entry in node.api.request("GET", path)["resources"] for verb in entry["verbs"]]
    assert len(asked) > 300
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        allowed = {(verb, resource) for (verb, group, resource, _), is_it in zip(asked, pool.map(is_allowed, asked))
                   if is_it and group not in ("authentication.k8s.io", "authorization.k8s.io")}  # about oneself: everybody's
    assert allowed == {(verb, resource) for resource, verbs in NEEDED.items() for verb in verbs}


def test_an_upgrade_under_churn(node, make_workspace):
    port = node.serve_outside()
    pair, workspace, events = traffic_pair(node, make_workspace), make_workspace(node, AMBIENT), node.product.events()
    probed = Probed(make_workspace(node, AMBIENT))
    node.product.import_image("2")
    # As the chart is, one agent after the other; and with the successor beside its predecessor.
    strategies = ({"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
                  {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}})
    with Churn(workspace, port) as churn:
        for strategy, tag in zip(strategies, ("2", "1")):
            before, finished = node.product.agent(), len(churn.finished)
            node.product.install(tag, updateStrategy=strategy)
            wait_until(lambda before=before: node.product.is_ready() and node.product.agent() != before, 90, f"{tag} runs",
                       explain=node.product.explain)
            wait_until(lambda finished=finished: len(churn.finished) >= finished + 3, 90, "the churn goes on",
                       explain=lambda: "\n".join(churn.problems) + workspace.explain() + node.product.log())
    wait_until(lambda: not churn.check(events), 30, "the tunnel is told of every pod's end", explain=lambda: str(churn.check(events)))
    node.product.install()
    node.product.wait_ready()
    traffic = pair.traffic("client")
    assert traffic.lost == 0, f"{traffic}\n{node.product.log()}"
    assert pair.restarts("client") == pair.restarts("server") == 0
    probed.check()


@pytest.mark.on("ptp-ipv4-containerd2")
def test_a_host_firewall_beside_the_mesh(node, make_workspace):
    """As a policy engine does it: what enters the pod, whoever sends it, is dropped but for what a policy names. It stands where the
    probe's source address is in place already, as engines on the pod's interface do."""
    workspace = traffic_pair(node, make_workspace)
    address, uid = workspace.address("server"), workspace.uid("server")

    def allow(*rules):
        node.machine.run("nft", "-f", "-", stdin=f"""table ip engine
delete table ip engine
table ip engine {{
  chain postrouting {{
    type filter hook postrouting priority 200;
    ip daddr {address} jump to-pod
  }}
  chain to-pod {{
    ct state established,related accept
{''.join(f'    {rule} accept{chr(10)}' for rule in rules)}    drop
  }}
}}
""")

    def explain(*texts):
        """All of them are in what the command says in the agent's pod, where no person's account is."""
        said = node.product.command("explain", f"{workspace.name}/server", check=False)
        for text in texts:
            assert text in said, said
        return said

    blocked = "nothing is wrong with it on this node, and something drops its packets: "
    hbone, probe = "tcp dport 15008", "ip saddr 169.254.7.127"
    explain("reaches port 15008", "the node reaches port 8080, from 169.254.7.127 as the kubelet's probes do")
    try:
        allow()
        wait_until(lambda: not workspace.is_ready("server"), 30, "default deny fails the probe", explain=workspace.explain)
        explain(f"({workspace.name}/client) sends to {address} port 15008 gets no answer", "must let TCP 15008 in",
                f"what the node sends to {address} port 8080 from 169.254.7.127 gets no answer", blocked)
        allow(hbone)
        # The mesh gets through: a new client's first packet. The kubelet does not.
        events = node.product.events()
        workspace.create("through", container("idle", "workload", "pause"),
                         init=[container("init", "workload", "first", address, "8080")])
        workspace.wait_ready("through")
        assert events.all(event="hbone", uid=uid)
        explain("reaches port 15008", blocked + "the kubelet's probes do not get through")
        assert not workspace.is_ready("server")
        allow(hbone, probe)
        workspace.wait_ready("server")
        assert blocked not in explain("reaches port 15008", "the node reaches port 8080")
        # Who is not in the mesh does not get in.
        outside = make_workspace(node)
        outside.create("outside", container("c", "sh", "-c", f"timeout 3 workload first {address} 8080 && exit 1; exec workload pause"))
        outside.wait_ready("outside")
        time.sleep(4)
        assert outside.restarts("outside") == 0
    finally:
        node.machine.run("nft", "delete table ip engine", check=False)
    assert workspace.redirection("server") == "enabled"


@pytest.mark.on("ptp-ipv4-containerd2")
def test_network_policies_beside_the_mesh(node, make_workspace):
    """The same three steps as objects of the cluster, read with a person's account on the node; there is no engine here that enforces
    them, so `explain` tells what an engine would do."""
    workspace = make_workspace(node, AMBIENT)
    workspace.create("server", server(8080))
    workspace.wait_ready("server")
    workspace.wait_redirection("server", "enabled")
    binary = os.path.join(node.machine.state, "ambient-installer")
    shutil.copy(os.path.join(node.product.static, "ambient-installer"), binary)

    def explain():
        return node.machine.run(binary, "explain", f"{workspace.name}/server", "--kubeconfig=/etc/kubernetes/admin.conf", check=False)

    def allow(*rules):
        spec = {"podSelector": {}, "policyTypes": ["Ingress"], "ingress": list(rules)}
        node.cluster.kubectl("apply", "-n", workspace.name, "-f", "-", stdin=json.dumps(
            {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "engine"}, "spec": spec}))

    hbone = {"ports": [{"protocol": "TCP", "port": 15008}], "from": [{"podSelector": {}}]}
    probe = {"from": [{"ipBlock": {"cidr": "169.254.7.127/32"}}]}
    assert "none selects it" in explain()
    allow()
    said = explain()
    assert "engine lets no TCP 15008 in" in said and "the cluster stands in its way" in said, said
    allow(hbone)
    said = explain()
    assert "engine lets TCP 15008 in, for some peers only" in said, said
    assert "the cluster stands in its way: engine lets nothing in to port 8080 from 169.254.7.127" in said, said
    allow(hbone, probe)
    said = explain()
    assert "stands in its way" not in said and "nothing is wrong with it on this node.\n" in said, said


def test_an_uninstall_strands_nothing(node, make_workspace):
    pair, churned = traffic_pair(node, make_workspace), make_workspace(node, AMBIENT)
    churned.create("stays", server(8080))
    churned.wait_ready("stays")
    uids = [pair.uid("server"), pair.uid("client"), churned.uid("stays")]
    events = node.product.events()
    node.product.uninstall()
    try:
        for workspace, name in ((pair, "server"), (pair, "client"), (churned, "stays")):
            workspace.wait_redirection(name, None)
            wait_until(lambda uid=workspace.uid(name): "ambient" not in node.product.tables(uid), 60, f"{name} is released")
        for uid in uids:
            events.wait(event="stopped", uid=uid)
        pair.wait_traffic("client")
        traffic = pair.traffic("client")
        assert traffic.lost == 0, traffic
        # The node is as it was.
        assert node.cluster.read_conflist() == node.first_conflist
        assert "ambient" not in node.machine.run("ls", "-A", CONF_DIR)
        # The program stays for runtimes that end a pod by the chain of its beginning, as long as there is such a pod.
        if "ambient-cni" in node.machine.run("ls", BIN_DIR):
            folder = node.machine.path("/var/lib/cni/results")
            results = [json.loads(node.machine.read(f"/var/lib/cni/results/{name}")) for name in os.listdir(folder)]
            chains = [base64.b64decode(result["config"]).decode() for result in results]
            assert any("ambient-cni" in chain for chain in chains), chains
        assert "ambient" not in node.machine.run("nft", "list", "ruleset")
        # Pods come and go as on any node, those that were in the mesh too.
        churned.create("after", server(8080))
        churned.wait_ready("after")
        assert churned.redirection("after") is None
        for name in ("stays", "after"):
            node.api.delete("Pod", churned.name, name)
        churned.wait_gone("stays", "after")
    finally:
        node.product.install()
        node.product.wait_ready()
    pair.wait_redirection("server", "enabled")
