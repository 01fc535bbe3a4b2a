"""Connections that are open while the rules come, change and go: nobody may notice, unless told to reset them."""
import errno
import select

import pytest

from . import redirect
from .mesh import APPLICATION_PORT as APPLICATION
from .mesh import at
from .node import CLIENT, POD, SERVER
from .tunnel import MARK

REDIRECTIONS = [{}, {"dnsCapture": False}, {"bypassInbound": True}, {"virtualInterfaces": ["eth0"]},
                {"exclude": {"outboundPorts": [1], "inboundPorts": [1], "interfaces": ["eth9"]}}]


def is_cut(sock, patience=2.0):
    """Whether a reset came."""
    poll = select.poll()
    poll.register(sock, select.POLLERR)
    if not poll.poll(patience * 1000):
        return False
    return sock.getsockopt(1, 4) == errno.ECONNRESET  # SOL_SOCKET, SO_ERROR


def open_both_ways(mesh, family):
    """A connection out of the pod and one into it, before any rule."""
    out, into = mesh.leave(SERVER[family], 80), mesh.enter(POD[family], APPLICATION)
    assert (out.at, into.at) == ("peer", "application")
    return out, into


@pytest.mark.parametrize("redirection", REDIRECTIONS, ids=lambda redirection: "-".join(redirection) or "defaults")
def test_enrolment_keeps_what_is_open(mesh, family, redirection):
    before = open_both_ways(mesh, family)
    mesh.apply(**redirection)
    # Whoever speaks first, and however often.
    for connection in before:
        assert connection.talks() and connection.talks()
        connection.client, connection.server = connection.server, connection.client
        assert connection.talks()
    assert mesh.leave(SERVER[family], 80) == at("outbound", SERVER[family], 80)


def test_a_whole_life(mesh, family):
    """Guard, redirects, a change of the configuration, release, removal, and enrolment again: a connection of each time goes
    on through all that follows, and new ones go where the rules of the time say."""
    before = open_both_ways(mesh, family)

    mesh.guard()
    guarded = open_both_ways(mesh, family)
    assert all(connection.talks() for connection in before + guarded)

    mesh.apply()
    redirected = mesh.leave(SERVER[family], 80), mesh.enter(POD[family], APPLICATION), mesh.leave(SERVER[family], 53)
    assert [connection.at for connection in redirected] == ["outbound", "inbound", "dns"]
    assert all(connection.talks() for connection in before + guarded + redirected)

    for _ in range(3):  # repair
        mesh.apply()
        assert all(connection.talks() for connection in before + guarded + redirected)
    mesh.apply(dnsCapture=False, bypassInbound=True, exclude={"outboundPorts": [80]})
    assert all(connection.talks() for connection in before + guarded + redirected)
    assert mesh.leave(SERVER[family], 80).at == "peer"
    assert mesh.enter(POD[family], APPLICATION).at == "application"

    mesh.guard()
    assert all(connection.talks() for connection in before + guarded + redirected)
    after = open_both_ways(mesh, family)

    redirect.remove(mesh.pod)
    assert all(connection.talks() for connection in before + guarded + after)
    mesh.apply()
    assert all(connection.talks() for connection in before + guarded + after)
    assert mesh.leave(SERVER[family], 80).at == "outbound"


def test_the_tunnels_connection_to_the_application_survives_a_replacement(mesh, family):
    """It goes over marks, the policy rule and the local route, not over NAT."""
    mesh.apply()
    carried = mesh.reach_application_as(CLIENT[family])
    assert carried.at == "application" and carried.talks()
    for change in ({"dnsCapture": False}, {}):
        mesh.apply(**change)
        assert carried.talks()
    mesh.guard()
    assert carried.talks()


def test_reset_cuts_what_is_open(mesh, family):
    """Whether the pod speaks first or the peer."""
    for speaker in ("client", "server"):
        out, into = open_both_ways(mesh, family)
        mesh.apply(existingConnections="reset")
        for connection in (out, into):
            getattr(connection, speaker).send(b"?")
            assert is_cut(getattr(connection, speaker))
        assert mesh.leave(SERVER[family], 80).at == "outbound"
        redirect.remove(mesh.pod)


def test_reset_cuts_what_conntrack_knows_already(mesh, family):
    """The guard stage, or anybody else's rules, had conntrack at work before."""
    mesh.guard(existingConnections="reset")
    connections = open_both_ways(mesh, family)
    assert all(connection.talks() for connection in connections)
    mesh.apply(existingConnections="reset")
    for connection in connections:
        connection.client.send(b"?")
        assert is_cut(connection.client)


def test_reset_leaves_the_tunnels_own(mesh, family):
    own = mesh.leave(SERVER[family], 15008, mark=MARK)
    mesh.apply(existingConnections="reset")
    assert own.at == "peer" and own.talks()


def test_reset_is_once(mesh, family):
    """A repair, or a change, cuts nothing that is redirected."""
    mesh.apply(existingConnections="reset")
    connections = mesh.leave(SERVER[family], 80), mesh.enter(POD[family], APPLICATION)
    assert [connection.at for connection in connections] == ["outbound", "inbound"]
    for change in ({}, {"dnsCapture": False}, {}):
        mesh.apply(existingConnections="reset", **change)
        assert all(connection.talks() for connection in connections)


def test_a_change_from_keep_to_reset_cuts_what_was_open(mesh, family):
    """Nothing is remembered of it, so that its next packet is one of a connection to reset."""
    before = open_both_ways(mesh, family)
    mesh.apply()
    redirected = mesh.leave(SERVER[family], 80)
    assert all(connection.talks() for connection in (*before, redirected))
    mesh.apply(existingConnections="reset")
    for connection in before:
        connection.client.send(b"?")
        assert is_cut(connection.client)
    assert redirected.at == "outbound" and redirected.talks()


def test_a_connection_refused_and_made_again_from_the_same_port(mesh, family):
    """The same addresses and ports as a connection that was open before, but a new SYN: redirected."""
    first = mesh.leave(SERVER[family], 80, source_port=40001)
    mesh.apply()
    assert first.at == "peer" and first.talks()
    first.close()
    assert mesh.leave(SERVER[family], 80, source_port=40001) == at("outbound", SERVER[family], 80)
