"""For each rule that a configuration makes there is a packet that goes elsewhere without it: each is deleted in turn, by its
handle, and the packet's check, which held before, must fail. A rule that no check knows fails the test as well."""
import pytest

from . import conntrack, redirect
from .mesh import APPLICATION_PORT as APPLICATION
from .node import CLIENT, LOOPBACK, OTHER_SERVER, PEER_SECOND, POD, POD_SECOND, PROBE, SERVER
from .test_marks import tunnel_asks, zones
from .traffic import PATIENCE, REFUSED, inject, make_socket, segment, talks
from .tunnel import CONNECTION_MARK, HBONE, INBOUND, MARK, OUTBOUND
from .words import ask

FAILS = 0.25  # seconds until a packet that should not arrive has not arrived


def lands(mesh, source, destination, port, mark=0):
    """The port at which a SYN that enters through lo is delivered."""
    if ":" not in source:
        for key in ("route_localnet", "accept_local"):
            mesh.pod.sysctl(f"net.ipv4.conf.lo.{key}", 1)
    inject(mesh.pod, "lo", segment(source, 40404, destination, port), mark=mark)
    flow, = conntrack.find(mesh.pod, 40404)
    return flow


def sends_to_loopback(mesh, family):
    """A SYN to the loopback address that leaves by eth0: nothing is counted where no rule redirects it."""
    before = redirect.counted(mesh.pod).get("outbound", 0)
    with make_socket(mesh.pod, LOOPBACK[family], device="eth0") as sock:
        sock.setblocking(False)
        sock.connect_ex((LOOPBACK[family], APPLICATION))
        return redirect.counted(mesh.pod).get("outbound", 0) == before


def zone_check(mesh, family):
    return zones(mesh, tunnel_asks(mesh, family)) == [(1, False)]


class Checks:
    """By the rule's name. Each returns whether the packet went where it should."""

    def __init__(self, mesh, family, redirection):
        self.mesh, self.family, self.redirection = mesh, family, redirection

    def __getitem__(self, name):
        mesh, f = self.mesh, self.family
        dns = self.redirection.get("dnsCapture", True)
        entering = POD_SECOND if "virtualInterfaces" in self.redirection else POD
        return {
            "tunnel DNS answers": lambda: zone_check(mesh, f),
            "tunnel DNS queries": lambda: zone_check(mesh, f),
            "ipv6 is off in": lambda: mesh.enter(POD[6], APPLICATION).at == "application",
            "ipv6 is off out": lambda: mesh.leave(SERVER[6], 80).at == "peer",
            "open connections in": lambda: self.goes_on(lambda: mesh.enter(entering[f], APPLICATION)),
            "open connections out": lambda: self.goes_on(lambda: mesh.leave(SERVER[f], 80)),
            "forget open connections in": lambda: self.is_forgotten(lambda: mesh.enter(entering[f], APPLICATION)),
            "forget open connections out": lambda: self.is_forgotten(lambda: mesh.leave(SERVER[f], 80)),
            "excluded: interfaces in": lambda: mesh.enter(POD_SECOND[f], APPLICATION).at == "application",
            "excluded: interfaces out": lambda: mesh.leave(PEER_SECOND[f], 80).at == "peer",
            "excluded: inbound ports": lambda: mesh.enter(POD[f], 9000).at == "application",
            "excluded: outbound ports": lambda: mesh.leave(SERVER[f], 81).at == "peer",
            "excluded: outbound ipv4": lambda: mesh.leave(OTHER_SERVER[4], 80).at == "peer",
            "excluded: outbound ipv6": lambda: mesh.leave(OTHER_SERVER[6], 80).at == "peer",
            "virtual-interface": lambda: mesh.enter(POD_SECOND[f], APPLICATION).at == "outbound",
            "probe: ipv4": lambda: mesh.enter(POD[4], APPLICATION, source=PROBE[4]).at == "application",
            "probe: ipv6": lambda: mesh.enter(POD[6], APPLICATION, source=PROBE[6]).at == "application",
            "to loopback ipv4": lambda: lands(mesh, CLIENT[4], LOOPBACK[4], APPLICATION).reply[2] == APPLICATION,
            "to loopback ipv6": lambda: lands(mesh, CLIENT[6], LOOPBACK[6], APPLICATION).reply[2] == APPLICATION,
            "hbone": lambda: mesh.enter(POD[f], HBONE).at == "hbone",
            "from the tunnel in": lambda: lands(mesh, CLIENT[f], POD[f], APPLICATION, MARK).reply[2] == APPLICATION,
            "inbound": lambda: mesh.enter(POD[f], APPLICATION).at == "inbound",
            "from the tunnel out": lambda: mesh.leave(SERVER[f], 80, mark=MARK).at == "peer",
            "dns: udp": lambda: ask(mesh, SERVER[f]) == "tunnel",
            "dns: tcp": lambda: mesh.leave(SERVER[f], 53).at == "dns",
            "to the probe address ipv4": lambda: mesh.leave(PROBE[4], 80).at == "peer",
            "to the probe address ipv6": lambda: mesh.leave(PROBE[6], 80).at == "peer",
            "from us to loopback ipv4": lambda: sends_to_loopback(mesh, 4),
            "from us to loopback ipv6": lambda: sends_to_loopback(mesh, 6),
            "carried by the tunnel": lambda: mesh.leave(SERVER[f], 80, mark=CONNECTION_MARK, device="eth0").at == "peer",
            "to the pod itself": lambda: mesh.leave(POD[f], APPLICATION).at == "application",
            "outbound": lambda: mesh.leave(SERVER[f], 82 if dns else 53).at == "outbound",
            "tunnel connections": lambda: lands(mesh, CLIENT[f], POD[f], HBONE, MARK).mark == CONNECTION_MARK,
            "guard: outbound port": lambda: mesh.leave(POD[f], OUTBOUND) == REFUSED,
            "guard: inbound port": lambda: mesh.leave(POD[f], INBOUND) == REFUSED,
            "replies to the tunnel": lambda: mesh.reach_application_as(CLIENT[f]).at == "application",
        }[name]

    def goes_on(self, open_connection):
        return self.opened_before(open_connection, lambda arrival: talks(arrival.client, arrival.server, FAILS))

    def is_forgotten(self, open_connection):
        return self.opened_before(open_connection, lambda arrival: arrival.talks() and not conntrack.find(
            self.mesh.pod, arrival.client.getsockname()[1], patience=0) and not conntrack.find(
            self.mesh.pod, arrival.client.getpeername()[1], patience=0))

    def opened_before(self, open_connection, check):
        """A connection of a time without redirects, which conntrack has forgotten."""
        rules_now = self.mesh.pod.run("nft", "list", "table", "inet", redirect.TABLE)
        self.mesh.pod.nft(f"delete table inet {redirect.TABLE}")
        arrival = open_connection()
        conntrack.flush(self.mesh.pod)
        self.mesh.pod.nft(rules_now)
        try:
            return check(arrival)
        finally:
            arrival.close()


def holds(check):
    try:
        return check()
    except (AssertionError, AttributeError, ConnectionError, TimeoutError):  # silence, or a connection refused
        return False


CONFIGURATIONS = {
    "defaults": {},
    "no-dns": {"dnsCapture": False},
    "no-ipv6": {"ipv6": False},
    "bypass-virtual": {"bypassInbound": True, "virtualInterfaces": ["eth1"], "exclude": {"inboundPorts": [9000]}},
    "virtual": {"virtualInterfaces": ["eth1"]},
    "reset": {"existingConnections": "reset"},
    "exclusions": {"exclude": {"outboundPorts": [53, 81], "inboundPorts": [9000], "interfaces": ["eth1"],
                               "outboundRanges": ["198.51.100.200/32", "2001:db8:0:200::/64"]}},
    "guard": {},
}
# Where another rule of the same configuration lets the packet through as well: the packet that only this rule decides.
OTHERWISE = {
    ("bypass-virtual", "excluded: inbound ports"): lambda mesh, f: mesh.enter(POD_SECOND[f], 9000).at == "application",
}


def rules_of(name):
    """All that must stand, so that one that was never made is missed as well."""
    redirection = CONFIGURATIONS[name]
    families = ("ipv4", "ipv6") if redirection.get("ipv6", True) else ("ipv4",)
    excluded, dns = redirection.get("exclude", {}), redirection.get("dnsCapture", True)
    bypasses, virtual = redirection.get("bypassInbound", False), "virtualInterfaces" in redirection
    names = ["tunnel connections", "guard: outbound port", "guard: inbound port", "replies to the tunnel"]
    names += ["tunnel DNS answers", "tunnel DNS queries"] if dns else []
    keeps = redirection.get("existingConnections") != "reset"
    names += ["forget open connections in", "forget open connections out"] if keeps else []
    if name == "guard":
        return names
    for way in ["out"] + (["in"] if virtual or not bypasses else []):
        names += [f"ipv6 is off {way}"] if len(families) == 1 else []
        names += [f"open connections {way}"] if keeps else []
        names += [f"excluded: interfaces {way}"] if "interfaces" in excluded else []
    names += ["excluded: inbound ports"] if "inboundPorts" in excluded else []
    names += ["excluded: outbound ports"] if "outboundPorts" in excluded else []
    names += [f"excluded: outbound {family}" for family in families] if "outboundRanges" in excluded else []
    names += ["virtual-interface"] if virtual else []
    if not bypasses:
        names += ["hbone", "from the tunnel in", "inbound"]
        names += [f"{rule} {family}" for rule in ("probe:", "to loopback") for family in families]
    names += ["dns: udp", "dns: tcp"] if dns and 53 not in excluded.get("outboundPorts", []) else []
    names += [f"{rule} {family}" for rule in ("to the probe address", "from us to loopback") for family in families]
    return names + ["from the tunnel out", "carried by the tunnel", "to the pod itself", "outbound"]


# Without IPv6 there is nothing to redirect in it; the two rules that say so are looked at with the IPv4 ones.
@pytest.mark.parametrize("name, family", [(name, family) for name in CONFIGURATIONS for family in (4, 6)
                                          if (name, family) != ("no-ipv6", 6)])
def test_a_packet_notices_each_rule(mesh, name, family):
    redirection = CONFIGURATIONS[name]
    stage = mesh.guard if name == "guard" else mesh.apply
    mesh.listen_in_pod(9000)
    stage(**redirection)
    checks = Checks(mesh, family, redirection)
    count = len(redirect.rules(mesh.pod))
    assert sorted(rule for _, _, rule in redirect.rules(mesh.pod)) == sorted(rules_of(name))
    for index in range(count):
        chain, handle, rule = redirect.rules(mesh.pod)[index]
        check = checks[rule]
        if (name, rule) in OTHERWISE:
            check = (lambda special: lambda: special(mesh, family))(OTHERWISE[name, rule])
        # What other tests of this loop opened must not answer for it.
        conntrack.flush(mesh.pod)
        assert holds(check), f"{rule}: the packet goes elsewhere although the rule stands"
        _, handle, again = redirect.rules(mesh.pod)[index]
        assert again == rule
        conntrack.flush(mesh.pod)
        mesh.pod.nft(f"delete rule inet {redirect.TABLE} {chain} handle {handle}")
        mesh.patience = FAILS
        assert not holds(check), f"{rule}: no packet notices that the rule is gone"
        mesh.patience = PATIENCE
        stage(**redirection)
