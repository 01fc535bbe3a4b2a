"""A pod with an AWS branch interface (security groups for pods, strict mode): what the host sends it goes out to the VPC and
comes back by the pod's VLAN, and so do the answers. A probe's address is known on this host only: without rules of ours the
probe is lost in the VPC, which here takes everything and answers nothing.

    pod  10.0.5.7, .8 2001:db8:5::7, ::8  ----  pod1  host  eth0 10.0.0.1 2001:db8::1, branch1  ----  vpc
"""
import json
import subprocess
import time

import pytest

from netns.namespace import Namespace
from netns.traffic import SILENT, Arrival, Listeners

from .host import BUILD, PROBE, TOOL

AWS_TOOL = BUILD / "tests" / "aws_branch_eni_tool"
POD = {4: "10.0.5.7", 6: "2001:db8:5::7"}
SECOND = {4: "10.0.5.8", 6: "2001:db8:5::8"}
PORT = 8080


def wait_for_links(namespace):
    """The kernel takes a carrier up a moment after a link was set up, and what is sent before is lost."""
    deadline = time.monotonic() + 20
    while states := {link["ifname"]: link["operstate"] for link in json.loads(namespace.run("ip", "-json", "link"))
                     if link["ifname"] != "lo" and link["operstate"] != "UP"}:
        assert time.monotonic() < deadline, f"links are not up: {states}"
        time.sleep(0.01)


class Aws:
    def __init__(self):
        self.host, self.pod, self.vpc = Namespace(), Namespace(), Namespace()
        for namespace in (self.host, self.pod, self.vpc):
            namespace.prepare(reverse_path=2)
        self.host.sysctl("net.ipv4.ip_forward", 1)
        self.host.sysctl("net.ipv6.conf.all.forwarding", 1)
        self.host.sysctl("net.ipv4.tcp_early_demux", 0)
        self.host.ip(f"""
link set lo up
link add pod1 address 02:00:00:00:00:01 type veth peer name eth0 netns {self.pod.path}
link add eth0 type veth peer name eth0 address 02:00:00:00:00:02 netns {self.vpc.path}
link add branch1 type veth peer name branch1 address 02:00:00:00:00:03 netns {self.vpc.path}
""")
        self.vpc.ip("link set eth0 up\nlink set branch1 up\n")
        self.pod.ip("link set lo up\nlink set eth0 address 02:00:00:00:00:07\nlink set eth0 up\n")
        host = """
link set pod1 up
link set eth0 up
link set branch1 up
addr add 10.0.0.1/24 dev eth0
addr add 2001:db8::1/64 dev eth0 nodad
neigh add 10.0.0.254 lladdr 02:00:00:00:00:02 dev eth0
neigh add fe80::fe lladdr 02:00:00:00:00:02 dev eth0
neigh add 10.0.5.1 lladdr 02:00:00:00:00:03 dev branch1
neigh add fe80::fe lladdr 02:00:00:00:00:03 dev branch1
neigh add 10.0.5.7 lladdr 02:00:00:00:00:07 dev pod1
neigh add 10.0.5.8 lladdr 02:00:00:00:00:07 dev pod1
neigh add 2001:db8:5::7 lladdr 02:00:00:00:00:07 dev pod1
neigh add 2001:db8:5::8 lladdr 02:00:00:00:00:07 dev pod1
route add default via 10.0.0.254 dev eth0
route add default via fe80::fe dev eth0
route add 10.0.5.7 dev pod1 table 101
route add 10.0.5.8 dev pod1 table 101
route add 2001:db8:5::7 dev pod1 table 101
route add 2001:db8:5::8 dev pod1 table 101
route add 10.0.5.1 dev branch1 table 101
route add default via 10.0.5.1 dev branch1 onlink table 101
route add default via fe80::fe dev branch1 table 101
"""
        for family in ("-4", "-6"):
            self.host.run("ip", family, "rule", "add", "lookup", "local", "pref", "20")
            self.host.run("ip", family, "rule", "del", "lookup", "local", "pref", "0")
            for device in ("branch1", "pod1"):
                self.host.run("ip", family, "rule", "add", "iif", device, "lookup", "101", "pref", "10")
        self.host.ip(host)
        self.pod.ip("""
addr add 10.0.5.7/32 dev eth0
addr add 10.0.5.8/32 dev eth0
addr add 2001:db8:5::7/128 dev eth0 nodad
addr add 2001:db8:5::8/128 dev eth0 nodad
neigh add 169.254.1.1 lladdr 02:00:00:00:00:01 dev eth0
neigh add fe80::1 lladdr 02:00:00:00:00:01 dev eth0
route add 169.254.1.1 dev eth0
route add default via 169.254.1.1 dev eth0
route add default via fe80::1 dev eth0
""")
        for namespace in (self.host, self.pod, self.vpc):
            wait_for_links(namespace)
        self.listeners = Listeners()
        self.listeners.add("application", self.pod, "::", PORT)

    def close(self):
        self.listeners.close()
        for namespace in (self.host, self.pod, self.vpc):
            namespace.close()

    def probe(self, address):
        """The address that the application sees, or SILENT."""
        arrival = self.listeners.reach(self.host, address, PORT, patience=0.3)
        if not isinstance(arrival, Arrival):
            return arrival
        assert arrival.talks()
        arrival.close()
        return arrival.source[0]

    def run(self, *command):
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command[0]}: exit status {done.returncode}: {done.stderr}"


@pytest.fixture
def aws():
    aws = Aws()
    yield aws
    aws.close()


def test_probes_of_a_pod_with_a_branch_interface(aws, family):
    aws.run(TOOL, "put", aws.host.path, *POD.values())
    assert aws.probe(POD[family]) == SILENT
    aws.run(AWS_TOOL, "add", aws.host.path, *POD.values())
    assert aws.probe(POD[family]) == PROBE[family]
    aws.run(AWS_TOOL, "remove", aws.host.path, *POD.values())
    assert aws.probe(POD[family]) == SILENT


def test_an_address_goes_and_the_pods_other_one_is_probed_still(aws, family):
    """In each family its own."""
    both = (*POD.values(), *SECOND.values())
    aws.run(TOOL, "put", aws.host.path, *both)
    aws.run(AWS_TOOL, "add", aws.host.path, *both)
    assert aws.probe(POD[family]) == aws.probe(SECOND[family]) == PROBE[family]
    aws.run(AWS_TOOL, "remove", aws.host.path, SECOND[family])
    assert aws.probe(SECOND[family]) == SILENT
    assert [aws.probe(address) for address in POD.values()] == [PROBE[number] for number in POD]
