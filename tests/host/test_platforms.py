"""The directories and configurations of each platform (docs/platforms.md): installed, followed through what that platform does, and
taken away again."""
import json

import pytest

from .configurations import CALICO, CILIUM, FLANNEL, ISTIO_ENTRY, KINDNET

ENTRY = {"type": "ambient-cni", "enrollment": "installer", "runDir": "/run/x"}

K3S = {"name": "cbr0", "cniVersion": "1.0.0", "plugins": [
    {"type": "flannel", "delegate": {"hairpinMode": True, "forceAddress": True, "isDefaultGateway": True}},
    {"type": "portmap", "capabilities": {"portMappings": True}}, {"type": "bandwidth", "capabilities": {"bandwidth": True}}]}
CANAL = {"name": "k8s-pod-network", "cniVersion": "0.3.1", "plugins": [
    {"type": "calico", "log_level": "info", "ipam": {"type": "host-local", "ranges": [[{"subnet": "usePodCidr"}]]}},
    {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}}]}
GKE = {"name": "k8s-pod-network", "cniVersion": "0.3.1", "plugins": [
    {"type": "ptp", "mtu": 1460, "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.0.0.0/24"}]]}},
    {"type": "portmap", "capabilities": {"portMappings": True}}]}
AWS = {"cniVersion": "0.4.0", "name": "aws-cni", "disableCheck": True, "plugins": [
    {"name": "aws-cni", "type": "aws-cni", "vethPrefix": "eni", "mtu": "9001", "podSGEnforcingMode": "strict"},
    {"name": "egress-cni", "type": "egress-cni", "mtu": "9001", "enabled": "false", "ipam": {"type": "host-local"}},
    {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}]}
AZURE = {"cniVersion": "0.3.0", "name": "azure", "plugins": [
    {"type": "azure-vnet", "mode": "transparent", "ipsToRouteViaHost": ["169.254.20.10"], "ipam": {"type": "azure-vnet-ipam"}},
    {"type": "portmap", "capabilities": {"portMappings": True}, "snat": True}]}
TALOS = {"name": "cbr0", "cniVersion": "1.0.0", "plugins": FLANNEL["plugins"]}
BRIDGE = {"cniVersion": "0.4.0", "name": "bridge", "plugins": [
    {"type": "bridge", "bridge": "bridge", "addIf": "true", "isDefaultGateway": True, "forceAddress": False, "ipMasq": True,
     "hairpinMode": True, "ipam": {"type": "host-local", "subnet": "10.244.0.0/16"}},
    {"type": "portmap", "capabilities": {"portMappings": True}}, {"type": "firewall"}]}

# platform: (binaries, configurations, the primary's file, its content)
LAYOUTS = {
    "kubeadm": ("opt/cni/bin", "etc/cni/net.d", "10-calico.conflist", CALICO),
    "kind": ("opt/cni/bin", "etc/cni/net.d", "10-kindnet.conflist", KINDNET),
    "k3s": ("var/lib/rancher/k3s/data/cni", "var/lib/rancher/k3s/agent/etc/cni/net.d", "10-flannel.conflist", K3S),
    "k3s before 2024": ("var/lib/rancher/k3s/data/current/bin", "var/lib/rancher/k3s/agent/etc/cni/net.d", "10-flannel.conflist", K3S),
    "k3d": ("bin", "var/lib/rancher/k3s/agent/etc/cni/net.d", "10-flannel.conflist", K3S),
    "RKE2": ("opt/cni/bin", "etc/cni/net.d", "10-canal.conflist", CANAL),
    "MicroK8s": ("var/snap/microk8s/current/opt/cni/bin", "var/snap/microk8s/current/args/cni-network", "10-calico.conflist", CALICO),
    "Talos": ("opt/cni/bin", "etc/cni/net.d", "10-flannel.conflist", TALOS),
    "Bottlerocket, EKS": ("opt/cni/bin", "etc/cni/net.d", "10-aws.conflist", AWS),
    "AKS": ("opt/cni/bin", "etc/cni/net.d", "10-azure.conflist", AZURE),
    "GKE": ("home/kubernetes/bin", "etc/cni/net.d", "10-containerd-net.conflist", GKE),
    "Cilium": ("opt/cni/bin", "etc/cni/net.d", "05-cilium.conflist", CILIUM),
    "minikube": ("opt/cni/bin", "etc/cni/net.d", "1-k8s.conflist", BRIDGE),
}


@pytest.mark.parametrize("platform", LAYOUTS)
def test_layout(make_host, platform):
    bin_dir, conf_dir, name, configuration = LAYOUTS[platform]
    host = make_host(bin_dir=bin_dir, conf_dir=conf_dir)
    with host.watch() as watcher:
        # A new node: the agent is there before the network.
        watcher.wait_reason("waiting for the primary network's configuration")
        host.write(name, configuration)
        watcher.wait_ready()
    assert host.read(name)["plugins"] == [*configuration["plugins"], ENTRY]
    assert host.choose()["containerd"] == name
    answer = host.uninstall()
    assert answer["configuration_gone"] and answer["binary_gone"]
    assert host.read(name) == configuration


def test_k3s_links_its_binaries_to_a_directory_of_its_version(make_host):
    """data/current is a link that moves with each upgrade of k3s: the plugin must be put into the new one."""
    host = make_host(bin_dir="k3s/data/0001/bin", conf_dir="k3s/agent/etc/cni/net.d")
    current = host.folder / "k3s/data/current"
    current.symlink_to("0001")
    host.options["bin_dir"] = str(current / "bin")
    host.write("10-flannel.conflist", K3S)
    with host.watch() as watcher:
        watcher.wait_ready()
        assert (host.folder / "k3s/data/0001/bin/ambient-cni").exists()
        new = host.folder / "k3s/data/0002/bin"
        new.mkdir(parents=True)
        link = current.with_name("new")
        link.symlink_to("0002")
        link.rename(current)
        # Nothing in the old directory tells of it; the configuration that k3s writes at its start does.
        host.write("10-flannel.conflist", K3S)
        watcher.wait((new / "ambient-cni").exists, "the plugin in the new directory")
        watcher.wait_ready()


def test_minikubes_own_network_before_the_clusters(make_host):
    """minikube puts its podman network and crio's away as *.mk_disabled; what is left is the cluster's."""
    host = make_host()
    host.write("87-podman-bridge.conflist.mk_disabled", BRIDGE)
    host.write("100-crio-bridge.conf.mk_disabled", {"type": "bridge"})
    host.write("1-k8s.conflist", BRIDGE)
    assert host.install()["file"] == "1-k8s.conflist"


def test_openshift_is_stand_alone_for_multus(make_host):
    host = make_host(bin_dir="var/lib/cni/bin", conf_dir="etc/cni/multus/net.d")
    options = {"chained": False, "conf_file": "istio-cni.conf"}
    # istio-cni's, which is taken over under its name: that is what NetworkAttachmentDefinitions ask for.
    host.write("istio-cni.conf", {"cniVersion": "0.3.1", "name": "istio-cni", **ISTIO_ENTRY})
    state = host.install(**options)
    assert state["ready"] and host.names() == ["istio-cni.conf"]
    assert host.read("istio-cni.conf") == {"cniVersion": "1.0.0", "name": "istio-cni", **ENTRY}
    host.uninstall(**options)
    assert host.names() == []


def test_rke2_with_multus(make_host):
    host = make_host()
    host.write("10-canal.conflist", CANAL)
    host.write("00-multus.conf", {"cniVersion": "0.3.1", "name": "multus-cni-network", "type": "multus", "delegates": [CANAL],
                                  "kubeconfig": "/etc/cni/net.d/multus.d/multus.kubeconfig"})
    with host.watch() as watcher:
        watcher.wait_reason("Multus")
        # Multus sees the change of the primary's file and embeds it anew.
        host.write("00-multus.conf", {"cniVersion": "0.3.1", "name": "multus-cni-network", "type": "multus",
                                      "delegates": [host.read("10-canal.conflist")]})
        watcher.wait_ready()
    assert json.loads((host.conf_dir / "00-multus.conf").read_text())["type"] == "multus"
