"""The guard: a connection to the tunnel's plaintext ports that no rule redirected is reset, so that the tunnel never takes it
for a request to itself."""
import pytest

from . import redirect
from .mesh import APPLICATION_PORT as APPLICATION
from .mesh import at
from .node import LOOPBACK, POD, POD_SECOND, PROBE, SERVER
from .traffic import REFUSED
from .tunnel import HBONE, INBOUND, MARK, OUTBOUND

PORTS = (OUTBOUND, INBOUND)


@pytest.mark.parametrize("stage", ["guard", "full"])
@pytest.mark.parametrize("port", PORTS)
def test_from_the_pod_itself(mesh, family, stage, port):
    getattr(mesh, "guard" if stage == "guard" else "apply")()
    for address in (LOOPBACK[family], POD[family], POD_SECOND[family]):
        assert mesh.leave(address, port) == REFUSED
    assert redirect.counted(mesh.pod) == {"guard": 3}


@pytest.mark.parametrize("port", PORTS)
def test_from_outside_with_inbound_bypassed(mesh, family, port):
    mesh.apply(bypassInbound=True)
    assert mesh.enter(POD[family], port) == REFUSED
    assert mesh.enter(POD[family], port, source=PROBE[family]) == REFUSED
    assert redirect.counted(mesh.pod) == {"guard": 2}


@pytest.mark.parametrize("port", PORTS)
def test_from_outside_in_the_guard_stage(mesh, family, port):
    mesh.guard()
    assert mesh.enter(POD[family], port) == REFUSED
    # Nothing else is touched.
    assert mesh.enter(POD[family], APPLICATION) == at("application", POD[family], APPLICATION)
    assert mesh.enter(POD[family], HBONE) == at("hbone", POD[family], HBONE)
    assert mesh.leave(SERVER[family], 80) == at("peer", SERVER[family], 80)
    assert mesh.leave(SERVER[family], port) == at("peer", SERVER[family], port)


def test_a_redirect_to_the_port_that_was_meant_changes_nothing(mesh, family):
    """To 15006 itself: row 6 leaves no trace in conntrack. To 15001 it does."""
    mesh.apply()
    assert mesh.enter(POD[family], INBOUND) == REFUSED
    assert mesh.enter(POD[family], OUTBOUND) == at("inbound", POD[family], OUTBOUND)
    assert redirect.counted(mesh.pod) == {"inbound": 2, "guard": 1}


@pytest.mark.parametrize("port", PORTS)
def test_the_probe_address_is_no_way_around(mesh, family, port):
    """Row 2 leaves it alone, the guard does not."""
    mesh.apply()
    assert mesh.enter(POD[family], port, source=PROBE[family]) == REFUSED


@pytest.mark.parametrize("port", PORTS)
def test_an_exclusion_is_no_way_around(mesh, family, port):
    mesh.apply(exclude={"interfaces": ["eth1"], "inboundPorts": ["15000-15100"]})
    assert mesh.enter(POD_SECOND[family], port) == REFUSED
    assert mesh.enter(POD[family], port) == REFUSED


@pytest.mark.parametrize("port", PORTS)
@pytest.mark.parametrize("mark", [MARK, 0xFFFFF000 | MARK], ids=hex)
def test_the_tunnel_may(mesh, family, port, mark):
    for stage in (mesh.guard, mesh.apply):
        stage()
        arrival = mesh.leave(POD[family], port, mark=mark)
        assert arrival.original == (POD[family], port) and arrival.talks()
    assert redirect.counted(mesh.pod) == {}


def test_what_was_redirected_passes(mesh, family):
    """A SYN that is sent again, too: it belongs to a connection that was redirected."""
    mesh.apply(virtualInterfaces=["eth1"])
    for arrival in (mesh.leave(SERVER[family], 80), mesh.enter(POD[family], APPLICATION), mesh.enter(POD_SECOND[family], 1)):
        assert arrival.at in ("outbound", "inbound") and arrival.talks()
    assert "guard" not in redirect.counted(mesh.pod)


def test_open_connections_to_the_ports_go_on(mesh, family):
    """Only what opens a connection is reset."""
    before = [mesh.leave(POD[family], port) for port in PORTS] + [mesh.enter(POD[family], port) for port in PORTS]
    for stage in (mesh.guard, mesh.apply):
        stage()
        assert all(arrival.talks() for arrival in before)
