"""The kubectl commands of the documents, as they stand there, by kubectl itself against an API server for people's commands: each is
understood, asks what is meant, and prints what the document says."""
import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

from .conftest import SOURCE, run
from .people_api import PeopleApi

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from docs.commands import of_all, of_program  # noqa: E402

SYSTEM, AGENT = "istio-system", "istio-cni-node-abcde"
REDIRECTION = "ambient.istio.io/redirection"


def documented():
    return [command for command in of_program("kubectl") if not re.fullmatch(r"kubectl (--kubeconfig=\S+)", command)]


KUSTOMIZATION = re.search(r"```yaml\n(resources: .*?)```", (SOURCE / "docs/install.md").read_text(), re.S).group(1)


def filled(command):
    """With names in the place of those that the reader puts in."""
    for old, new in ((r"namespace NAME", "namespace shop"), (r"ns …", "ns shop"), (r"-n NAME", "-n shop"), (r"grep NAME", "grep ztunnel"),
                     (rf"-n {SYSTEM} (\w+ pod|logs) NAME", rf"-n {SYSTEM} \1 {AGENT}"), (r"istio-cni-node-xxxxx", AGENT),
                     (r"pods/NAME:", f"pods/{AGENT}:"), (r"\bNAME\b(?!:)", "cart"), (r"\bPOD\b", AGENT)):
        command = re.sub(old, new, command)
    return command


@pytest.fixture
def api():
    api = PeopleApi()
    running = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}], "containerStatuses": [
        {"name": "install-cni", "ready": True, "restartCount": 0, "state": {"running": {}}, "image": "x", "imageID": "x"}]}

    def put_pod(name, namespace, container, labels=None, annotations=None, init=()):
        api.put("v1", "pods", name, namespace, labels, annotations, status=running, spec={
            "nodeName": "a", "containers": [{"name": container, "image": "x"}],
            "initContainers": [{"name": name, "image": "x"} for name in init]})

    for name in ("default", "shop", SYSTEM):
        api.put("v1", "namespaces", name)
    api.put("v1", "nodes", "a")
    for namespace in ("default", "shop"):
        put_pod("cart", namespace, "main", annotations={REDIRECTION: "enabled"} if namespace == "shop" else {})
    put_pod("old", "shop", "main", init=["istio-validation"])
    labels = {"app": "istio-cni-node", "k8s-app": "istio-cni-node"}
    put_pod(AGENT, SYSTEM, "install-cni", labels)
    put_pod("ztunnel-abcde", SYSTEM, "istio-proxy", {"app": "ztunnel"})
    api.put("apps/v1", "daemonsets", "istio-cni-node", SYSTEM, labels=labels,
            spec={"selector": {"matchLabels": {"k8s-app": "istio-cni-node"}}, "updateStrategy": {"type": "RollingUpdate"}, "template": {
                "metadata": {"labels": labels}, "spec": {"containers": [{"name": "install-cni", "image": "x"}]}}},
            status={"observedGeneration": 0, "desiredNumberScheduled": 1, "updatedNumberScheduled": 1, "numberAvailable": 1, "numberReady": 1,
                    "currentNumberScheduled": 1})
    api.put("v1", "serviceaccounts", "istio-cni", SYSTEM)
    api.put("v1", "configmaps", "istio-cni-config", SYSTEM)
    for kind in ("clusterroles", "clusterrolebindings"):
        api.put("rbac.authorization.k8s.io/v1", kind, "istio-cni", labels={"operator.istio.io/component": "Cni",
                                                                            "app.kubernetes.io/managed-by": "Helm"})
        api.put("rbac.authorization.k8s.io/v1", kind, "istio-cni-repair-role", labels={"operator.istio.io/component": "Cni"})
    for kind in ("roles", "rolebindings"):
        api.put("rbac.authorization.k8s.io/v1", kind, "istio-cni", SYSTEM)
    about = {"kind": "Node", "name": "a", "uid": "1"}
    api.put("v1", "events", "fight", "default", involvedObject=about, reason="ConfigurationFight", message="suspected: cilium", type="Warning")
    yield api
    api.close()
    assert not api.faults


@pytest.fixture
def kustomization(tmp_path):
    """The guide's, in a folder of its own beside a copy of ours."""
    folder = tmp_path / "kustomization"
    shutil.copytree(SOURCE / "deploy/manifests", folder / "deploy/manifests")
    (folder / "kustomization.yaml").write_text(KUSTOMIZATION)
    return folder


@pytest.fixture
def shell(api, tmp_path):
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/kubectl").symlink_to(run(SOURCE / "tests/package/kubectl.sh").strip())
    config = api.write_kubeconfig(tmp_path / "kubeconfig")

    def call(command, check=True):
        done = subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], capture_output=True, text=True, check=False, timeout=60, cwd=SOURCE,
                              env={"PATH": f"{tmp_path}/bin:{os.environ['PATH']}", "KUBECONFIG": str(config), "HOME": str(tmp_path)})
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout + done.stderr

    return call


PODS, SETS = f"/api/v1/namespaces/{SYSTEM}/pods", f"/apis/apps/v1/namespaces/{SYSTEM}/daemonsets"
# What a command asks of the server beyond reading, and words that it prints.
EXPECTED = {
    r"kubectl label (namespace|ns) .*dataplane-mode=ambient": ([("PATCH", "/api/v1/namespaces/{namespace}")], ["labeled"]),
    r"kubectl label namespace .*dataplane-mode-": ([("PATCH", "/api/v1/namespaces/{namespace}")], ["unlabeled"]),
    r"kubectl label namespace .*enforce=privileged": ([("PATCH", "/api/v1/namespaces/{namespace}")], ["labeled"]),
    r"kubectl label pod .*=none": ([("PATCH", "/api/v1/namespaces/default/pods/cart")], ["labeled"]),
    r".*custom-columns.*": ([], ["MESH", "enabled", "<none>"]),
    r"kubectl get pods -n NAME": ([], ["cart"]),
    r".*logs .*": ([], ["a line of "]),
    r".*rollout status.*": ([], ["successfully rolled out"]),
    r".*get pods -l app=istio-cni-node.*": ([], [AGENT]),
    r".*get pods -l app=ztunnel.*": ([], ["ztunnel-abcde"]),
    r".*grep istio-validation": ([], ["shop/old istio-validation"]),
    r".*=\"enabled\".*": ([], ["shop/cart"]),
    r".*get pod NAME -o jsonpath.*": ([], []),
    r".*delete daemonset .*": ([("DELETE", f"{SETS}/istio-cni-node")], ["deleted"]),
    r"kubectl delete clusterrole,.*": ([("DELETE", f"/apis/rbac.authorization.k8s.io/v1/{kind}/istio-cni-repair-role")
                                        for kind in ("clusterroles", "clusterrolebindings")], ["deleted"]),
    r".*exec .* -- ambient-installer status": ([("POST", f"{PODS}/{AGENT}/exec")], ["command=ambient-installer&command=status"]),
    r".*port-forward POD 15000": ([("POST", f"{PODS}/{AGENT}/portforward")], []),
    r".*delete pod NAME": ([("DELETE", f"{PODS}/{AGENT}")], ["deleted"]),
    r".*describe pod NAME": ([], ["Containers:"]),
    r".*get --raw .*readyz": ([], ["ready"]),
    r".*get daemonsets -A \| grep -i cni": ([], ["istio-cni-node"]),
    r"kubectl apply -k FOLDER": ([("POST", f"{SETS.rpartition('/')[0]}/daemonsets"), *(
        ("POST", f"/api/v1/namespaces/{SYSTEM}/{kind}") for kind in ("serviceaccounts", "configmaps")), *(
        ("POST", f"/apis/rbac.authorization.k8s.io/v1/{kind}") for kind in (
            "clusterroles", "clusterrolebindings", f"namespaces/{SYSTEM}/roles", f"namespaces/{SYSTEM}/rolebindings"))], ["created"]),
    r".*get events .*": ([], ["fight"]),
    r".*delete -f deploy/manifests/ambient-cni.yaml": ([
        ("DELETE", f"/api/v1/namespaces/{SYSTEM}/serviceaccounts/istio-cni"), ("DELETE", f"/api/v1/namespaces/{SYSTEM}/configmaps/istio-cni-config"),
        ("DELETE", "/apis/rbac.authorization.k8s.io/v1/clusterroles/istio-cni"),
        ("DELETE", "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/istio-cni"),
        ("DELETE", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{SYSTEM}/roles/istio-cni"),
        ("DELETE", f"/apis/rbac.authorization.k8s.io/v1/namespaces/{SYSTEM}/rolebindings/istio-cni"),
        ("DELETE", f"{SETS}/istio-cni-node")], ["deleted"]),
}


@pytest.mark.parametrize("command", documented())
def test_commands_of_the_documents(api, shell, kustomization, command):
    changes, words = next((expected for pattern, expected in EXPECTED.items() if re.fullmatch(pattern, command)), (None, None))
    if changes is None and re.fullmatch(r"kubectl( [a-z-]+){1,2}", command):
        # Named in a sentence: there is such a command.
        assert command in shell(f"{command} --help")
        return
    assert changes is not None, f"what {command} does is not known here"
    if command.endswith("dataplane-mode-"):
        api.get("namespaces", None, "shop")["metadata"]["labels"]["istio.io/dataplane-mode"] = "ambient"
    # Streams that the server does not give: what was asked is seen.
    is_stream = any(word in command for word in (" exec ", " port-forward "))
    typed = filled(command)
    if "apply -k" in command:
        # tests/node lets a real API server look at such objects.
        typed = typed.replace("FOLDER", str(kustomization)) + " --validate=false"
        for key in [key for key in api.objects if key[2].startswith("istio-cni") and key[0] != "pods"]:
            del api.objects[key]
    said = shell(typed, check=not is_stream)
    for word in words:
        assert word in said.replace("\\u0026", "&"), said
    namespace = (re.search(r"(?:namespace|ns) (\S+)", filled(command)) or [None, ""])[1]
    assert sorted(set(api.changes())) == sorted((method, path.replace("{namespace}", namespace)) for method, path in changes)
    if "apply -k" in command:
        (container,) = api.get("daemonsets", SYSTEM, "istio-cni-node")["spec"]["template"]["spec"]["containers"]
        assert container["image"] == "REGISTRY/ambient-cni:0.1.0"
    if "dataplane-mode" in command and namespace:
        labels = api.get("namespaces", None, namespace)["metadata"]["labels"]
        assert labels.get("istio.io/dataplane-mode") == (None if command.endswith("-") else "ambient")


def test_handing_objects_over(api, shell):
    (command,) = [command for _, command in of_all() if command.startswith("for object in")]
    shell(command)
    for plural, namespace, name in (("serviceaccounts", SYSTEM, "istio-cni"), ("configmaps", SYSTEM, "istio-cni-config"),
                                    ("clusterroles", None, "istio-cni"), ("clusterrolebindings", None, "istio-cni")):
        metadata = api.get(plural, namespace, name)["metadata"]
        assert metadata["labels"]["app.kubernetes.io/managed-by"] == "Helm"
        assert metadata["annotations"]["meta.helm.sh/release-name"] == "istio-cni"
        assert metadata["annotations"]["meta.helm.sh/release-namespace"] == SYSTEM
