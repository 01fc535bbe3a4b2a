"""Rules of istio-cni in running pods and on the host are replaced by ours: open connections go on, other people's rules stay."""
import errno
import json
import os
import pathlib
import subprocess
import sys
import threading
import time

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from faults.control import Control  # noqa: E402
from netns import node as places  # noqa: E402
from netns import redirect  # noqa: E402
from netns.mesh import APPLICATION_PORT, Mesh, at  # noqa: E402
from netns.namespace import Namespace  # noqa: E402
from netns.traffic import Arrival, talks  # noqa: E402

from . import istio  # noqa: E402
from .tool import TOOL  # noqa: E402


def run(verb, namespace, place="pod", wrapper=(), environment=None):
    return subprocess.run([*wrapper, str(TOOL), "migrate", verb, namespace.path, place], capture_output=True, text=True, check=False,
                          env={**os.environ, **(environment or {})})


def migrate(*arguments, **options):
    done = run(*arguments, **options)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


NOTHING = {"nftables": False, "iptables": False, "ipsets": False, "legacy": False, "legacy_command": ""}


class Talk(threading.Thread):
    """Bytes to and fro over open connections, all the time."""

    def __init__(self, connections):
        super().__init__(daemon=True)
        self.connections = connections
        self.rounds = 0
        self.broken = []
        self.stopping = False
        self.start()

    def run(self):
        while not self.stopping:
            for name, arrival in self.connections.items():
                if not talks(arrival.client, arrival.server):
                    self.broken.append(name)
                    return
            self.rounds += 1
            time.sleep(0.0005)

    def stop(self):
        rounds = self.rounds
        while self.rounds < rounds + 3 and not self.broken:
            time.sleep(0.001)
        self.stopping = True
        self.join()
        assert self.broken == []


@pytest.fixture
def mesh():
    mesh = Mesh()
    yield mesh
    mesh.close()


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_a_running_pod_changes_hands_without_losing_a_connection(mesh, backend):
    istio.add_routes(mesh.pod, (4, 6))
    getattr(istio, f"{backend}_pod")(mesh.pod)
    assert migrate("detect", mesh.pod) == {**NOTHING, backend: True}

    connections = {}
    for family in (4, 6):
        server, pod = places.SERVER[family], places.POD[family]
        connections[f"outbound {family}"] = mesh.leave(server, 80)
        connections[f"inbound {family}"] = mesh.enter(pod, APPLICATION_PORT)
        connections[f"probe {family}"] = mesh.enter(pod, APPLICATION_PORT, source=places.PROBE[family])
        # What the tunnel hands on to the application, as the client: replies depend on the connection mark and the route.
        connections[f"as client {family}"] = mesh.reach_application_as(places.CLIENT[family])
        assert connections[f"outbound {family}"] == at("outbound", server, 80)
        assert connections[f"inbound {family}"] == at("inbound", pod, APPLICATION_PORT)
        assert connections[f"as client {family}"].at == connections[f"probe {family}"].at == "application"

    talk = Talk(connections)
    redirect.apply(mesh.pod)
    assert migrate("remove", mesh.pod) == {**NOTHING, backend: True}
    talk.stop()

    assert migrate("detect", mesh.pod) == NOTHING
    ruleset = mesh.pod.run("nft", "list", "ruleset")
    assert "istio" not in ruleset and "ISTIO" not in ruleset
    assert [line for line in ruleset.splitlines() if line.startswith("table")] == ["table inet ambient-cni {"]
    assert redirect.difference(mesh.pod) == ""
    for family in (4, 6):
        assert mesh.leave(places.SERVER[family], 81) == at("outbound", places.SERVER[family], 81)
        assert mesh.enter(places.POD[family], APPLICATION_PORT) == at("inbound", places.POD[family], APPLICATION_PORT)
        assert isinstance(mesh.reach_application_as(places.CLIENT[family]), Arrival)

    # And a release leaves nothing of either.
    redirect.remove(mesh.pod)
    assert mesh.pod.run("nft", "list", "ruleset") == ""
    for family in ("-4", "-6"):
        assert "lookup 100" not in mesh.pod.run("ip", family, "rule")
        assert mesh.pod.run("ip", family, "route", "show", "table", "100", check=False) == ""


def test_other_rules_in_the_same_tables_stay(mesh):
    mesh.pod.run("iptables-nft", "-t", "nat", "-A", "OUTPUT", "-d", "192.0.2.1", "-j", "RETURN")
    mesh.pod.run("iptables-nft", "-t", "mangle", "-N", "APPLICATION")
    istio.iptables_pod(mesh.pod)
    migrate("remove", mesh.pod)
    assert migrate("detect", mesh.pod) == NOTHING
    saved = istio.iptables_save(mesh.pod)
    assert "-A OUTPUT -d 192.0.2.1/32 -j RETURN" in saved and ":APPLICATION" in saved and "ISTIO" not in saved


def test_nothing_there_is_nothing_to_do(mesh):
    assert migrate("detect", mesh.pod) == NOTHING
    for _ in range(2):
        assert migrate("remove", mesh.pod) == NOTHING
    mesh.apply()
    assert migrate("remove", mesh.pod) == NOTHING
    assert redirect.difference(mesh.pod) == ""


def test_a_sidecar_keeps_its_rules(mesh):
    mesh.pod.run("iptables-nft-restore", stdin="""*nat
:ISTIO_INBOUND - [0:0]
:ISTIO_REDIRECT - [0:0]
:ISTIO_IN_REDIRECT - [0:0]
:ISTIO_OUTPUT - [0:0]
-A PREROUTING -p tcp -j ISTIO_INBOUND
-A OUTPUT -p tcp -j ISTIO_OUTPUT
-A ISTIO_INBOUND -p tcp -j ISTIO_IN_REDIRECT
-A ISTIO_OUTPUT -m owner --uid-owner 1337 -j RETURN
-A ISTIO_OUTPUT -j ISTIO_REDIRECT
-A ISTIO_REDIRECT -p tcp -j REDIRECT --to-ports 15001
-A ISTIO_IN_REDIRECT -p tcp -j REDIRECT --to-ports 15006
COMMIT
""")
    before = mesh.pod.run("nft", "-s", "list", "ruleset")
    assert migrate("remove", mesh.pod) == NOTHING
    assert mesh.pod.run("nft", "-s", "list", "ruleset") == before


@pytest.fixture
def host():
    namespace = Namespace()
    namespace.run("iptables-nft", "-t", "nat", "-N", "KUBE-POSTROUTING")
    namespace.run("iptables-nft", "-t", "nat", "-A", "POSTROUTING", "-j", "KUBE-POSTROUTING")
    yield namespace
    namespace.close()


@pytest.mark.parametrize("backend", ["nftables", "iptables"])
def test_the_hosts_rules_and_sets_go_and_kube_proxys_stay(host, backend):
    kept = [line for line in istio.iptables_save(host, families=(4,)).splitlines() if line.startswith("-A")]
    getattr(istio, f"{backend}_host")(host)
    expected = {**NOTHING, backend: True, "ipsets": backend == "iptables"}
    assert migrate("detect", host, "host") == expected
    assert migrate("detect", host, "pod")["iptables"] is False
    assert migrate("remove", host, "host") == expected
    assert migrate("detect", host, "host") == NOTHING
    assert "istio" not in host.run("nft", "list", "ruleset")
    assert host.run("ipset", "list", "-name") == ""
    saved = istio.iptables_save(host)
    assert "ISTIO" not in saved
    assert [line for line in saved.splitlines() if line.startswith("-A")] == kept


SETS = ["istio-inpod-probes-v4", "istio-inpod-probes-v6"]


def make_sets(host):
    for name in SETS:
        host.run("ipset", "create", name, "hash:ip", "family", "inet6" if name.endswith("6") else "inet", "-exist")


@pytest.fixture
def host_with_sets(host):
    make_sets(host)
    return host


def test_one_set_of_the_two_is_found_and_goes(host):
    host.run("ipset", "create", SETS[1], "hash:ip", "family", "inet6")
    assert migrate("remove", host, "host") == {**NOTHING, "ipsets": True}
    assert host.run("ipset", "list", "-name") == ""


def test_a_set_that_somebody_elses_rule_uses_is_told(host_with_sets):
    host_with_sets.run("iptables-nft", "-A", "OUTPUT", "-m", "set", "--match-set", SETS[0], "dst", "-j", "RETURN")
    done = run("remove", host_with_sets, "host")
    assert done.returncode == 1 and done.stderr == \
        f"cannot remove the ipset {SETS[0]}, which a rule or a list uses: Device or resource busy\n"


@pytest.mark.parametrize("verb", ["detect", "remove"])
def test_no_refusal_but_the_kernels_word_is_no_set(host_with_sets, tmp_path, verb):
    """Whatever the last call fails by: the socket, its name, the question for a set, its removal."""
    asked = {"detect": ["look for", "look for"], "remove": ["look for", "remove", "look for", "remove"]}[verb]
    control = Control(tmp_path / "control")

    def failed(call, before, number):
        """By one call, `before` calls before the last."""
        control.arm("none", 0, 0)
        make_sets(host_with_sets)
        count = control.counts()[call]
        assert run(verb, host_with_sets, "host", environment=control.environment).returncode == 0
        total = control.counts()[call] - count
        make_sets(host_with_sets)
        control.arm(call, total - before, number)
        done = run(verb, host_with_sets, "host", environment=control.environment)
        assert control.fired and done.returncode == 1, (call, before, done)
        return done.stderr.strip()

    for call, number, words in (("socket", errno.EMFILE, "Too many open files"), ("bind", errno.ENOMEM, "Cannot allocate memory")):
        assert failed(call, 0, number) == f"cannot look for the ipsets of istio-cni: cannot open a netlink socket: {words}"
    for before, step in enumerate(reversed(asked)):
        name = SETS[1 - before // (len(asked) // 2)]
        assert failed("netlink", before, errno.EINVAL) == f"cannot {step} the ipset {name}: Invalid argument"
        assert failed("sendmsg", before, errno.ENOBUFS) == f"cannot {step} the ipset {name}: No buffer space available"


def test_a_kernel_without_ip_set_has_no_sets(host_with_sets, tmp_path):
    # It is not asked, which would load the module.
    listed = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /sys && mkdir /sys/module && exec "$@"', "sh"]
    assert migrate("detect", host_with_sets, "host", wrapper=listed) == NOTHING
    # Where /sys tells nothing it is. The answer to a message that no part of the kernel takes is EINVAL.
    hidden = ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /sys && exec "$@"', "sh"]
    assert migrate("detect", host_with_sets, "host", wrapper=hidden) == {**NOTHING, "ipsets": True}
    control = Control(tmp_path / "control")
    host_with_sets.run("ipset", "destroy", SETS[0])
    assert migrate("detect", host_with_sets, "host", wrapper=hidden, environment=control.environment)["ipsets"] is True
    control.arm("netlink", control.counts()["netlink"], errno.EINVAL)
    assert migrate("detect", host_with_sets, "host", wrapper=hidden, environment=control.environment) == NOTHING
    assert control.fired


@pytest.mark.parametrize("place", ["pod", "host"])
def test_legacy_rules_are_reported_with_a_command_that_removes_them(host, place):
    host.run("iptables-legacy", "-t", "nat", "-A", "OUTPUT", "-d", "192.0.2.1", "-j", "RETURN")
    getattr(istio, f"iptables_{place}")(host, variant="legacy")
    found = migrate("remove", host, place)
    assert found["legacy"] is True and found["iptables"] is False
    command = found["legacy_command"].replace("PATH", host.path)
    if place == "host":
        host.run("sh", "-c", command)
    else:
        subprocess.run(["sh", "-c", command], check=True, capture_output=True)
    assert migrate("detect", host, place)["legacy"] is False
    saved = istio.iptables_save(host, "legacy")
    assert "ISTIO" not in saved and "-A OUTPUT -d 192.0.2.1/32 -j RETURN" in saved
    assert migrate("remove", host, place)["ipsets"] == (place == "host")
    assert migrate("detect", host, place) == NOTHING


def test_looking_makes_no_legacy_table(mesh):
    migrate("detect", mesh.pod)
    with mesh.pod, open("/proc/thread-self/net/ip_tables_names", encoding="ascii") as names:
        assert names.read() == ""
