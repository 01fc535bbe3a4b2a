"""Entering the pod: every row of the table, in both families."""
import pytest

from . import conntrack, redirect
from .mesh import APPLICATION_PORT as APPLICATION
from .mesh import at
from .node import CLIENT, LOOPBACK, OTHER_PROBE, POD, POD_SECOND, PROBE
from .traffic import REFUSED, answers_echo, inject, open_datagram, receive, segment, send_datagram
from .tunnel import HBONE, MARK


def test_row_1_virtual_interface(mesh, family):
    mesh.apply(virtualInterfaces=["eth1"])
    # Whatever the port: rows 2 to 6 come later.
    for port in (APPLICATION, HBONE):
        assert mesh.enter(POD_SECOND[family], port) == at("outbound", POD_SECOND[family], port)
    assert mesh.enter(POD_SECOND[family], APPLICATION, source=PROBE[family]) == \
        at("outbound", POD_SECOND[family], APPLICATION)
    assert mesh.enter(POD[family], APPLICATION).at == "inbound"


def test_row_1_several_virtual_interfaces(mesh, family):
    mesh.apply(virtualInterfaces=["tap-of-a-vm", "eth1", "eth0", "eth1"])
    assert mesh.enter(POD_SECOND[family], APPLICATION).at == "outbound"
    assert mesh.enter(POD[family], APPLICATION).at == "outbound"


def test_row_1_only_the_whole_name_counts(mesh, family):
    mesh.apply(virtualInterfaces=["eth", "eth11"])
    assert mesh.enter(POD_SECOND[family], APPLICATION).at == "inbound"


def test_row_2_probe(mesh, family):
    mesh.apply()
    arrival = mesh.enter(POD[family], APPLICATION, source=PROBE[family])
    assert arrival == at("application", POD[family], APPLICATION)
    assert arrival.source[0] == PROBE[family] and arrival.talks()
    assert mesh.enter(POD[family], APPLICATION, source=OTHER_PROBE[family]).at == "inbound"


def test_row_2_custom_probe_address(mesh, family):
    mesh.apply(hostProbe=redirect.OTHER_PROBES)
    assert mesh.enter(POD[family], APPLICATION, source=OTHER_PROBE[family]).at == "application"
    assert mesh.enter(POD[family], APPLICATION, source=PROBE[family]).at == "inbound"


def enters_through_lo(mesh, source, destination, port, mark=0):
    """A SYN that enters through lo without ever having left: where conntrack says that it goes. (A packet that left through lo
    itself is bound in the output hook already, so only a segment from a packet socket meets rows 3 and 5.)"""
    if ":" not in source:
        mesh.pod.sysctl("net.ipv4.conf.lo.route_localnet", 1)
        mesh.pod.sysctl("net.ipv4.conf.lo.accept_local", 1)
    inject(mesh.pod, "lo", segment(source, 40404, destination, port), mark=mark)
    flow, = conntrack.find(mesh.pod, 40404)
    return flow


def test_row_3_to_loopback(mesh, family):
    mesh.apply()
    flow = enters_through_lo(mesh, CLIENT[family], LOOPBACK[family], APPLICATION)
    assert flow.reply == (LOOPBACK[family], CLIENT[family], APPLICATION, 40404)


def test_row_4_hbone(mesh, family):
    mesh.apply()
    arrival = mesh.enter(POD[family], HBONE)
    assert arrival == at("hbone", POD[family], HBONE) and arrival.talks()


@pytest.mark.parametrize("mark", [MARK, 0xABCDE000 | MARK], ids=hex)
def test_row_5_tunnel_mark(mesh, family, mark):
    mesh.apply()
    flow = enters_through_lo(mesh, CLIENT[family], POD[family], APPLICATION, mark=mark)
    assert flow.reply == (POD[family], CLIENT[family], APPLICATION, 40404)


@pytest.mark.parametrize("mark", [0, 0x39, 0x511], ids=hex)
def test_row_5_other_marks_are_redirected(mesh, family, mark):
    mesh.apply()
    flow = enters_through_lo(mesh, CLIENT[family], POD[family], APPLICATION, mark=mark)
    assert flow.reply[2] == 15006 and flow.original[1] == POD[family]


def test_row_6_inbound(mesh, family):
    mesh.apply()
    for port in (APPLICATION, 1, 53, 15001, 15053, 65535):
        arrival = mesh.enter(POD[family], port)
        assert arrival == at("inbound", POD[family], port)
        assert arrival.talks()
    # The second interface is not special.
    assert mesh.enter(POD_SECOND[family], APPLICATION) == at("inbound", POD_SECOND[family], APPLICATION)


@pytest.mark.parametrize("port", [53, APPLICATION, 15001, 15006, 15008])
def test_row_7_udp_is_untouched(mesh, family, port):
    mesh.apply()
    with open_datagram(mesh.pod, POD[family], port) as server, \
            send_datagram(mesh.peer, POD[family], port) as client:
        payload, source = receive(server)
        assert payload == b"query"
        server.sendto(b"answer", source)
        assert receive(client) == (b"answer", (POD[family], port))
    assert redirect.counted(mesh.pod) == {}


def test_row_7_icmp_is_untouched(mesh, family):
    mesh.apply()
    assert answers_echo(mesh.peer, POD[family])
    assert answers_echo(mesh.pod, CLIENT[family])
    assert redirect.counted(mesh.pod) == {}


def test_bypass_leaves_inbound_alone(mesh, family):
    mesh.apply(bypassInbound=True)
    arrival = mesh.enter(POD[family], APPLICATION)
    assert arrival == at("application", POD[family], APPLICATION) and arrival.talks()
    assert mesh.enter(POD[family], APPLICATION, source=PROBE[family]).at == "application"
    assert mesh.enter(POD[family], HBONE).at == "hbone"
    assert mesh.enter(POD[family], 7) == REFUSED  # by the pod itself: nobody listens
    assert redirect.counted(mesh.pod) == {}
    assert mesh.leave(CLIENT[family], 80).at == "outbound"


def test_bypass_keeps_virtual_interfaces(mesh, family):
    mesh.apply(bypassInbound=True, virtualInterfaces=["eth1"])
    assert mesh.enter(POD_SECOND[family], APPLICATION) == at("outbound", POD_SECOND[family], APPLICATION)
    assert mesh.enter(POD[family], APPLICATION).at == "application"
