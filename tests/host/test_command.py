"""ambient-installer install and uninstall, by hand."""
import json
import os
import pathlib
import socket
import subprocess
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from netns import redirect  # noqa: E402
from netns.namespace import Namespace  # noqa: E402

from .configurations import BRIDGE, CALICO  # noqa: E402
from .tool import BUILD, Host  # noqa: E402


class Node(Host):
    """A host with a process list, named namespaces and a host's network of its own: nothing of this machine is looked at."""

    def __init__(self, folder):
        super().__init__(folder)
        self.run_dir, self.proc, self.netns = folder / "run", folder / "proc", folder / "netns"
        self.proc.mkdir()
        self.netns.mkdir()
        self.network = Namespace()
        self.namespaces = [self.network]
        # The host's own processes.
        self.add_process(1, self.network)

    def close(self):
        for namespace in self.namespaces:
            namespace.close()

    def add_process(self, pid, namespace):
        (self.proc / str(pid) / "ns").mkdir(parents=True)
        (self.proc / str(pid) / "ns" / "net").symlink_to(namespace.path)

    def new_pod(self, pid=None, name=None):
        namespace = Namespace()
        namespace.ip("link set lo up")
        self.namespaces.append(namespace)
        if pid:
            self.add_process(pid, namespace)
        if name:
            (self.netns / name).symlink_to(namespace.path)
        return namespace

    def call(self, command, *arguments, **settings):
        settings = {"host.binDir": self.bin_dir, "host.confDir": self.conf_dir, "host.binSource": self.source,
                    "host.procDir": self.proc, "host.netnsDir": self.netns, "host.networkNamespace": self.network.path,
                    "runDir": self.run_dir, "nodeName": "node1", **settings}
        options = [part for key, value in settings.items() for part in ("--set", f"{key}={value}")]
        return subprocess.run([str(BUILD / "ambient-installer"), command, *options, *arguments], capture_output=True, text=True,
                              check=False, timeout=60)

    def remember(self, namespace, pod, container="c1", enrolled=True):
        folder = self.run_dir / "attachments"
        folder.mkdir(parents=True, exist_ok=True)
        status = os.fstat(namespace.fd)
        pod_namespace, pod_name = pod.split("/")
        (folder / f"{container}:eth0.json").write_text(json.dumps({
            "version": 1, "network": "podnet", "containerID": container, "interface": "eth0", "enrolled": enrolled,
            "netnsPath": namespace.path, "podNamespace": pod_namespace, "podName": pod_name,
            "netns": {"device": str(status.st_dev), "inode": str(status.st_ino)}, "addresses": ["10.0.0.1"]}))


@pytest.fixture
def node(tmp_path):
    node = Node(tmp_path)
    yield node
    node.close()


def test_install(node):
    node.write("10-calico.conflist", CALICO)
    done = node.call("install")
    assert done.returncode == 0, done.stderr
    assert "installed" in done.stdout and done.stdout.splitlines()[-1].startswith("ready: ")
    entry = node.read("10-calico.conflist")["plugins"][-1]
    assert entry == {"type": "ambient-cni", "excludeNamespaces": ["kube-system"], "enrollment": "installer",
                     "runDir": str(node.run_dir), "systemNamespace": "istio-system", "installerNamespace": "istio-system",
                     "installerPodPrefix": "istio-cni-node-", "whenAway": "outside", "logLevel": "info"}
    again = node.call("install", "-o", "json")
    assert json.loads(again.stdout) == {"ready": True, "binary": True, "configuration": True, "file": "10-calico.conflist",
                                        "reason": ""}


def test_the_plugin_reads_the_entry_that_is_installed(node):
    """Every key is one of the plugin's, with a type that it accepts: a CHECK of an unknown container passes."""
    node.write("10-calico.conflist", {**CALICO, "cniVersion": "1.0.0"})
    node.call("install", whenAway="closed", excludeNamespaces='["kube-system", "x"]')
    entry = {**node.read("10-calico.conflist")["plugins"][-1], "name": "k8s-pod-network", "cniVersion": "1.0.0"}
    done = subprocess.run([str(node.bin_dir / "ambient-cni")], input=json.dumps(entry), capture_output=True, text=True, check=False,
                          env={"CNI_COMMAND": "DEL", "CNI_CONTAINERID": "c", "CNI_IFNAME": "eth0", "CNI_PATH": "/"})
    assert done.returncode == 0, done.stdout


def test_install_that_can_do_only_half_says_what_is_missing(node):
    done = node.call("install")
    assert done.returncode == 1 and "waiting for the primary network's configuration" in done.stderr
    assert (node.bin_dir / "ambient-cni").exists()


def test_install_is_off(node):
    done = node.call("install", **{"host.install": "false"})
    assert done.returncode == 1 and "host.install is false" in done.stderr
    assert list(node.bin_dir.iterdir()) == []


@pytest.mark.parametrize("arguments", [["x"], ["-o", "yaml"], ["--force"], ["--nothing"]])
def test_wrong_arguments(node, arguments):
    assert node.call("install", *arguments).returncode == 2


def test_uninstall_takes_everything_away(node):
    node.write("10-bridge.conf", BRIDGE)
    assert node.call("install").returncode == 0
    remembered, found, named, outside = node.new_pod(), node.new_pod(pid=20), node.new_pod(name="cni-1"), node.new_pod(pid=30)
    for pod in (remembered, found, named):
        redirect.apply(pod)
    node.remember(remembered, "shop/cart")
    node.remember(outside, "shop/outside", container="c2", enrolled=False)
    node.network.nft("table inet ambient-cni-host {\n set pods-ipv4 { type ipv4_addr; }\n}")
    node.network.nft("table inet theirs { }")
    # Routes like ours in a pod that is not ours are another's.
    outside.ip("rule add fwmark 0x111/0xfff lookup 100 pref 32764\nroute add local default dev lo table 100")
    before = outside.run("ip", "rule")

    done = node.call("uninstall")
    assert done.returncode == 0, done.stderr
    assert node.names() == ["10-bridge.conf"] and node.read("10-bridge.conf") == BRIDGE
    assert list(node.bin_dir.iterdir()) == []
    for pod in (remembered, found, named):
        assert pod.run("nft", "list", "ruleset") == "" and "lookup 100" not in pod.run("ip", "rule")
    assert outside.run("ip", "rule") == before
    assert node.network.run("nft", "list", "ruleset") == "table inet theirs {\n}\n"
    assert "released shop/cart" in done.stdout
    assert "kubectl annotate pod -n shop cart ambient.istio.io/redirection-" in done.stdout
    assert not (node.run_dir / "attachments").exists()
    again = node.call("uninstall", "-o", "json")
    assert again.returncode == 0 and json.loads(again.stdout)["released"] == []


def test_uninstall_never_takes_the_hosts_namespace_for_a_pods(node):
    redirect.apply(node.network)  # whatever got there
    assert node.call("uninstall").returncode == 0
    assert "ambient-cni" in node.network.run("nft", "list", "ruleset")


def test_uninstall_does_the_rest_when_a_part_fails(node):
    pod = node.new_pod(pid=20)
    redirect.apply(pod)
    node.write("10-x.conflist", {"cniVersion": "1.0.0", "name": "x", "plugins": [
        {"type": "ptp"}, {"type": "ambient-cni", "ambient-cni.io/original": "../x.conf"}]})
    node.remember(pod, "shop/cart")
    done = node.call("uninstall", "-o", "json")
    answer = json.loads(done.stdout)
    assert done.returncode == 1 and answer["configurationGone"] is False and "by hand" in answer["problems"][0]
    assert answer["released"] == ["shop/cart"]
    assert pod.run("nft", "list", "ruleset") == ""
    assert (node.run_dir / "attachments").exists()


def test_uninstall_refuses_while_the_node_agent_runs(node):
    node.write("10-bridge.conf", BRIDGE)
    node.call("install")
    node.run_dir.mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as agent:
        # The path may be longer than a socket's name can be.
        home = os.open(node.run_dir, os.O_RDONLY | os.O_DIRECTORY)
        agent.bind(f"/proc/self/fd/{home}/installer.sock")
        os.close(home)
        agent.listen()
        done = node.call("uninstall")
        assert done.returncode == 1 and "node agent runs" in done.stderr
        assert node.names() == ["10-bridge.conflist"]
        assert node.call("uninstall", "--force").returncode == 0
        assert node.names() == ["10-bridge.conf"]


def test_uninstall_needs_the_hosts_namespace_that_is_named(node):
    node.write("10-calico.conflist", CALICO)
    node.call("install")
    done = node.call("uninstall", **{"host.networkNamespace": "/nonexistent/net"})
    assert done.returncode == 1 and "/nonexistent/net" in done.stderr
    assert node.types("10-calico.conflist")[-1] == "ambient-cni"
