"""Marks: what the tunnel sends marks its connection, whatever the verdict and the protocol; replies on such a connection come
back to the tunnel; the tunnel's own DNS is tracked in a zone of its own. Nobody else's bits are touched."""
import re
import socket
import struct

import pytest

from . import conntrack, redirect
from .mesh import APPLICATION_PORT as APPLICATION
from .mesh import at
from .node import CLIENT, LOOPBACK, POD, PROBE, SERVER
from .traffic import SO_MARK, inject, make_socket, open_datagram, receive, segment, send_datagram
from .tunnel import CONNECTION_MARK, DNS, HBONE, INBOUND, MARK


def mark_of(mesh, source_port, protocol="tcp"):
    flow, = conntrack.find(mesh.pod, source_port, protocol)
    return flow.mark


def enters(mesh, source, destination, port, mark):
    """A SYN through lo that never left: where it goes, and the connection's mark."""
    if ":" not in source:
        for key in ("route_localnet", "accept_local"):
            mesh.pod.sysctl(f"net.ipv4.conf.lo.{key}", 1)
    inject(mesh.pod, "lo", segment(source, 40404, destination, port), mark=mark)
    flow, = conntrack.find(mesh.pod, 40404)
    return flow.reply[2], flow.mark


@pytest.mark.parametrize("mark", [MARK, 0xABCDE000 | MARK], ids=hex)
@pytest.mark.parametrize("verdict, source, destination, port, redirection", [
    ("virtual interface", CLIENT, POD, APPLICATION, {"virtualInterfaces": ["lo"]}),
    ("probe", PROBE, POD, APPLICATION, {}),
    ("to loopback", CLIENT, LOOPBACK, APPLICATION, {}),
    ("hbone", CLIENT, POD, HBONE, {}),
    ("tunnel mark", CLIENT, POD, APPLICATION, {}),
    ("tunnel mark to 15006", CLIENT, POD, INBOUND, {}),
    ("inbound bypassed", CLIENT, POD, APPLICATION, {"bypassInbound": True}),
    ("excluded port", CLIENT, POD, APPLICATION, {"exclude": {"inboundPorts": [APPLICATION]}}),
    ("excluded interface", CLIENT, POD, APPLICATION, {"exclude": {"interfaces": ["lo"]}}),
    ("no DNS capture", CLIENT, POD, APPLICATION, {"dnsCapture": False}),
], ids=lambda value: value.replace(" ", "-") if isinstance(value, str) else "")
def test_tcp_with_the_tunnel_mark(mesh, family, verdict, source, destination, port, redirection, mark):
    mesh.apply(**redirection)
    where, connection_mark = enters(mesh, source[family], destination[family], port, mark)
    assert where == (15001 if verdict == "virtual interface" else port)
    assert connection_mark == CONNECTION_MARK


@pytest.mark.parametrize("mark", [0, 0x39, CONNECTION_MARK, 0x538, 0x500], ids=hex)
def test_tcp_with_another_mark(mesh, family, mark):
    mesh.apply()
    assert enters(mesh, CLIENT[family], POD[family], APPLICATION, mark) == (INBOUND, 0)


@pytest.mark.parametrize("stage", ["guard", "full"])
def test_udp_and_icmp_with_the_tunnel_mark(mesh, family, stage):
    getattr(mesh, "guard" if stage == "guard" else "apply")()
    for mark, expected in ((MARK, CONNECTION_MARK), (0x39, 0)):
        with open_datagram(mesh.pod, POD[family], 7000) as server, \
                send_datagram(mesh.pod, POD[family], 7000, mark=mark) as client:
            assert receive(server)[0] == b"query"
            assert mark_of(mesh, client.getsockname()[1], "udp") == expected
        conntrack.flush(mesh.pod)
        ping(mesh.pod, POD[family], mark)
        protocol, listing_family = ("icmpv6", "ipv6") if family == 6 else ("icmp", "ipv4")
        text = mesh.pod.run("conntrack", "-L", "-f", listing_family, "-p", protocol)
        assert re.findall(r"dst=(\S+) .*?mark=(\d+)", text) == [(POD[family], str(expected))]


def ping(namespace, address, mark):
    domain, protocol = (socket.AF_INET6, socket.IPPROTO_ICMPV6) if ":" in address else (socket.AF_INET, socket.IPPROTO_ICMP)
    with namespace:
        sock = socket.socket(domain, socket.SOCK_RAW, protocol)
    with sock:
        sock.setsockopt(socket.SOL_SOCKET, SO_MARK, struct.pack("I", mark))
        # The checksum of these eight bytes; for ICMPv6 the kernel computes it.
        sock.sendto(struct.pack("!BBHHH", 128 if ":" in address else 8, 0, 0 if ":" in address else 0xE597, 0x1267, 1),
                    (address, 0))


def test_the_tunnel_speaks_to_the_application_as_the_client(mesh, family):
    """The reply to the client's address comes back to the tunnel: mark, policy rule and local route together."""
    for stage in (mesh.guard, mesh.apply):
        stage()
        arrival = mesh.reach_application_as(CLIENT[family])
        assert arrival == at("application", POD[family], APPLICATION)
        assert arrival.source[0] == CLIENT[family] and arrival.talks()
        assert mark_of(mesh, arrival.source[1]) == CONNECTION_MARK


def test_udp_as_the_client(mesh, family):
    mesh.apply()
    with open_datagram(mesh.pod, POD[family], 7000) as server, \
            make_socket(mesh.pod, CLIENT[family], socket.SOCK_DGRAM, mark=MARK, transparent=True) as client:
        client.bind((CLIENT[family], 0))
        client.sendto(b"request", (POD[family], 7000))
        payload, source = receive(server)
        assert payload == b"request" and source[0] == CLIENT[family]
        server.sendto(b"reply", source)
        assert receive(client) == (b"reply", (POD[family], 7000))


def test_other_connections_of_the_application_keep_their_way(mesh, family):
    """Only replies on the tunnel's connections are marked: what the client itself opened (a probe) is answered outside."""
    mesh.apply()
    arrival = mesh.enter(POD[family], APPLICATION, source=PROBE[family])
    assert arrival.talks() and mark_of(mesh, arrival.source[1]) == 0


FOREIGN = """
table inet foreign {
  chain input {
    type filter hook input priority -160
    ct mark 0 ct mark set 0xabc00222
  }
  chain output {
    type route hook output priority -160
    meta mark set 0xcafe0000
  }
  chain after {
    type filter hook output priority 0
    ct mark 0xabc00111 meta mark 0xcafe0111 counter
  }
}
"""


def test_the_other_bits_belong_to_others(mesh, family):
    mesh.pod.nft(FOREIGN)
    mesh.apply()
    # Answered by the application's SYN/ACK, which gets the packet mark.
    assert enters(mesh, CLIENT[family], POD[family], APPLICATION, MARK) == (APPLICATION, 0xABC00111)
    listing = mesh.pod.run("nft", "list", "chain", "inet", "foreign", "after")
    assert int(re.search(r"counter packets (\d+)", listing)[1]) >= 1, listing


def zones(mesh, source_port):
    return sorted((flow.zone, flow.unreplied) for flow in conntrack.find(mesh.pod, source_port, "udp"))


def tunnel_asks(mesh, family, port=53, mark=MARK):
    """A query of the tunnel, answered. Returns its source port."""
    with open_datagram(mesh.peer, SERVER[family], port, transparent=True) as server, \
            send_datagram(mesh.pod, SERVER[family], port, mark=mark) as client:
        query, source = receive(server)
        assert query == b"query"
        server.sendto(b"answer", source)
        assert receive(client) == (b"answer", (SERVER[family], port))
        return client.getsockname()[1]


@pytest.mark.parametrize("stage", ["guard", "full"])
@pytest.mark.parametrize("mark", [MARK, 0xABCDE000 | MARK], ids=hex)
def test_the_tunnels_dns_is_in_zone_1_both_ways(mesh, family, stage, mark):
    getattr(mesh, "guard" if stage == "guard" else "apply")()
    assert zones(mesh, tunnel_asks(mesh, family, mark=mark)) == [(1, False)]


def test_other_traffic_of_the_tunnel_is_in_no_zone(mesh, family):
    mesh.apply()
    assert zones(mesh, tunnel_asks(mesh, family, port=5353)) == [(0, False)]


def test_without_dns_capture_there_is_no_zone(mesh, family):
    mesh.apply(dnsCapture=False)
    assert zones(mesh, tunnel_asks(mesh, family)) == [(0, False)]


def test_the_applications_dns_is_in_no_zone(mesh, family):
    mesh.apply()
    with send_datagram(mesh.pod, SERVER[family], 53) as client:
        _, source = receive(mesh.dns[family])
        mesh.dns[family].sendto(b"answer", source)
        assert receive(client)[0] == b"answer"
        flow, = conntrack.find(mesh.pod, client.getsockname()[1], "udp")
        assert (flow.zone, flow.unreplied, flow.reply[2]) == (0, False, DNS)


def test_the_tunnel_may_use_a_port_that_the_application_uses(mesh, family):
    """The case the zone is for: both ask the same server from the same port, at the same time."""
    mesh.apply()
    with send_datagram(mesh.pod, SERVER[family], 53, source=POD[family], source_port=40053) as client:
        _, source = receive(mesh.dns[family])
        client.close()  # the port is free again, conntrack remembers
        with open_datagram(mesh.peer, SERVER[family], 53, transparent=True) as server, \
                send_datagram(mesh.pod, SERVER[family], 53, source=POD[family], source_port=40053, mark=MARK) as tunnel:
            query, sender = receive(server)
            assert (query, sender) == (b"query", (POD[family], 40053))
            server.sendto(b"answer", sender)
            assert receive(tunnel) == (b"answer", (SERVER[family], 53))
        del source
    assert redirect.counted(mesh.pod) == {"dns": 1}
