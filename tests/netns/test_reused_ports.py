"""A port is used again while conntrack could still know the connection that had it: a new SYN of the same addresses and ports
must be redirected like any other, however the old connection ended, and whenever the rules came."""
import socket

import pytest

from . import conntrack, redirect
from .mesh import APPLICATION_PORT as APPLICATION
from .mesh import at
from .node import POD, SERVER
from .traffic import PATIENCE, open_datagram, receive

PORT = 40001
TCP_REPAIR = 19


@pytest.fixture(params=("out", "in"))
def way(request):
    return request.param


@pytest.fixture(params=("client", "server"))
def first(request):
    """Who closes first."""
    return request.param


def connect(mesh, way, family):
    if way == "out":
        return mesh.leave(SERVER[family], 80, source_port=PORT)
    return mesh.enter(POD[family], APPLICATION, source_port=PORT)


def is_redirected(mesh, way, family):
    again = connect(mesh, way, family)
    expected = at("outbound", SERVER[family], 80) if way == "out" else at("inbound", POD[family], APPLICATION)
    assert again == expected, conntrack.flows(mesh.pod, "tcp")
    return again.talks()


def ends(connection, first):
    return (connection.client, connection.server) if first == "client" else (connection.server, connection.client)


def say_goodbye(sender, receiver):
    sender.shutdown(socket.SHUT_WR)
    receiver.settimeout(PATIENCE)
    assert receiver.recv(1) == b""


def vanish(connection):
    """Neither end says a word: a node that lost its power."""
    for sock in (connection.client, connection.server):
        sock.setsockopt(socket.IPPROTO_TCP, TCP_REPAIR, 1)
        sock.close()


@pytest.mark.parametrize("is_used", [True, False], ids=["used", "idle"])
def test_closed_while_the_rules_stand(mesh, way, family, first, is_used):
    """What conntrack sees first of an idle connection is the FIN."""
    connection = connect(mesh, way, family)
    mesh.apply()
    assert not is_used or connection.talks()
    one, other = ends(connection, first)
    say_goodbye(one, other)
    say_goodbye(other, one)
    connection.close()
    assert is_redirected(mesh, way, family)


def test_rules_come_between_the_goodbyes(mesh, way, family, first):
    """The last acknowledgement may come while conntrack is at work, and the rules are not yet."""
    connection = connect(mesh, way, family)
    one, other = ends(connection, first)
    say_goodbye(one, other)
    mesh.guard()
    say_goodbye(other, one)
    connection.close()
    mesh.apply()
    assert is_redirected(mesh, way, family)


@pytest.mark.parametrize("stage", ["guard", "full"])
def test_an_end_vanishes(mesh, way, family, stage):
    connection = connect(mesh, way, family)
    if stage == "guard":
        mesh.guard()
        assert connection.talks()
    mesh.apply()
    assert connection.talks()
    vanish(connection)
    assert is_redirected(mesh, way, family)


def test_what_an_earlier_enrolment_left(mesh, way, family):
    """Tracked while the guard of a released pod stood, closed when no rule did, and so not seen by anybody."""
    mesh.apply()
    mesh.guard()
    connection = connect(mesh, way, family)
    assert connection.talks()
    redirect.remove(mesh.pod)
    connection.close()
    mesh.guard()
    mesh.apply()
    assert is_redirected(mesh, way, family)


def test_what_opened_while_the_guard_stood_stays_open(mesh, way, family):
    mesh.guard()
    connection = connect(mesh, way, family)
    assert connection.talks()
    mesh.apply()
    assert connection.at in ("peer", "application") and connection.talks()
    redirect.remove(mesh.pod)
    assert connection.talks()
    mesh.guard()
    mesh.apply()
    assert connection.talks()


def test_what_is_redirected_is_remembered(mesh, family):
    """Somebody takes the table away, and it comes back."""
    mesh.apply()
    redirected = mesh.leave(SERVER[family], 80), mesh.enter(POD[family], APPLICATION)
    assert [connection.at for connection in redirected] == ["outbound", "inbound"]
    mesh.pod.nft(f"delete table inet {redirect.TABLE}")
    mesh.apply()
    assert all(connection.talks() for connection in redirected)


FIREWALLS = {
    "nft": [["nft", "add table inet own"],
            ["nft", "add chain inet own input { type filter hook input priority 0; policy drop; }"],
            ["nft", "add rule inet own input meta l4proto ipv6-icmp accept"],
            ["nft", "add rule inet own input ct state established accept"]],
    "iptables-legacy": [["iptables-legacy", "-P", "INPUT", "DROP"],
                        ["iptables-legacy", "-A", "INPUT", "-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT"],
                        ["ip6tables-legacy", "-P", "INPUT", "DROP"],
                        ["ip6tables-legacy", "-A", "INPUT", "-p", "icmpv6", "-j", "ACCEPT"],
                        ["ip6tables-legacy", "-A", "INPUT", "-m", "conntrack", "--ctstate", "ESTABLISHED", "-j", "ACCEPT"]],
}


@pytest.mark.parametrize("firewall", FIREWALLS)
def test_a_pods_own_firewall_goes_on_knowing_what_is_open(mesh, family, firewall):
    """Which lets in what is established and nothing else."""
    for command in FIREWALLS[firewall]:
        mesh.pod.run(*command)
    connection = mesh.leave(SERVER[family], 80)
    assert connection.at == "peer" and connection.talks()
    connection.client, connection.server = connection.server, connection.client
    for change in (mesh.guard, mesh.apply, mesh.guard, lambda: redirect.remove(mesh.pod)):
        change()
        assert connection.talks()


def test_what_goes_with_the_rules_is_all(mesh, way, family):
    mesh.guard()
    connection = connect(mesh, way, family)
    assert connection.talks() and conntrack.flows(mesh.pod)
    redirect.remove(mesh.pod)
    assert not conntrack.flows(mesh.pod)
    assert connection.talks()
