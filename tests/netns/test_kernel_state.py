"""What stands in the kernel: verified by content, next to other people's tables, counted, and taken away."""
import pytest

from . import redirect
from .mesh import APPLICATION_PORT as APPLICATION
from .node import CLIENT, POD, POD_SECOND, PROBE, SERVER
from .tunnel import HBONE, INBOUND
from .words import ask

CONFIGURATIONS = {
    "defaults": {},
    "no-ipv6": {"ipv6": False},
    "no-dns": {"dnsCapture": False},
    "bypass": {"bypassInbound": True},
    "bypass-virtual": {"bypassInbound": True, "virtualInterfaces": ["eth1"]},
    "reset": {"existingConnections": "reset"},
    "no-timeouts": {"conntrackTimeouts": False},
    "probe": {"hostProbe": redirect.OTHER_PROBES},
    "virtual": {"virtualInterfaces": ["eth1", "a-name-of-15-by"]},
    "exclusions": {"exclude": {"outboundPorts": [80, "8000-8100", 65535], "inboundPorts": ["1-10"], "interfaces": ["tap0"],
                               "outboundRanges": ["10.0.0.0/8", "255.255.255.255/32", "fd00::/8", "ffff::/16"]}},
    "everything": {"virtualInterfaces": ["eth1"], "existingConnections": "reset", "hostProbe": redirect.OTHER_PROBES,
                   "exclude": {"outboundPorts": [80], "inboundPorts": [81], "interfaces": ["tap0"],
                               "outboundRanges": ["0.0.0.0/0", "::/0"]}},
}
each_configuration = pytest.mark.parametrize("name", CONFIGURATIONS)


def listing(namespace, *more):
    return namespace.run("nft", "-s", *more, "list", "ruleset")


def guards_as(configuration):
    forgets = configuration.get("existingConnections") != "reset" and configuration.get("conntrackTimeouts", True)
    return forgets, configuration.get("dnsCapture", True)


@each_configuration
@pytest.mark.parametrize("stage", ["full", "guard"])
def test_what_was_applied_verifies_and_nothing_else_does(pod_alone, name, stage):
    (redirect.apply if stage == "full" else redirect.guard)(pod_alone, **CONFIGURATIONS[name])
    assert redirect.difference(pod_alone, stage, **CONFIGURATIONS[name]) == ""
    for other, configuration in CONFIGURATIONS.items():
        # In the guard stage ipv6 makes a difference only to rule and route, and what is redirected none.
        expected = other == name if stage == "full" else guards_as(configuration) == guards_as(CONFIGURATIONS[name])
        if stage == "guard" and "no-ipv6" in (name, other):
            continue
        assert (redirect.difference(pod_alone, stage, **configuration) == "") == expected, other
    assert redirect.difference(pod_alone, "guard" if stage == "full" else "full", **CONFIGURATIONS[name]) != ""


@each_configuration
@pytest.mark.parametrize("stage", ["full", "guard"])
def test_what_is_rendered_is_what_is_applied(pod_alone, name, stage):
    """nft accepts it, and the table that nft makes of it is ours: the same listing, and it verifies."""
    text = redirect.render(stage, **CONFIGURATIONS[name])
    pod_alone.run("nft", "-c", "-f", "-", stdin=text)
    assert listing(pod_alone) == ""
    (redirect.apply if stage == "full" else redirect.guard)(pod_alone, **CONFIGURATIONS[name])
    applied = listing(pod_alone)
    pod_alone.nft("delete table inet ambient-cni")
    pod_alone.nft(text)
    assert listing(pod_alone) == applied
    assert redirect.difference(pod_alone, stage, **CONFIGURATIONS[name]) == ""


TABLE = "inet ambient-cni"
DAMAGES = [
    (f"delete table {TABLE}", "table inet ambient-cni is missing"),
    (f"add table {TABLE} {{ flags dormant; }}", "dormant"),
    (f"flush chain {TABLE} input", 'chain input: rule 1 "tunnel connections"'),
    (f"flush chain {TABLE} output-redirect\ndelete chain {TABLE} output-redirect", "chain output-redirect is missing"),
    (f"add chain {TABLE} other", "chain other should not be there"),
    (f"insert rule {TABLE} output-redirect accept", "a foreign rule stands before rule 1"),
    (f"add rule {TABLE} output-redirect accept", "a foreign rule stands at the end"),
    (f"add chain {TABLE} input {{ policy drop; }}", "policy drop"),
    (f"flush chain {TABLE} output\nflush chain {TABLE} prerouting\ndelete ct timeout {TABLE} open-connections",
     "ct timeout open-connections is missing"),
    (f"flush chain {TABLE} output\nflush chain {TABLE} prerouting\ndelete ct timeout {TABLE} open-connections\n"
     f"add ct timeout {TABLE} open-connections {{ protocol tcp; policy = {{ established : 5 }}; }}",
     "ct timeout open-connections is another"),
    (f"delete element {TABLE} excluded-outbound-ports {{ 80 }}", "set excluded-outbound-ports"),
    (f"add element {TABLE} excluded-outbound-ports {{ 81 }}", "set excluded-outbound-ports"),
    (f"add element {TABLE} virtual-interfaces {{ eth7 }}", "set virtual-interfaces"),
    (f"delete element {TABLE} excluded-outbound-ipv6 {{ 2001:db8::/64 }}", "set excluded-outbound-ipv6"),
    (f"flush set {TABLE} excluded-outbound-ipv4", "set excluded-outbound-ipv4"),
]
DAMAGED = {"virtualInterfaces": ["eth1"], "exclude": {"outboundPorts": [80, "90-99"], "outboundRanges": ["198.51.100.80",
                                                                                                    "2001:db8::/64"]}}


@pytest.mark.parametrize("command, words", DAMAGES, ids=[command.splitlines()[-1] for command, _ in DAMAGES])
def test_a_difference_is_named_and_repaired(pod_alone, command, words):
    redirect.apply(pod_alone, **DAMAGED)
    pod_alone.nft(command)
    assert words in redirect.difference(pod_alone, **DAMAGED)
    redirect.apply(pod_alone, **DAMAGED)
    assert redirect.difference(pod_alone, **DAMAGED) == ""


def rule_texts(namespace):
    """(chain, handle, text) of each of our rules."""
    found, chain = [], None
    for line in namespace.run("nft", "-s", "-a", "list", "table", "inet", "ambient-cni").splitlines():
        words = line.split()
        if words[:1] == ["chain"]:
            chain = words[1]
        elif " comment " in line and "# handle" in line:
            text, _, handle = line.strip().partition(" # handle ")
            found.append((chain, int(handle), text))
    return found


@each_configuration
def test_each_rule_that_is_missing_or_changed_is_named(pod_alone, name):
    redirect.apply(pod_alone, **CONFIGURATIONS[name])
    for index in range(len(rule_texts(pod_alone))):
        chain, handle, text = rule_texts(pod_alone)[index]
        rule_name = text.split(' comment "')[1][:-1]
        pod_alone.nft(f"delete rule {TABLE} {chain} handle {handle}")
        difference = redirect.difference(pod_alone, **CONFIGURATIONS[name])
        assert f"chain {chain}: rule " in difference and f'"{rule_name}"' in difference and "is missing" in difference
        redirect.apply(pod_alone, **CONFIGURATIONS[name])
        chain, handle, text = rule_texts(pod_alone)[index]
        pod_alone.nft(f'replace rule {TABLE} {chain} handle {handle} meta mark 0x77 counter accept comment "{rule_name}"')
        difference = redirect.difference(pod_alone, **CONFIGURATIONS[name])
        assert f'"{rule_name}" should be (' in difference and "found another" in difference
        redirect.apply(pod_alone, **CONFIGURATIONS[name])


# One number of each kind.
CHANGES = [("0x00000539", "0x0000053a"), ("& 0x00000fff", "& 0x00000ffe"), (":15001", ":15002"), ("dport 15008", "dport 15009"),
           ("169.254.7.127", "169.254.7.126"), ("ffff:ffff", "ffff:fffe"), ("ct zone set 1", "ct zone set 2"),
           ("set ct mark & 0xfffff111 | 0x00000111", "set 0x00000111"), ("udp dport 53", "udp sport 53"), ("oif !=", "oif"),
           ("!= syn", "== syn"), ("ip daddr", "ip saddr"), ("counter ", ""), ("accept", "return"), ("!= 0x00000539", "0x00000539"),
           ("reject with tcp reset", "drop")]


@pytest.mark.parametrize("old, new", CHANGES)
def test_a_rule_that_differs_in_one_thing_is_found(pod_alone, old, new):
    redirect.apply(pod_alone)
    chain, handle, text = next(entry for entry in rule_texts(pod_alone) if old in entry[2])
    pod_alone.nft(f"replace rule {TABLE} {chain} handle {handle} {text.replace(old, new, 1)}")
    assert "found another" in redirect.difference(pod_alone)


FOREIGN = """
table inet foreign {
  set ports {
    type inet_service
    elements = { 80 }
  }
  chain prerouting {
    type nat hook prerouting priority -100
    tcp dport @ports accept
  }
  chain output-redirect {
    type filter hook output priority 0; policy accept
    counter
  }
}
table ip ambient-cni {
  chain output-redirect {
    type nat hook output priority 10
  }
}
table ip6 nat {
  chain OUTPUT {
    type nat hook output priority -90
  }
}
"""


def test_tables_of_others_stay_and_do_not_disturb(mesh, family):
    mesh.pod.nft(FOREIGN)
    before = listing(mesh.pod)
    mesh.apply()
    assert redirect.difference(mesh.pod) == ""
    assert mesh.leave(SERVER[family], 80).at == "outbound" and mesh.enter(POD[family], APPLICATION).at == "inbound"
    # They change while ours stand.
    mesh.pod.nft("add rule inet foreign output-redirect accept\ndelete table ip6 nat")
    assert redirect.difference(mesh.pod) == ""
    mesh.pod.nft("flush ruleset")
    mesh.pod.nft(FOREIGN)
    assert redirect.difference(mesh.pod) == "table inet ambient-cni is missing"
    mesh.apply()
    assert redirect.difference(mesh.pod) == ""
    redirect.remove(mesh.pod)
    assert listing(mesh.pod) == before


def test_rules_and_routes_of_others_stay(pod_alone):
    pod_alone.ip("link set lo up\nrule add fwmark 0x111/0xfff lookup 101 pref 32763\nrule add from 10.0.0.0/8 lookup 100 pref 100\n"
                 "route add local 192.0.2.0/24 dev lo table 100\n")
    pod_alone.run("ip", "-6", "rule", "add", "fwmark", "0x200", "lookup", "100", "pref", "32764")

    def standing():
        return [pod_alone.run("ip", flag, *words) for flag in ("-4", "-6")
                for words in (("rule",), ("route", "show", "table", "all"))]

    before = standing()
    for _ in range(2):
        redirect.apply(pod_alone)
        assert redirect.difference(pod_alone) == ""
    redirect.remove(pod_alone)
    assert standing() == before


def test_remove_takes_everything_and_only_once(pod_alone):
    pod_alone.ip("link set lo up\n")

    def standing():
        return (listing(pod_alone), *(pod_alone.run("ip", flag, *words) for flag in ("-4", "-6")
                                      for words in (("rule",), ("route", "show", "table", "all"))))

    before = standing()
    redirect.remove(pod_alone)
    assert standing() == before
    for stage in (redirect.apply, redirect.guard):
        stage(pod_alone)
        assert standing() != before
        redirect.remove(pod_alone)
        redirect.remove(pod_alone)
        assert standing() == before


def test_removing_the_redirects_only(mesh, family):
    mesh.apply()
    mesh.guard()
    assert redirect.difference(mesh.pod, "guard") == ""
    assert mesh.leave(SERVER[family], 80).at == "peer"
    assert mesh.leave(SERVER[family], 53).at == "peer"
    assert ask(mesh, SERVER[family]) == "peer"
    assert mesh.enter(POD[family], APPLICATION).at == "application"
    assert mesh.reach_application_as(CLIENT[family]).talks()


def test_each_outcome_is_counted(mesh, family):
    mesh.apply(virtualInterfaces=["eth1"], exclude={"outboundPorts": [81], "inboundPorts": [82], "outboundRanges": []})
    assert redirect.counted(mesh.pod) == {}
    outcomes = [
        ("inbound", lambda: mesh.enter(POD[family], APPLICATION)),
        ("outbound", lambda: mesh.leave(SERVER[family], 80)),
        ("dns", lambda: mesh.leave(SERVER[family], 53)),
        ("dns", lambda: ask(mesh, SERVER[family])),
        ("virtual-interface", lambda: mesh.enter(POD_SECOND[family], APPLICATION)),
        ("hbone", lambda: mesh.enter(POD[family], HBONE)),
        ("probe", lambda: mesh.enter(POD[family], APPLICATION, source=PROBE[family])),
        ("excluded", lambda: mesh.leave(SERVER[family], 81)),
        ("excluded", lambda: mesh.enter(POD[family], 82)),
        ("guard", lambda: mesh.leave(POD[family], INBOUND)),
    ]
    expected = {}
    for outcome, packet in outcomes:
        packet()
        expected[outcome] = expected.get(outcome, 0) + 1
        assert redirect.counted(mesh.pod) == expected
    # What flows on a connection is not counted again.
    arrival = mesh.leave(SERVER[family], 80)
    expected["outbound"] += 1
    assert all(arrival.talks() for _ in range(3))
    assert redirect.counted(mesh.pod) == expected


def test_counters_of_a_namespace_without_rules(pod_alone):
    assert redirect.counted(pod_alone) == {}
    pod_alone.nft("table inet foreign {\n chain c {\n type filter hook output priority 0\n counter accept comment \"dns: udp\"\n }\n}\n")
    assert redirect.counted(pod_alone) == {}
