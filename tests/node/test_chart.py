"""The chart before a real API server: its own validation takes every object of many sets of values, and the hook that comes before an
uninstallation does its work with the permissions that the chart gives it."""
import json
import os

import pytest

from .cluster import Cluster
from .product import CHART, NAMESPACE, Product
from .waiting import wait_until

VALUES = {
    "defaults": {},
    "everything": {"networkPolicy": {"enabled": True}, "resourceQuotas": {"enabled": True}, "grafanaDashboard": {"enabled": True},
                   "global": {"imagePullSecrets": ["key"], "logAsJson": True}, "config": {"removeTaint": "cni.istio.io/not-ready"}},
    "openshift, but for its own kinds": {"platform": "openshift", "provider": "default"},
    "host network": {"ambient": {"shareHostNetworkNamespace": True}},
    "gke": {"platform": "gke"},
    "affinity and a surge": {
        "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
            {"matchExpressions": [{"key": "no-mesh", "operator": "DoesNotExist"}]}]}}},
        "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0}}},
    "on delete": {"updateStrategy": {"type": "OnDelete"}},
    "a percentage": {"updateStrategy": {"rollingUpdate": {"maxUnavailable": "10%"}}},
    "other tunnel and run directory": {"env": {"ZTUNNEL_UDS_ADDRESS": "/run/other/z.sock"}, "config": {"runDir": "/run/mesh"}},
    "labels and annotations": {"podLabels": {"team": "net"}, "daemonSetLabels": {"team": "net"}, "podAnnotations": {"team": "net"},
                               "revision": "1-27", "ownerName": "somebody"},
    "nothing": {"resources": None, "tolerations": None, "affinity": None, "updateStrategy": None, "priorityClassName": "",
                "seccompProfile": None},
}


@pytest.fixture(scope="module")
def cluster(components):
    cluster = Cluster(components, (4,))
    try:
        cluster.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}})
        yield cluster
    finally:
        cluster.close()


def helm(cluster, *arguments, stdin=None):
    return cluster.machine.run(cluster.components.helm(), f"--namespace={NAMESPACE}", "--kubeconfig=/etc/kubernetes/admin.conf",
                               *arguments, stdin=stdin, timeout=120)


def dry_run(cluster, text):
    """What the server would have stored. Strict: an unknown or doubled field is an error."""
    return cluster.kubectl("create", "--dry-run=server", "--validate=strict", "-o", "name", "-f", "-", stdin=text)


@pytest.mark.parametrize("name", VALUES)
def test_accepted(cluster, name):
    text = helm(cluster, "template", "ambient-cni", CHART, "--kube-version=v1.34.0", "--values=-", stdin=json.dumps(VALUES[name]))
    accepted = dry_run(cluster, text).split()
    assert {"daemonset.apps/istio-cni-node", "job.batch/istio-cni-uninstall", "clusterrole.rbac.authorization.k8s.io/istio-cni",
            "configmap/istio-cni-config"} <= set(accepted)
    assert len(accepted) == text.count("\nkind: ")


def test_plain_manifest(cluster):
    with open(os.path.join(os.path.dirname(CHART), "../manifests/ambient-cni.yaml"), encoding="utf-8") as file:
        text = file.read()
    assert len(dry_run(cluster, text).split()) == text.count("\nkind: ")


def can(cluster, account, verb, what, namespace=NAMESPACE):
    what, slash, _ = what.partition("/status")
    words = ["auth", "can-i", verb, what, f"--subresource={slash[1:]}", f"--as=system:serviceaccount:{NAMESPACE}:{account}"]
    words += [f"--namespace={namespace}"] if namespace else ["--all-namespaces"]
    return cluster.kubectl(*words, check=False).strip() == "yes"


def test_permissions(cluster):
    """As the API server's authorizer has it, not as the YAML looks."""
    values = json.dumps({"nodeSelector": {"nowhere": "true"}})
    cluster.kubectl("apply", "--server-side", "-f", "-", stdin=helm(cluster, "template", "ambient-cni", CHART, "--no-hooks", "--values=-",
                                                   "--kube-version=v1.34.0", stdin=values))
    wait_until(lambda: can(cluster, "istio-cni", "watch", "pods", None), 30, "the roles are in force")
    for verb, what in (("list", "pods"), ("watch", "namespaces"), ("patch", "pods/status"), ("get", "nodes"), ("create", "events")):
        assert can(cluster, "istio-cni", verb, what, None), (verb, what)
    assert can(cluster, "istio-cni", "get", "daemonsets/istio-cni-node")
    for verb, what in (("patch", "pods"), ("delete", "pods"), ("update", "pods/status"), ("patch", "nodes"), ("list", "nodes"),
                       ("get", "secrets"), ("get", "configmaps"), ("list", "daemonsets"), ("create", "pods"), ("get", "services")):
        assert not can(cluster, "istio-cni", verb, what), (verb, what)
    assert not can(cluster, "istio-cni", "delete", "daemonsets/istio-cni-node")
    assert not can(cluster, "istio-cni", "get", "daemonsets/other")


def test_hook_before_uninstallation(cluster, build):
    """With the image as it is shipped: the release goes at once, its DaemonSet first, by the Job's own permissions."""
    product = Product(cluster, build)
    cluster.kubectl("delete", "--ignore-not-found", "-f", "-", stdin=helm(cluster, "template", "ambient-cni", CHART, "--no-hooks"))
    product.import_image("1")
    product.install(nodeSelector={"nowhere": "true"})
    try:
        helm(cluster, "uninstall", "istio-cni", "--wait", "--timeout=100s")
    except AssertionError as error:
        raise AssertionError(f"{error}\n{cluster.kubectl('logs', '-n', NAMESPACE, 'job/istio-cni-uninstall', check=False)}") from error
    for kind in ("DaemonSet", "Job", "ServiceAccount"):
        assert not [item["metadata"]["name"] for item in cluster.api.list(kind, NAMESPACE) if "istio-cni" in item["metadata"]["name"]]
