"""doctor: each thing that can stand in the way is found and comes with advice, and a node on which all is well passes."""
import json
import os
import subprocess
import sys

import pytest

from tests.agent.node import BUILD, INSTALLER, REPOSITORY, WITH_PRELOAD, Node
from tests.netns.namespace import Namespace

sys.path.insert(0, str(REPOSITORY / "tests" / "peers"))
from api_server import ApiServer  # noqa: E402

CONFLIST = {"cniVersion": "1.0.0", "name": "podnet", "plugins": [{"type": "bridge", "ipam": {"type": "host-local"}}, {"type": "portmap"}]}


@pytest.fixture
def host(tmp_path):
    """A node's directories."""
    for folder in ("bin", "net.d", "run", "ztunnel"):
        (tmp_path / folder).mkdir()
    (tmp_path / "net.d/10-bridge.conflist").write_text(json.dumps(CONFLIST))
    return tmp_path


class Doctor:
    def __init__(self, host, *settings, inside=None, status=None, environment=None):
        command = [str(INSTALLER), "doctor", "-o", "json"]
        for setting in (f"host.binDir={host}/bin", f"host.confDir={host}/net.d", f"runDir={host}/run", "host.procDir=/proc",
                        "host.networkNamespace=", f"tunnelSocket={host}/ztunnel/ztunnel.sock", "nodeName=a",
                        f"source=folder:{host}", *settings):
            command += setting if isinstance(setting, list) else ["--set", setting]
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("KUBE", "HOME"))}
        with (inside or Namespace()):
            self.done = subprocess.run(command, capture_output=True, text=True, timeout=60, env={**kept, **(environment or {})})
        self.findings = json.loads(self.done.stdout)
        # Where the tests run in somebody's container, process 1 may be nobody's to look at.
        self.problems = [finding for finding in self.findings if finding["verdict"] == "problem"
                         and "/proc/1/ns/net can't be read" not in finding["finding"]]
        assert self.done.returncode == (3 if any(one["verdict"] == "problem" for one in self.findings) else 0), self.done

    def found(self, what, text):
        found = [finding for finding in self.findings if finding["what"] == what and text in finding["finding"]]
        assert len(found) == 1, (what, text, self.findings)
        return found[0]

    def problem(self, what, text, advice):
        finding = self.found(what, text)
        assert finding["verdict"] == "problem" and advice in finding["advice"], finding


def test_a_node_on_which_all_is_well(host):
    doctor = Doctor(host)
    assert doctor.problems == []
    assert "a trial redirection, and the host's rules, work" in doctor.found("kernel", "Linux")["finding"]
    assert "10-bridge.conflist: bridge, portmap; ambient-cni is not chained" in doctor.found("primary CNI", "bridge")["finding"]
    assert doctor.found("agent", "does not run on this node")["verdict"] == "note"
    assert doctor.found("istio-cni", "nothing of it is left")["verdict"] == "well"
    assert sorted(path.name for path in host.iterdir()) == ["bin", "net.d", "run", "ztunnel"] and not os.listdir(host / "bin")


def test_a_kernel_that_lacks_what_can_be_done_without(host):
    doctor = Doctor(host, environment={"LD_PRELOAD": str(BUILD / "tests" / "no_conntrack_timeout.so"), **WITH_PRELOAD})
    assert doctor.problems == []
    assert doctor.found("kernel", "the kernel lacks CONFIG_NF_CONNTRACK_TIMEOUT")["verdict"] == "note"
    doctor.found("kernel", "a trial redirection, and the host's rules, work")


def test_text_for_people(host):
    done = subprocess.run([str(INSTALLER), "doctor", "--set", f"host.confDir={host}/nowhere", "--set", f"source=folder:{host}"],
                          capture_output=True, text=True, timeout=60)
    assert "note     paths         host.confDir" in done.stdout or "problem  paths         host.confDir" in done.stdout
    assert "do: " in done.stdout and "\033" not in done.stdout


def test_paths(host, tmp_path):
    Doctor(host, "host.binDir=/host/opt/cni/bin").problem("paths", "host.binDir: /host/opt/cni/bin", "mount the node's /opt/cni/bin")
    (host / "file").write_text("")
    Doctor(host, f"host.confDir={host}/file").problem("paths", "is no directory", "--set host.confDir=PATH")
    Doctor(host, f"host.procDir={host}").problem("paths", "is no /proc", "host.procDir")
    Doctor(host, f"host.networkNamespace={host}/file").problem("paths", "host.networkNamespace", "does not start without it")


def test_a_read_only_directory(host):
    command = (f"mount --bind -o ro {host}/bin {host}/bin && mount -o remount,bind,ro {host}/bin && exec {INSTALLER} doctor "
               f"--set host.binDir={host}/bin --set host.confDir={host}/net.d --set source=folder:{host} -o json")
    done = subprocess.run(["unshare", "-mn", "sh", "-c", command], capture_output=True, text=True, timeout=60)
    found = [one for one in json.loads(done.stdout) if "mounted read-only" in one["finding"]]
    assert len(found) == 1 and found[0]["verdict"] == "problem" and "host.binDir=PATH" in found[0]["advice"]


def test_network_configurations(host):
    conf = host / "net.d"
    (conf / "05-broken.conflist").write_text("{")
    Doctor(host).problem("primary CNI", "05-broken.conflist is not valid, and containerd stops at it", "mend or remove")
    (conf / "05-broken.conflist").unlink()
    (conf / "10-bridge.conflist").write_text(json.dumps(
        {**CONFLIST, "plugins": [{"type": "cilium-cni"}, {"type": "istio-cni"}, {"type": "ambient-cni"}]}))
    doctor = Doctor(host)
    assert "not chained" not in doctor.found("primary CNI", "cilium-cni, istio-cni, ambient-cni")["finding"]
    assert doctor.found("istio-cni", "istio-cni is chained in 10-bridge.conflist")
    assert doctor.found("primary CNI", "cni.exclusive=false")
    (conf / "10-bridge.conflist").unlink()
    assert Doctor(host).found("primary CNI", "holds no network configuration yet")["verdict"] == "note"


def test_what_istio_cni_left(host):
    inside = Namespace()
    inside.run("nft", "add table inet istio-ambient-nat; add chain inet istio-ambient-nat output")
    finding = Doctor(host, inside=inside).found("istio-cni", "rules or sets of istio-cni stand on the host")
    assert finding["verdict"] == "note"
    assert "istio-ambient-nat" in inside.run("nft", "list", "tables")


def test_a_running_agent(tmp_path):
    node = Node(tmp_path, tunnel=False)
    try:
        settings = [f"runDir={node.run_dir}", f"tunnelSocket={node.tunnel_path}", "host.install=false"]
        doctor = Doctor(tmp_path, *settings)
        assert doctor.found("agent", "runs on node and is ready")["verdict"] == "well"
        doctor.problem("tunnel", "none is connected at", "kubectl get pods -n istio-system -l app=ztunnel")
        node.connect()
        assert Doctor(tmp_path, *settings).found("tunnel", "connected at")["verdict"] == "well"
    finally:
        node.close()


@pytest.fixture
def api(tmp_path):
    inside = Namespace()
    inside.ip("link set lo up\n")
    with inside:
        api = ApiServer(tmp_path / "api")
    with api:
        api.inside = inside
        api.for_people = {"/api/v1/pods": {"kind": "PodList", "apiVersion": "v1", "items": []}}
        yield api
        api.check()


def pod(namespace, name, labels=None, init_containers=()):
    return {"metadata": {"namespace": namespace, "name": name, "labels": labels or {}}, "status": {"phase": "Running"},
            "spec": {"initContainers": [{"name": one} for one in init_containers]}}


def test_api_server(host, api, tmp_path):
    arguments = ["source=kubernetes", ["--kubeconfig", str(api.write_kubeconfig(tmp_path / "config"))]]
    api.for_people["/api/v1/pods"]["items"] = [
        pod("istio-system", "ztunnel-x7", {"app": "ztunnel"}), pod("shop", "cart", init_containers=["istio-init"])]
    doctor = Doctor(host, *arguments, inside=api.inside)
    assert doctor.problems == []
    assert "2 pods on node a" in doctor.found("API server", "answers")["finding"]
    assert doctor.found("API server", "all that the agent does there is allowed")
    assert doctor.found("ztunnel", "ztunnel-x7 is on this node")["verdict"] == "well"

    api.refused_rights = {"patch pods/status"}
    api.for_people["/api/v1/pods"]["items"] = [pod("shop", "old", init_containers=["istio-validation"])]
    doctor = Doctor(host, *arguments, inside=api.inside)
    doctor.problem("API server", "patch pods/status is not allowed", "ClusterRole")
    doctor.problem("sidecars", "1 pods of this node, shop/old first", "istio-init")
    assert doctor.found("ztunnel", "there is none on node a")["verdict"] == "note"

    api.tokens = set()
    Doctor(host, *arguments, inside=api.inside).problem("API server", "Unauthorized", "ServiceAccount")
    api.stop()
    assert Doctor(host, *arguments, inside=api.inside).problems[0]["what"] == "API server"


def test_without_credentials(host):
    finding = Doctor(host, "source=kubernetes").found("API server", "there are no credentials")
    assert finding["verdict"] == "note"
