"""The policy rule and the local route where IPv6 is off in one way or another, lo is down, or somebody uses our table: IPv4 is
protected all the same. (tests/unit/test_route.c asks the same of the library alone.)"""
import subprocess

import pytest

from . import redirect
from .mesh import APPLICATION_PORT as APPLICATION
from .mesh import at
from .node import CLIENT, POD, SERVER
from .traffic import SILENCE

RULE = "32764:\tfrom all fwmark 0x111/0xfff lookup 100"
ROUTE = "local default dev lo"


def rules(namespace, family):
    return [line for line in namespace.run("ip", f"-{family}", "rule").splitlines() if "lookup 100" in line]


def routes(namespace, family):
    return [line.strip() for line in namespace.run("ip", f"-{family}", "route", "show", "table", "100", check=False).splitlines()]


def assert_protected(mesh, family=4):
    assert mesh.leave(SERVER[family], 80) == at("outbound", SERVER[family], 80)
    assert mesh.enter(POD[family], APPLICATION) == at("inbound", POD[family], APPLICATION)
    assert mesh.reach_application_as(CLIENT[family]).talks()


def test_once_however_often(mesh, family):
    for stage in (mesh.guard, mesh.apply, mesh.apply, mesh.guard, mesh.apply):
        stage()
        assert [rule.rstrip() for rule in rules(mesh.pod, family)] == [RULE]
        routes_found = routes(mesh.pod, family)
        assert len(routes_found) == 1 and routes_found[0].startswith(ROUTE)


def test_ipv6_absent_from_the_pod(make_mesh):
    mesh = make_mesh(ipv6=False)
    for stage in ("guard", "full"):
        (mesh.guard if stage == "guard" else mesh.apply)()
        assert redirect.difference(mesh.pod, stage) == ""
    assert_protected(mesh)
    redirect.remove(mesh.pod)
    assert rules(mesh.pod, 4) == rules(mesh.pod, 6) == []


def test_ipv6_off_on_lo_alone(mesh):
    """The application still speaks IPv6 outside, and is redirected."""
    mesh.pod.sysctl("net.ipv6.conf.lo.disable_ipv6", 1)
    mesh.apply()
    assert redirect.difference(mesh.pod) == ""
    assert_protected(mesh)
    assert mesh.enter(POD[6], APPLICATION).at == "inbound"
    # It comes back: the route is missed, and a repair puts it there.
    mesh.pod.sysctl("net.ipv6.conf.lo.disable_ipv6", 0)
    assert "IPv6 route local default dev lo table 100 is missing" in redirect.difference(mesh.pod)
    mesh.apply()
    assert redirect.difference(mesh.pod) == ""
    assert_protected(mesh, 6)


def test_ipv6_switched_off_afterwards(mesh):
    mesh.apply()
    mesh.pod.sysctl("net.ipv6.conf.all.disable_ipv6", 1)
    # The route went with it: nothing that could be repaired, and nothing to fail over.
    assert redirect.difference(mesh.pod) == ""
    mesh.apply()
    assert_protected(mesh)
    redirect.remove(mesh.pod)


def test_ipv6_not_wanted(mesh):
    """The configuration says no: IPv6 is untouched, IPv4 as ever."""
    mesh.apply(ipv6=False)
    assert redirect.difference(mesh.pod, ipv6=False) == ""
    assert_protected(mesh)
    assert mesh.leave(SERVER[6], 80) == at("peer", SERVER[6], 80)
    assert mesh.leave(SERVER[6], 53) == at("peer", SERVER[6], 53)
    assert mesh.enter(POD[6], APPLICATION) == at("application", POD[6], APPLICATION)
    assert rules(mesh.pod, 6) == [] and routes(mesh.pod, 6) == []


def test_lo_down(mesh, family):
    mesh.pod.ip("link set lo down\n")
    mesh.apply()
    assert redirect.difference(mesh.pod) == ""
    assert "LOOPBACK,UP" in mesh.pod.run("ip", "link", "show", "lo")
    assert_protected(mesh, family)


def test_lo_down_afterwards(mesh, family):
    """It takes the IPv6 route away for good. The IPv4 one stays: its scope is host."""
    mesh.apply()
    mesh.pod.ip("link set lo down\nlink set lo up\n")
    assert "the IPv6 route local default dev lo table 100 is missing" in redirect.difference(mesh.pod)
    assert mesh.reach_application_as(CLIENT[6], patience=SILENCE) == "silent"
    mesh.apply()
    assert redirect.difference(mesh.pod) == ""
    assert_protected(mesh, family)


@pytest.mark.parametrize("family", [4, 6])
def test_somebody_elses_default_route(pod_alone, family):
    """Nothing of theirs is changed, nothing of ours stays, and the sentence says what stands there."""
    pod_alone.ip("link set lo up\nlink add theirs type veth peer name other\nlink set other up\nlink set theirs up\n"
                 "addr add 10.1.1.1/24 dev theirs\naddr add fd01::1/64 dev theirs nodad\n")
    pod_alone.run("ip", f"-{family}", "route", "add", "default", "dev", "theirs", "table", "100", "metric",
                  "0" if family == 4 else "1024")
    _, _, message = redirect.run("apply", pod_alone, {}, allowed=(1,))
    assert "table 100" in message and "another default route stands there" in message
    assert routes(pod_alone, family) != []
    assert rules(pod_alone, 4) == rules(pod_alone, 6) == []
    assert pod_alone.run("nft", "list", "ruleset") == ""


def test_without_permission_nothing_is_left(pod_alone):
    """A process that may enter the namespace but change nothing in it."""
    pod_alone.ip("link set lo up\n")
    done = subprocess.run(["setpriv", "--bounding-set=-net_admin", "--inh-caps=-net_admin", str(redirect.TOOL), "apply",
                           "--netns", pod_alone.path], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and "Operation not permitted" in done.stderr
    assert rules(pod_alone, 4) == rules(pod_alone, 6) == []
    assert pod_alone.run("nft", "list", "ruleset") == ""


