"""Network configurations as they are found on nodes, with keys that only their owners know."""

CALICO = {
    "name": "k8s-pod-network", "cniVersion": "0.3.1",
    "plugins": [
        {"type": "calico", "log_level": "info", "datastore_type": "kubernetes", "nodename": "node1", "mtu": 0,
         "ipam": {"type": "calico-ipam"}, "policy": {"type": "k8s"}, "big": 9007199254740991, "small": 0.1,
         "kubernetes": {"kubeconfig": "/etc/cni/net.d/calico-kubeconfig"}},
        {"type": "portmap", "snat": True, "capabilities": {"portMappings": True}},
        {"type": "bandwidth", "capabilities": {"bandwidth": True}},
    ]}

FLANNEL = {
    "name": "cbr0", "cniVersion": "1.0.0",
    "plugins": [{"type": "flannel", "delegate": {"forceAddress": True, "hairpinMode": True, "isDefaultGateway": True}},
                {"type": "portmap", "capabilities": {"portMappings": True}}]}

CILIUM = {"cniVersion": "0.3.1", "name": "cilium",
          "plugins": [{"type": "cilium-cni", "enable-debug": False, "log-file": "/var/run/cilium/cilium-cni.log"}]}

BRIDGE = {"cniVersion": "1.0.0", "name": "podnet", "type": "bridge", "bridge": "cni0", "isGateway": True,
          "ipam": {"type": "host-local", "subnet": "10.22.0.0/16"}, "x-unknown": [1, {"a": None}]}

KINDNET = {"cniVersion": "0.3.1", "name": "kindnet",
           "plugins": [{"type": "ptp", "ipMasq": False, "mtu": 1500,
                        "ipam": {"type": "host-local", "dataDir": "/run/cni-ipam-state", "routes": [{"dst": "0.0.0.0/0"}],
                                 "ranges": [[{"subnet": "10.244.0.0/24"}]]}},
                       {"type": "portmap", "capabilities": {"portMappings": True}}]}

ISTIO_ENTRY = {"type": "istio-cni", "log_level": "info", "plugin_log_level": "info", "ambient_enabled": True,
               "kubernetes": {"kubeconfig": "/etc/cni/net.d/ZZZ-istio-cni-kubeconfig", "cni_bin_dir": "/opt/cni/bin"}}


def with_istio(configuration):
    return {**configuration, "plugins": [*configuration["plugins"], ISTIO_ENTRY]}


def with_us(configuration, entry):
    return {**configuration, "plugins": [*configuration["plugins"], entry]}
