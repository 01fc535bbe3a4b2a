"""A node with a control plane of its own: etcd, kube-apiserver, kube-controller-manager, kube-scheduler, containerd and the kubelet, in
a machine of machine.py, at the paths that they have everywhere (/etc/cni/net.d, /opt/cni/bin, /run/containerd, /var/lib/kubelet).

There is no kube-proxy: one NAT rule leads the API server's Service address to it. Pods get their addresses from host-local."""
import glob
import json
import os
import shutil
import signal
import socket

from . import namespaces
from .api import Api, ApiError
from .authority import make_certificates
from .images import TEST_IMAGE, make_test_image
from .machine import ADDRESS, Machine
from .waiting import wait_until

NODE = "node1"
API_PORT = 6443
PODS = {4: "10.98.0.0/24", 6: "fd98::/112"}
GATEWAY = {4: "10.98.0.1", 6: "fd98::1"}
SERVICES = {4: "10.96.0.0/24", 6: "fd96::/112"}
API_SERVICE = {4: "10.96.0.1", 6: "fd96::1"}
TOKENS = {"admin": ("admin-token", "system:masters"), "kubelet": (f"system:node:{NODE}", "system:nodes"),
          "controllers": ("system:kube-controller-manager", "system:masters"), "scheduler": ("system:kube-scheduler", "system:masters")}
PKI, ETC = "/etc/kubernetes/pki", "/etc/kubernetes"
CONF_DIR, BIN_DIR = "/etc/cni/net.d", "/opt/cni/bin"
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"


def bracketed(address):
    return f"[{address}]" if ":" in address else address


def conflist(version, primary, families, extra=()):
    """The primary CNI's configuration as an administrator writes it, and what is chained behind it."""
    ipam = {"type": "host-local", "ranges": [[{"subnet": PODS[family]}] for family in families],
            "routes": [{"dst": "0.0.0.0/0" if family == 4 else "::/0"} for family in families]}
    if primary == "bridge":
        plugin = {"type": "bridge", "bridge": "cni0", "isGateway": True, "hairpinMode": True, "ipam": ipam}
    else:
        plugin = {"type": "ptp", "ipam": ipam}
    return {"cniVersion": version, "name": "podnet", "plugins": [plugin, *extra]}


class Cluster:
    def __init__(self, components, families=(4, 6), primary="bridge", containerd=1, chained=()):
        self.components, self.families, self.primary, self.containerd_major = components, families, primary, containerd
        self.family = families[0]
        self.machine = Machine(families)
        try:
            self.address = ADDRESS[self.family]
            self._write_files(chained)
            self.api = Api(self.address, API_PORT, "admin", os.path.join(self.machine.state, "pki/ca.crt"), self._connect)
            self.image = os.path.join(self.machine.state, "test-image.tar")
            make_test_image(self.image, components)
            self.start()
            self._bind_roles()
        except BaseException:
            self.close()
            raise

    def close(self):
        self.machine.close()

    # --- the files

    def _write_files(self, chained):
        machine = self.machine
        addresses = [ADDRESS[family] for family in self.families] + [API_SERVICE[family] for family in self.families] + ["127.0.0.1"]
        pki = os.path.join(machine.state, "pki")
        make_certificates(pki, addresses)
        for name in os.listdir(pki):
            with open(os.path.join(pki, name), encoding="ascii") as file:
                machine.write(f"{PKI}/{name}", file.read(), 0o600)
        machine.write(f"{ETC}/tokens.csv", "".join(f'{token},{user},{user},"{group}"\n' for token, (user, group) in TOKENS.items()), 0o600)
        for who in TOKENS:
            machine.write(f"{ETC}/{who}.conf", json.dumps(self.kubeconfig(who)), 0o600)
        machine.write(f"{ETC}/kubelet.json", json.dumps(self._kubelet_configuration()))
        machine.write("/etc/containerd/config.toml", self._containerd_configuration())
        self.write_conflist(conflist("1.0.0" if self.containerd_major == 1 else "1.1.0", self.primary, self.families, chained))
        for path in glob.glob(f"{self.components.cni_plugins(self.containerd_major)}/*"):
            shutil.copy(path, self._made(BIN_DIR))

    def _made(self, folder):
        outside = self.machine.path(folder)
        os.makedirs(outside, exist_ok=True)
        return outside

    def write_conflist(self, configuration, name="10-podnet.conflist"):
        self._made(CONF_DIR)
        self.machine.write(f"{CONF_DIR}/.{name}.new", json.dumps(configuration, indent=2))
        os.rename(self.machine.path(f"{CONF_DIR}/.{name}.new"), self.machine.path(f"{CONF_DIR}/{name}"))

    def read_conflist(self, name="10-podnet.conflist"):
        return json.loads(self.machine.read(f"{CONF_DIR}/{name}"))

    def kubeconfig(self, token):
        server = f"https://{bracketed(self.address)}:{API_PORT}"
        return {"apiVersion": "v1", "kind": "Config", "current-context": "node",
                "clusters": [{"name": "node", "cluster": {"server": server, "certificate-authority": f"{PKI}/ca.crt"}}],
                "users": [{"name": "user", "user": {"token": token}}],
                "contexts": [{"name": "node", "context": {"cluster": "node", "user": "user"}}]}

    def _kubelet_configuration(self):
        configuration = {
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
            "authorization": {"mode": "AlwaysAllow"}, "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
            "cgroupDriver": "cgroupfs", "cgroupRoot": f"/{self.machine.cgroup}", "enforceNodeAllocatable": [],
            "localStorageCapacityIsolation": False, "makeIPTablesUtilChains": False, "failSwapOn": False,
            "resolvConf": "/etc/resolv.conf", "clusterDomain": "cluster.local", "clusterDNS": [API_SERVICE[self.family]],
            "imageGCHighThresholdPercent": 100, "evictionHard": {"memory.available": "0%", "nodefs.available": "0%",
                                                                 "nodefs.inodesFree": "0%", "imagefs.available": "0%"},
            "registerWithTaints": [], "maxPods": 250, "serializeImagePulls": False, "syncFrequency": "10s",
            "nodeStatusUpdateFrequency": "2s", "nodeStatusReportFrequency": "10s", "kubeAPIQPS": 200, "kubeAPIBurst": 400,
            "healthzBindAddress": "127.0.0.1", "volumePluginDir": "/var/lib/kubelet/volumeplugins",
            "staticPodPath": "/etc/kubernetes/manifests",
        }
        if not os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
            configuration["failCgroupV1"] = False
        return configuration

    def _containerd_configuration(self):
        if self.containerd_major == 1:
            return f"""version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{TEST_IMAGE}"
  restrict_oom_score_adj = true
  disable_apparmor = true
"""
        return f"""version = 3
[plugins.'io.containerd.cri.v1.images'.pinned_images]
  sandbox = '{TEST_IMAGE}'
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true
  disable_apparmor = true
  enable_unprivileged_ports = false
  enable_unprivileged_icmp = false
"""

    # --- the programs

    def start(self):
        """Everything, from nothing or after a reboot."""
        self._make_service_address()
        os.makedirs(self.machine.path("/etc/kubernetes/manifests"), exist_ok=True)
        self.start_etcd()
        self.start_containerd()
        self.start_apiserver()
        self.start_controllers()
        self.start_kubelet()
        self.wait_ready()

    def _make_service_address(self):
        rules = "".join(f"    {'ip' if family == 4 else 'ip6'} daddr {API_SERVICE[family]} tcp dport 443 "
                        f"dnat to {bracketed(ADDRESS[family])}:{API_PORT}\n" for family in self.families if family == self.family)
        family = "ip" if self.family == 4 else "ip6"
        self.machine.run("nft", "-f", "-", stdin=f"""table {family} api-service {{
  chain prerouting {{
    type nat hook prerouting priority -100;
{rules}  }}
  chain output {{
    type nat hook output priority -100;
{rules}  }}
}}
""")

    def start_etcd(self):
        self.machine.start("etcd", "etcd", "--data-dir=/var/lib/etcd", "--listen-client-urls=http://127.0.0.1:2379", "--unsafe-no-fsync",
                           "--advertise-client-urls=http://127.0.0.1:2379", "--listen-peer-urls=http://127.0.0.1:2380")

    def start_apiserver(self):
        self.machine.start(
            "apiserver", self.components.kubernetes("kube-apiserver"), "--etcd-servers=http://127.0.0.1:2379",
            f"--advertise-address={self.address}", f"--bind-address={'::' if self.family == 6 else '0.0.0.0'}",
            f"--secure-port={API_PORT}", f"--tls-cert-file={PKI}/server.crt", f"--tls-private-key-file={PKI}/server.key",
            f"--token-auth-file={ETC}/tokens.csv", "--authorization-mode=Node,RBAC", "--allow-privileged=true",
            "--enable-admission-plugins=NodeRestriction", f"--service-cluster-ip-range={SERVICES[self.family]}",
            "--service-account-issuer=https://kubernetes.default.svc", f"--service-account-signing-key-file={PKI}/tokens.key",
            f"--service-account-key-file={PKI}/tokens.pub", "--profiling=false", "--kubelet-preferred-address-types=InternalIP")
        wait_until(lambda: self._answers("/readyz"), 90, "the API server is ready", explain=self.tails)

    def start_controllers(self):
        self.machine.start(
            "controllers", self.components.kubernetes("kube-controller-manager"), f"--kubeconfig={ETC}/controllers.conf",
            f"--root-ca-file={PKI}/ca.crt", f"--service-account-private-key-file={PKI}/tokens.key", "--leader-elect=false",
            "--use-service-account-credentials=false", "--node-monitor-grace-period=60s", "--kube-api-qps=200", "--kube-api-burst=400",
            "--concurrent-namespace-syncs=20")
        self.machine.start("scheduler", self.components.kubernetes("kube-scheduler"), f"--kubeconfig={ETC}/scheduler.conf",
                           "--leader-elect=false", "--kube-api-qps=200", "--kube-api-burst=400")

    def start_containerd(self):
        folder = self.components.containerd_folder(self.containerd_major)
        path = f"{folder}:{self.machine.environment['PATH']}"
        self.machine.start("containerd", f"{folder}/containerd", environment={"PATH": path})
        wait_until(lambda: self.ctr("version", check=False), 30, "containerd answers", explain=self.tails)
        if TEST_IMAGE not in self.ctr("images", "ls", "-q"):
            self.import_image(self.image)

    def ctr(self, *arguments, check=True):
        return self.machine.run("ctr", "--namespace=k8s.io", *arguments, check=check)

    def import_image(self, path):
        self.ctr("images", "import", path)

    def start_kubelet(self):
        self.machine.start("kubelet", self.components.kubernetes("kubelet"), f"--kubeconfig={ETC}/kubelet.conf",
                           f"--config={ETC}/kubelet.json", f"--hostname-override={NODE}",
                           "--node-ip=" + ",".join(ADDRESS[family] for family in self.families), "--v=2")

    def wait_ready(self, seconds=90):
        def is_ready():
            node = self.find_node()
            return node and any(condition["type"] == "Ready" and condition["status"] == "True"
                                for condition in node["status"].get("conditions", []))
        wait_until(is_ready, seconds, "the node is ready", explain=self.tails)

    def find_node(self):
        try:
            return self.api.find("Node", name=NODE)
        except (OSError, ApiError):
            return None

    def _bind_roles(self):
        """Default service accounts come a moment after their namespace; pods wait for them."""
        wait_until(lambda: self.api.find("ServiceAccount", "default", "default"), 30, "the controllers work", explain=self.tails)

    def kill_pods(self):
        """What a machine's end does to containers; only the shims and what they hold are meant."""
        self.machine.run("pkill", "-KILL", "containerd-shim", check=False)

    def reboot(self):
        self.machine.reboot()
        self.start()

    def stop(self, name, number=signal.SIGTERM):
        self.machine.programs[name].stop(number)

    # --- asking

    def _connect(self, address, timeout=30, source=None):
        """A TCP connection made in the machine's network."""
        with namespaces.entered(f"/proc/{self.machine.process_one}/ns/net"):
            return socket.create_connection(address, timeout, source)

    def _answers(self, path):
        for program in self.machine.programs.values():
            assert program.is_running(), f"{program.name} ended with status {program.outer.returncode}:\n{program.tail()}"
        try:
            return self.api.request("GET", path) == "ok"
        except (OSError, ApiError):
            return False

    def tails(self):
        return "".join(program.tail() for program in self.machine.programs.values())

    def kubectl(self, *arguments, stdin=None, check=True, token="admin"):
        return self.machine.run(self.components.kubernetes("kubectl"), f"--kubeconfig={ETC}/{token}.conf", *arguments, stdin=stdin,
                                check=check)
