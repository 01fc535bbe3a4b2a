"""Leaving the pod: every row of the table, in both families."""
import pytest

from . import redirect
from .mesh import APPLICATION_PORT as APPLICATION
from .mesh import at
from .node import LOOPBACK, OTHER_PROBE, PEER, POD, POD_SECOND, PROBE, SERVER
from .traffic import SILENT, open_datagram, receive, send_datagram
from .tunnel import CONNECTION_MARK, MARK
from .words import ask

both_dns = pytest.mark.parametrize("dns", [True, False], ids=["dns", "no-dns"])
tunnel_marks = pytest.mark.parametrize("mark", [MARK, 0x7654A000 | MARK], ids=hex)
not_tunnel_marks = pytest.mark.parametrize("mark", [0x39, 0x7654A539 ^ 0x800, 0x11], ids=hex)


@both_dns
def test_row_1_to_the_probe_address(mesh, family, dns):
    mesh.apply(dnsCapture=dns)
    for port in (80, 53, 15001):
        assert mesh.leave(PROBE[family], port) == at("peer", PROBE[family], port)
    assert mesh.leave(OTHER_PROBE[family], 80).at == "outbound"


def test_row_1_custom_probe_address(mesh, family):
    mesh.apply(hostProbe=redirect.OTHER_PROBES)
    assert mesh.leave(OTHER_PROBE[family], 80).at == "peer"
    assert mesh.leave(PROBE[family], 80).at == "outbound"


def test_row_2_dns_udp(mesh, family):
    mesh.apply()
    assert ask(mesh, SERVER[family]) == "tunnel"
    # UDP to a probe address is DNS like any other: row 1 is about TCP.
    assert ask(mesh, PROBE[family]) == "tunnel"
    assert ask(mesh, SERVER[family], port=5353) == "peer"


def test_row_2_dns_capture_off(mesh, family):
    mesh.apply(dnsCapture=False)
    assert ask(mesh, SERVER[family]) == "peer"


@tunnel_marks
def test_row_2_not_the_tunnels_own(mesh, family, mark):
    mesh.apply()
    assert ask(mesh, SERVER[family], mark=mark) == "peer"


@not_tunnel_marks
def test_row_2_other_marks_are_redirected(mesh, family, mark):
    mesh.apply()
    assert ask(mesh, SERVER[family], mark=mark) == "tunnel"


def test_row_2_not_through_lo(mesh, family):
    mesh.apply()
    for address in (LOOPBACK[family], POD[family]):
        with open_datagram(mesh.pod, address, 53) as server, send_datagram(mesh.pod, address, 53) as client:
            query = receive(server)
            assert query[0] == b"query"
            server.sendto(b"answer", query[1])
            assert receive(client) == (b"answer", (address, 53))
    assert redirect.counted(mesh.pod) == {}


def test_row_3_dns_tcp(mesh, family):
    mesh.apply()
    arrival = mesh.leave(SERVER[family], 53)
    assert arrival == at("dns", SERVER[family], 53) and arrival.talks()
    # Unlike UDP, also to the pod's own address.
    assert mesh.leave(POD[family], 53) == at("dns", POD[family], 53)


def test_row_3_dns_tcp_comes_before_row_4(mesh, family):
    mesh.apply()
    assert mesh.leave(SERVER[family], 53, mark=CONNECTION_MARK, source=POD[family]).at == "dns"


def test_row_3_not_to_loopback(mesh, family):
    mesh.apply()
    mesh.listen_in_pod(53)
    assert mesh.leave(LOOPBACK[family], 53) == at("application", LOOPBACK[family], 53)


def test_row_3_dns_capture_off(mesh, family):
    mesh.apply(dnsCapture=False)
    assert mesh.leave(SERVER[family], 53) == at("outbound", SERVER[family], 53)


@tunnel_marks
def test_row_3_not_the_tunnels_own(mesh, family, mark):
    mesh.apply()
    assert mesh.leave(SERVER[family], 53, mark=mark) == at("peer", SERVER[family], 53)


@both_dns
@pytest.mark.parametrize("mark", [CONNECTION_MARK, 0xBBBBB000 | CONNECTION_MARK], ids=hex)
def test_row_4_connection_mark(mesh, family, dns, mark):
    mesh.apply(dnsCapture=dns)
    # Bound to the device: else the policy rule would send it through lo, and row 5 would match as well.
    arrival = mesh.leave(SERVER[family], 80, mark=mark, device="eth0")
    assert arrival == at("peer", SERVER[family], 80) and arrival.talks()


@both_dns
def test_row_5_own_address(mesh, family, dns):
    mesh.apply(dnsCapture=dns)
    for address in (POD[family], POD_SECOND[family]):
        arrival = mesh.leave(address, APPLICATION)
        assert arrival == at("application", address, APPLICATION) and arrival.talks()
        assert arrival.source[0] == address


def test_row_5_other_loopback_addresses(mesh):
    mesh.apply()
    assert mesh.leave("127.0.0.2", APPLICATION) == at("application", "127.0.0.2", APPLICATION)


@both_dns
def test_row_6_outbound(mesh, family, dns):
    mesh.apply(dnsCapture=dns)
    for address, port in ((SERVER[family], 80), (SERVER[family], 15008), (SERVER[family], 15001), (SERVER[family], 65535),
                          (PEER[family], 1)):
        arrival = mesh.leave(address, port)
        assert arrival == at("outbound", address, port)
        assert arrival.source[0] == POD[family] and arrival.talks()


@both_dns
def test_row_6_not_to_loopback(mesh, family, dns):
    mesh.apply(dnsCapture=dns)
    assert mesh.leave(LOOPBACK[family], APPLICATION) == at("application", LOOPBACK[family], APPLICATION)


@both_dns
def test_row_6_not_to_loopback_by_another_way(mesh, family, dns):
    """To the loopback address but not through lo: it leaves, and nobody out there answers."""
    mesh.apply(dnsCapture=dns)
    assert mesh.leave(LOOPBACK[family], APPLICATION, device="eth0", patience=0.1) == SILENT
    assert redirect.counted(mesh.pod) == {}


@tunnel_marks
def test_row_6_not_the_tunnels_own(mesh, family, mark):
    mesh.apply()
    arrival = mesh.leave(SERVER[family], 80, mark=mark)
    assert arrival == at("peer", SERVER[family], 80) and arrival.talks()


@not_tunnel_marks
def test_row_6_other_marks_are_redirected(mesh, family, mark):
    mesh.apply()
    assert mesh.leave(SERVER[family], 80, mark=mark).at == "outbound"


@pytest.mark.parametrize("port", [80, 15001, 15006, 15053])
def test_row_7_other_udp(mesh, family, port):
    mesh.apply()
    assert ask(mesh, SERVER[family], port=port) == "peer"
    assert redirect.counted(mesh.pod) == {}
