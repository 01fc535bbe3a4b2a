"""What is excluded comes before every row of both tables: it is untouched, in both families."""
import pytest

from . import redirect
from .mesh import APPLICATION_PORT as APPLICATION
from .mesh import at
from .node import OTHER_SERVER, PEER_SECOND, POD, POD_SECOND, SERVER
from .traffic import REFUSED
from .tunnel import HBONE
from .words import ask


def test_outbound_ports(mesh, family):
    mesh.apply(exclude={"outboundPorts": [80, "8000-8003"]})
    for port in (80, 8000, 8002, 8003):
        arrival = mesh.leave(SERVER[family], port)
        assert arrival == at("peer", SERVER[family], port) and arrival.talks()
    for port in (79, 81, 7999, 8004):
        assert mesh.leave(SERVER[family], port) == at("outbound", SERVER[family], port)
    assert redirect.counted(mesh.pod) == {"excluded": 4, "outbound": 4}
    # The other direction knows nothing of it.
    assert mesh.enter(POD[family], 80).at == "inbound"


@pytest.mark.parametrize("dns", [True, False], ids=["dns", "no-dns"])
def test_outbound_port_53_takes_both_protocols_out_of_dns_capture(mesh, family, dns):
    mesh.apply(dnsCapture=dns, exclude={"outboundPorts": ["50-60"]})
    assert mesh.leave(SERVER[family], 53) == at("peer", SERVER[family], 53)
    assert ask(mesh, SERVER[family]) == "peer"
    # UDP needs no rule: there is none left that would redirect it.
    assert redirect.counted(mesh.pod) == {"excluded": 1}
    assert not any(name.startswith("dns:") for _, _, name in redirect.rules(mesh.pod))


def test_every_outbound_port(mesh, family):
    mesh.apply(exclude={"outboundPorts": ["1-65535"]})
    for port in (1, 53, 80, 65535):
        assert mesh.leave(SERVER[family], port) == at("peer", SERVER[family], port)


def test_overlapping_ranges_of_ports(mesh, family):
    mesh.apply(exclude={"outboundPorts": ["100-200", 150, "150-250", "251-260", 65535, 65534]})
    for port in (100, 200, 250, 260, 65535):
        assert mesh.leave(SERVER[family], port).at == "peer"
    for port in (99, 261, 65533):
        assert mesh.leave(SERVER[family], port).at == "outbound"


RANGES = ["198.51.100.64/26", "198.51.100.80/32", "2001:db8:0:0::/64", "2001:db8::80/128"]


def test_outbound_ranges(mesh, family):
    """The other family's ranges do not disturb, nested ones are merged."""
    mesh.apply(exclude={"outboundRanges": RANGES})
    for port in (80, 53):
        assert mesh.leave(SERVER[family], port) == at("peer", SERVER[family], port)
        assert mesh.leave(OTHER_SERVER[family], port).at == ("outbound" if port == 80 else "dns")
    # Anything to such a range, not TCP alone.
    assert ask(mesh, SERVER[family]) == "peer"
    assert ask(mesh, OTHER_SERVER[family]) == "tunnel"


def test_outbound_ranges_of_one_family(mesh):
    mesh.apply(exclude={"outboundRanges": ["198.51.100.80"]})
    assert mesh.leave(SERVER[4], 80).at == "peer"
    assert mesh.leave(SERVER[6], 80).at == "outbound"
    mesh.apply(exclude={"outboundRanges": ["2001:db8::80"]})
    assert mesh.leave(SERVER[4], 80).at == "outbound"
    assert mesh.leave(SERVER[6], 80).at == "peer"


def test_the_whole_address_space(mesh, family):
    mesh.apply(exclude={"outboundRanges": ["0.0.0.0/0", "::/0"]})
    assert mesh.leave(SERVER[family], 80).at == "peer"
    assert mesh.leave(OTHER_SERVER[family], 53).at == "peer"


def test_inbound_ports(mesh, family):
    mesh.apply(exclude={"inboundPorts": [APPLICATION, "9000-9001"]})
    mesh.listen_in_pod(9001)
    for port in (APPLICATION, 9001):
        arrival = mesh.enter(POD[family], port)
        assert arrival == at("application", POD[family], port) and arrival.talks()
    assert mesh.enter(POD[family], 9000) == REFUSED  # by the pod itself: nobody listens
    for port in (APPLICATION - 1, 8999, 9002):
        assert mesh.enter(POD[family], port) == at("inbound", POD[family], port)
    assert mesh.leave(SERVER[family], APPLICATION).at == "outbound"


def test_inbound_ports_come_before_virtual_interfaces(mesh, family):
    mesh.apply(virtualInterfaces=["eth1"], exclude={"inboundPorts": [APPLICATION]})
    assert mesh.enter(POD_SECOND[family], APPLICATION) == at("application", POD_SECOND[family], APPLICATION)
    assert mesh.enter(POD_SECOND[family], 9000).at == "outbound"


def test_inbound_ports_with_inbound_bypassed(mesh, family):
    mesh.apply(bypassInbound=True, virtualInterfaces=["eth1"], exclude={"inboundPorts": [APPLICATION]})
    assert mesh.enter(POD_SECOND[family], APPLICATION).at == "application"
    assert mesh.enter(POD_SECOND[family], HBONE).at == "outbound"
    assert mesh.enter(POD[family], APPLICATION).at == "application"


def test_interfaces_in_both_directions(mesh, family):
    mesh.apply(exclude={"interfaces": ["eth1", "not-there-yet"]})
    assert mesh.enter(POD_SECOND[family], APPLICATION) == at("application", POD_SECOND[family], APPLICATION)
    assert mesh.enter(POD[family], APPLICATION) == at("inbound", POD[family], APPLICATION)
    for port in (80, 53):
        assert mesh.leave(PEER_SECOND[family], port) == at("peer", PEER_SECOND[family], port)
    assert ask(mesh, PEER_SECOND[family]) == "peer"
    assert mesh.leave(SERVER[family], 80).at == "outbound"
    assert mesh.leave(SERVER[family], 53).at == "dns"


def test_interfaces_come_before_virtual_interfaces(mesh, family):
    mesh.apply(virtualInterfaces=["eth1", "eth0"], exclude={"interfaces": ["eth1"]})
    assert mesh.enter(POD_SECOND[family], APPLICATION).at == "application"
    assert mesh.enter(POD[family], APPLICATION).at == "outbound"


def test_everything_at_once(mesh, family):
    mesh.apply(virtualInterfaces=["eth1"], exclude={"outboundPorts": [81], "outboundRanges": RANGES, "inboundPorts": [9000],
                                                    "interfaces": ["tap0"]})
    assert mesh.leave(OTHER_SERVER[family], 81).at == "peer"
    assert mesh.leave(SERVER[family], 80).at == "peer"
    assert mesh.leave(OTHER_SERVER[family], 80).at == "outbound"
    assert mesh.enter(POD_SECOND[family], APPLICATION).at == "outbound"
    assert mesh.enter(POD[family], 9000) == REFUSED
    assert mesh.enter(POD[family], APPLICATION).at == "inbound"


def test_as_many_as_are_allowed(mesh, family):
    """More elements than one message holds."""
    ranges = [f"10.{i >> 8}.{i & 255}.0/25" for i in range(510)] + [f"2001:db8:1:{i:x}::/65" for i in range(510)]
    ports = [20000 + 2 * i for i in range(1024)]
    mesh.apply(exclude={"outboundPorts": ports, "outboundRanges": ranges + RANGES, "inboundPorts": ports})
    assert redirect.difference(mesh.pod, exclude={"outboundPorts": ports, "outboundRanges": ranges + RANGES,
                                                  "inboundPorts": ports}) == ""
    for port in (20000, 20510, 20512, 22046):
        assert mesh.leave(OTHER_SERVER[family], port).at == "peer"
        assert mesh.leave(OTHER_SERVER[family], port + 1).at == "outbound"
        assert mesh.enter(POD[family], port) == REFUSED
        assert mesh.enter(POD[family], port + 1).at == "inbound"
    assert mesh.leave(SERVER[family], 80).at == "peer"
