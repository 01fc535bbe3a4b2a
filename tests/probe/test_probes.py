"""What reaches an enrolled pod from where: only what a local socket of the host opens directly bears the probe address."""
import subprocess
import sys

from netns import conntrack
from netns.traffic import answers_echo, open_datagram, receive, send_datagram, talks

from .conftest import PORT
from .host import HOST, OTHER, POD, POD_SECOND, PROBE, SERVICE, TABLE


def test_a_local_socket_is_a_probe(probes, family):
    assert probes.source(probes.host, POD[family]) == HOST[family]
    probes.place.enrol(POD[family])
    assert probes.source(probes.host, POD[family]) == PROBE[family]


def test_of_any_user(probes, family):
    probes.place.enrol(POD[family])
    listener, = probes.listeners.sockets.values()
    program = f"import socket; socket.create_connection(({POD[family]!r}, {PORT}), 5).recv(1)"
    with probes.host:
        client = subprocess.Popen([sys.executable, "-S", "-c", program], user=12345, group=12345, extra_groups=[])
    listener.setblocking(True)
    listener.settimeout(5)
    connection, source = listener.accept()
    connection.close()
    assert client.wait(5) == 0
    assert source[0].removeprefix("::ffff:") == PROBE[family]


def test_forwarded_connections_are_not(probes, family):
    probes.place.enrol(POD[family])
    assert probes.source(probes.other, POD[family]) == OTHER[family]


def test_other_addresses_are_not(probes, family):
    probes.place.enrol(POD[family])
    assert probes.source(probes.host, POD_SECOND[family]) == HOST[family]


def test_the_families_are_told_apart(probes):
    probes.place.enrol(POD[4])
    assert probes.source(probes.host, POD[4]) == PROBE[4]
    assert probes.source(probes.host, POD[6]) == HOST[6]


def test_a_service_is_no_probe(probes, family):
    """A local socket that goes to a Service's address, which the host translates to the pod."""
    probes.place.enrol(POD[family])
    word = "ip" if family == 4 else "ip6"
    target = f"{POD[family]}:{PORT}" if family == 4 else f"[{POD[family]}]:{PORT}"
    probes.host.ip(f"route add {SERVICE[family]} dev other\n")
    probes.host.nft(f"""
table {word} service {{
  chain output {{
    type nat hook output priority -100
    {word} daddr {SERVICE[family]} tcp dport 80 dnat to {target}
  }}
}}
""")
    source = probes.source(probes.host, SERVICE[family], 80)
    assert source != PROBE[family]
    assert probes.source(probes.host, POD[family]) == PROBE[family]


def test_the_rule_comes_before_masquerading(probes, family):
    word = "ip" if family == 4 else "ip6"
    probes.host.nft(f"""
table {word} nat {{
  chain postrouting {{
    type nat hook postrouting priority srcnat
    masquerade
  }}
}}
""")
    probes.place.enrol(POD[family])
    assert probes.source(probes.host, POD[family]) == PROBE[family]
    assert probes.source(probes.other, POD[family]) == HOST[family]


def test_datagrams_and_echoes_are_left_alone(probes, family):
    probes.place.enrol(POD[family])
    server = open_datagram(probes.pod, POD[family], 9000)
    client = send_datagram(probes.host, POD[family], 9000)
    assert receive(server)[1][0] == HOST[family]
    server.close()
    client.close()
    assert answers_echo(probes.host, POD[family])


def test_open_connections_survive_the_rule(probes, family):
    """Conntrack was idle on the host when the connection opened: it meets it in the middle, and no SYN."""
    before = probes.connect(probes.host, POD[family])
    port = before.client.getsockname()[1]
    probes.place.enrol(POD[family])
    assert before.talks()
    flow, = conntrack.find(probes.host, port)
    assert flow.reply[1] == HOST[family], "the connection in the middle was translated"
    assert probes.source(probes.host, POD[family]) == PROBE[family]
    assert before.talks()


def test_an_open_connection_whose_pod_speaks_first(probes, family):
    before = probes.connect(probes.host, POD[family])
    probes.place.enrol(POD[family])
    assert talks(before.server, before.client)
    assert before.talks()


def test_probes_in_flight_survive_changes_of_the_set(probes, family):
    # A node has rules of others that keep conntrack and NAT at work: without any, the kernel would forget its translations
    # when our table goes.
    probes.host.nft("""
table inet other {
  chain forward { type filter hook forward priority 0; ct state invalid counter; }
  chain postrouting { type nat hook postrouting priority 100; ip daddr 192.0.2.1 masquerade; }
}
""")
    probes.place.enrol(POD[family])
    probe = probes.connect(probes.host, POD[family])
    probes.place.enrol_only(POD_SECOND[family])
    assert probe.talks()
    assert probes.source(probes.host, POD[family]) == HOST[family]
    assert probes.source(probes.host, POD_SECOND[family]) == PROBE[family]
    # The table is written anew.
    probes.host.nft(f"flush chain inet {TABLE} postrouting")
    probes.place.enrol(POD[family])
    assert probe.talks()
    probes.place.uninstall()
    assert probe.talks()
    assert probes.source(probes.host, POD[family]) == HOST[family]


def test_with_ipv6_off_ipv4_probes_work(probes):
    for namespace in (probes.host, probes.pod):
        namespace.sysctl("net.ipv6.conf.all.disable_ipv6", 1)
    probes.place.enrol(POD[4])
    assert probes.source(probes.host, POD[4]) == PROBE[4]
