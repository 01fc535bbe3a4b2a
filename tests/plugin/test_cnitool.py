"""The plugin as a container runtime drives it: by the CNI project's cnitool, chained behind the real bridge and host-local.

Every test has a node of its own: network, mount and process namespaces that are held by one process and go with it, /run and
/var/lib (where libcni and host-local keep their files) empty ones inside. cnitool 1.1.2 is what Debian 12's Go builds; a newer
one, which knows gc and status, is tried too where Go can build it."""
import ipaddress
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).resolve().parent
BUILD = Path(os.environ.get("AMBIENT_BUILD", HERE.parent.parent / "build")).resolve()
CNI_PLUGINS = Path("/usr/lib/cni")
OLD, NEW = "v1.1.2", "v1.3.0"  # as tests/cnitool.sh chooses them
TABLE = ("inet", "ambient-cni")


def newer_go():
    try:
        text = subprocess.run(["go", "version"], capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return False
    found = re.match(r"go version go1\.(\d+)", text)
    return bool(found) and int(found.group(1)) >= 21


VERSIONS = [OLD, NEW] if newer_go() else [OLD]


@pytest.fixture(scope="session", params=VERSIONS)
def cnitool(request):
    done = subprocess.run([HERE.parent / "cnitool.sh", request.param], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return request.param, Path(done.stdout.strip())


class Node:
    def __init__(self, folder, cnitool):
        self.folder = folder
        self.version, self.cnitool = cnitool
        for name in ("bin", "net.d", "run", "var"):
            (folder / name).mkdir()
        for program in (BUILD / "ambient-cni", CNI_PLUGINS / "bridge", CNI_PLUGINS / "host-local"):
            shutil.copy(program, folder / "bin")
        hold = f"mount --bind {folder}/run /run && mount --bind {folder}/var /var/lib && ip link set lo up && echo ready && exec cat"
        self.holder = subprocess.Popen(["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
                                        "sh", "-c", hold], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.holder.stdout.readline() == "ready\n"
        children = Path(f"/proc/{self.holder.pid}/task/{self.holder.pid}/children").read_text(encoding="ascii").split()
        self.target = children[0]

    def close(self):
        self.holder.stdin.close()
        self.holder.wait()

    def run(self, *arguments, check=True, environment=None):
        done = subprocess.run(["nsenter", "-t", self.target, "--net", "--mount", "--pid", *map(str, arguments)],
                              capture_output=True, text=True, check=False, env=environment)
        assert not check or done.returncode == 0, f"{arguments}: exit status {done.returncode}: {done.stderr}{done.stdout}"
        return done

    def network(self, name, *plugins, version="1.0.0"):
        network = {"cniVersion": version, "name": name, "plugins": list(plugins)}
        (self.folder / "net.d" / f"{name}.conflist").write_text(json.dumps(network), encoding="utf-8")
        return name

    def cni(self, verb, network, netns, check=True, **environment):
        environment = {"PATH": os.environ["PATH"], "CNI_PATH": str(self.folder / "bin"),
                       "NETCONFPATH": str(self.folder / "net.d")} | environment
        return self.run(self.cnitool, verb, network, netns, check=check, environment=environment)

    def pod(self, name):
        self.run("ip", "netns", "add", name)
        return f"/run/netns/{name}"

    def in_pod(self, netns, *arguments, **options):
        return self.run("nsenter", f"--net={netns}", *arguments, **options)

    def has_table(self, netns):
        return self.in_pod(netns, "nft", "list", "table", *TABLE, check=False).returncode == 0

    def policy_rules(self, netns):
        return [line for family in ("-4", "-6") for line in self.in_pod(netns, "ip", family, "rule").stdout.splitlines()
                if "fwmark 0x111/0xfff" in line]

    def routes(self, netns):
        return [line for family in ("-4", "-6")
                for line in self.in_pod(netns, "ip", family, "route", "show", "table", "100", check=False).stdout.splitlines()]

    def assert_enrolled(self, netns, **redirect):
        done = self.run(BUILD / "ambient-installer", "verify", "--netns", netns, "--redirect", json.dumps(redirect), check=False)
        assert done.returncode == 0, done.stdout + done.stderr

    def assert_untouched(self, netns):
        assert not self.has_table(netns)
        assert not self.policy_rules(netns)
        assert not self.routes(netns)

    @property
    def attachments(self):
        folder = self.folder / "run/ambient-cni/attachments"
        return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


@pytest.fixture
def node(tmp_path, cnitool):
    made = Node(tmp_path, cnitool)
    yield made
    made.close()


BRIDGE = {"type": "bridge", "bridge": "cni0", "isDefaultGateway": True,
          "ipam": {"type": "host-local", "ranges": [[{"subnet": "10.244.0.0/24"}], [{"subnet": "fd10:244::/64"}]]}}
AMBIENT = {"type": "ambient-cni", "enrollment": "always", "runDir": "/run/ambient-cni"}


def shape(result):
    """What must not change between the result of the primary plugin and ours: all but what differs from pod to pod."""
    return {"interfaces": [(re.sub("^veth.*", "veth", entry["name"]), "sandbox" in entry) for entry in result["interfaces"]],
            "ips": [(ipaddress.ip_interface(entry["address"]).network, entry.get("gateway"), entry.get("interface"),
                     entry.get("version")) for entry in result["ips"]],
            "routes": result.get("routes"), "dns": result.get("dns"), "cniVersion": result["cniVersion"],
            "keys": sorted(result)}


@pytest.mark.parametrize("version", ["0.3.0", "0.3.1", "0.4.0", "1.0.0"])
def test_a_pod_goes_through_the_chain(node, version):
    node.network("plain", BRIDGE, version=version)
    node.network("podnet", BRIDGE, AMBIENT, version=version)
    other, pod = node.pod("other"), node.pod("pod")
    plain = json.loads(node.cni("add", "plain", other).stdout)
    result = json.loads(node.cni("add", "podnet", pod).stdout)
    assert shape(result) == shape(plain)
    assert len(result["ips"]) == 2
    node.assert_enrolled(pod)
    node.assert_untouched(other)
    assert len(node.attachments) == 1

    check = node.cni("check", "podnet", pod, check=False)
    if version.startswith("0.3"):  # libcni itself refuses: these versions have no CHECK
        assert check.returncode != 0 and "does not support" in check.stderr + check.stdout
    else:
        assert check.returncode == 0, check.stderr

    node.cni("del", "podnet", pod)
    node.assert_untouched(pod)
    assert "eth0" not in node.in_pod(pod, "ip", "-br", "link").stdout
    assert node.attachments == []


def test_the_configured_redirection_is_what_stands_in_the_pod(node):
    redirect = {"dnsCapture": False, "exclude": {"outboundPorts": [5432, "9000-9010"], "outboundRanges": ["192.0.2.0/24"]}}
    node.network("podnet", BRIDGE, AMBIENT | {"redirect": redirect})
    pod = node.pod("pod")
    node.cni("add", "podnet", pod)
    node.assert_enrolled(pod, **redirect)
    node.cni("check", "podnet", pod)


def test_add_twice_is_once(node):
    node.network("mesh", AMBIENT)  # as a meta plugin calls it, without a previous result
    pod = node.pod("pod")
    first = json.loads(node.cni("add", "mesh", pod).stdout)
    second = json.loads(node.cni("add", "mesh", pod).stdout)
    assert first == second and first["cniVersion"] == "1.0.0"
    node.assert_enrolled(pod)
    assert len(node.policy_rules(pod)) == 2 and len(node.routes(pod)) == 2
    assert len(node.attachments) == 1
    node.cni("del", "mesh", pod)
    node.assert_untouched(pod)


def test_add_after_a_change_of_the_configuration_replaces(node):
    node.network("mesh", AMBIENT)
    pod = node.pod("pod")
    node.cni("add", "mesh", pod)
    node.network("mesh", AMBIENT | {"redirect": {"dnsCapture": False}})
    node.cni("add", "mesh", pod)
    node.assert_enrolled(pod, dnsCapture=False)
    node.cni("check", "mesh", pod)


def test_del_twice_and_del_without_add(node):
    node.network("podnet", BRIDGE, AMBIENT)
    pod, never = node.pod("pod"), node.pod("never")
    node.cni("add", "podnet", pod)
    node.cni("del", "podnet", pod)
    node.cni("del", "podnet", pod)
    node.cni("del", "podnet", never)
    node.assert_untouched(pod)
    assert node.attachments == []


def test_del_when_the_namespace_is_gone(node):
    node.network("podnet", BRIDGE, AMBIENT)
    pod = node.pod("pod")
    node.cni("add", "podnet", pod)
    node.run("ip", "netns", "delete", "pod")
    node.cni("del", "podnet", pod)
    assert node.attachments == []


def test_del_leaves_what_is_not_ours(node):
    node.network("podnet", BRIDGE, AMBIENT)
    pod = node.pod("pod")
    node.in_pod(pod, "nft", "add table inet theirs; add chain inet theirs c { type filter hook input priority 0; }")
    node.in_pod(pod, "ip", "rule", "add", "fwmark", "0x7", "lookup", "77", "pref", "500")
    node.cni("add", "podnet", pod)
    node.assert_enrolled(pod)
    node.cni("del", "podnet", pod)
    node.assert_untouched(pod)
    assert "chain c" in node.in_pod(pod, "nft", "list", "table", "inet", "theirs").stdout
    assert "lookup 77" in node.in_pod(pod, "ip", "rule").stdout


@pytest.mark.parametrize("damage, words", [
    (("nft", "delete", "table", *TABLE), "is missing"),
    (("ip", "rule", "del", "pref", "32764"), "rule"),
    (("ip", "-6", "route", "flush", "table", "100"), "route"),
])
def test_check_says_what_is_missing(node, damage, words):
    node.network("podnet", BRIDGE, AMBIENT)
    pod = node.pod("pod")
    node.cni("add", "podnet", pod)
    node.in_pod(pod, *damage)
    check = node.cni("check", "podnet", pod, check=False)
    assert check.returncode != 0
    assert words in check.stdout + check.stderr
    assert "is not what it should be" in check.stdout + check.stderr


@pytest.mark.parametrize("keys, words", [
    ({"enrollment": 5}, "enrollment"),
    ({"enrollment": "sometimes"}, "sometimes"),
    ({"redirect": {"exclude": {"outboundPorts": ["x"]}}}, "outboundPorts"),
    ({"redirect": {"hostProbe": {"ipv4": "1.2.3"}}}, "1.2.3"),
])
def test_a_wrong_configuration_is_named(node, keys, words):
    node.network("podnet", BRIDGE, AMBIENT | keys)
    pod = node.pod("pod")
    done = node.cni("add", "podnet", pod, check=False)
    assert done.returncode != 0
    assert words in done.stdout + done.stderr
    node.assert_untouched(pod)
    assert node.attachments == []


def test_the_nodes_own_namespace_is_refused(node):
    node.network("mesh", AMBIENT)
    done = node.cni("add", "mesh", "/proc/1/ns/net", check=False)
    assert done.returncode != 0
    assert "namespace" in done.stdout + done.stderr
    assert node.run("nft", "list", "tables").stdout == ""
    assert node.attachments == []


def test_with_installer_a_sandbox_that_is_no_pod_stays_outside(node):
    """cnitool gives no CNI_ARGS, and there is no installer."""
    node.network("podnet", BRIDGE, AMBIENT | {"enrollment": "installer"})
    pod = node.pod("pod")
    result = json.loads(node.cni("add", "podnet", pod).stdout)
    assert len(result["ips"]) == 2
    node.assert_untouched(pod)
    node.cni("check", "podnet", pod)
    node.cni("del", "podnet", pod)


def test_with_installer_away_a_pod_waits_and_is_told_why(node):
    node.network("podnet", BRIDGE, AMBIENT | {"enrollment": "installer"})
    pod = node.pod("pod")
    arguments = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=cart;K8S_POD_UID=0b1c"
    done = node.cni("add", "podnet", pod, check=False, CNI_ARGS=arguments)
    assert done.returncode != 0
    assert "installer" in done.stdout + done.stderr
    node.assert_untouched(pod)
    node.cni("del", "podnet", pod, CNI_ARGS=arguments)


def test_spec_1_1_0_with_gc_and_status(node):
    if node.version != NEW:
        done = node.cni("gc", "mesh", "none", check=False)
        assert done.returncode != 0  # this cnitool has no such verb
        return
    for network in ("mesh", "other"):  # alone: Debian's reference plugins refuse 1.1.0
        node.network(network, AMBIENT, version="1.1.0")
    lost, forgotten, other = node.pod("lost"), node.pod("forgotten"), node.pod("other")
    node.cni("status", "mesh", lost)
    result = json.loads(node.cni("add", "mesh", lost).stdout)
    assert result["cniVersion"] == "1.1.0"
    node.cni("check", "mesh", lost)
    node.cni("add", "mesh", forgotten)
    node.cni("add", "other", other)
    cached, = (path for path in (node.folder / "var/cni/results").iterdir() if forgotten in path.read_text(encoding="utf-8"))
    cached.unlink()
    # libcni itself makes a DEL of what it remembers of this network; then comes the plugin's GC, without a list of what is
    # valid: that means "nothing is known", not "nothing is valid".
    node.cni("gc", "mesh", lost)
    node.assert_untouched(lost)
    node.assert_enrolled(forgotten)
    node.assert_enrolled(other)
    assert len(node.attachments) == 2
