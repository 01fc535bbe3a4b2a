"""A pod and what is around it: two namespaces joined by two veth pairs, dual stack.

    pod                                              peer: the host, other pods and the Internet
      eth0 10.88.0.2/24 fd88::2/64  ----------------   pod0 10.88.0.1/24 fd88::1/64   (default route of the pod)
      eth1 10.89.0.2/24 fd89::2/64  ----------------   pod1 10.89.0.1/24 fd89::1/64
                                                       lo   the host's probe addresses, and all of 198.51.100.0/24 and
                                                            2001:db8::/32 (every address, every TCP port answers)
"""
import ipaddress
import time

from .namespace import Namespace

PROBE = {4: "169.254.7.127", 6: "fd16:9254:7127:1337:ffff:ffff:ffff:ffff"}
OTHER_PROBE = {4: "169.254.9.9", 6: "fd16:9254:7127:1337::9"}
POD = {4: "10.88.0.2", 6: "fd88::2"}
PEER = {4: "10.88.0.1", 6: "fd88::1"}
POD_SECOND = {4: "10.89.0.2", 6: "fd89::2"}
PEER_SECOND = {4: "10.89.0.1", 6: "fd89::1"}
CLIENT = {4: "198.51.100.7", 6: "2001:db8::7"}
SERVER = {4: "198.51.100.80", 6: "2001:db8::80"}
OTHER_SERVER = {4: "198.51.100.200", 6: "2001:db8:0:200::1"}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}

ANY_PORT = 9  # where the peer takes every TCP connection


class Node:
    def __init__(self, ipv6=True):
        self.pod = Namespace()
        self.peer = Namespace()
        self.families = (4, 6) if ipv6 else (4,)
        for namespace in (self.pod, self.peer):
            namespace.prepare()
            for key in ("all", "default"):
                namespace.sysctl(f"net.ipv6.conf.{key}.disable_ipv6", 0 if ipv6 else 1)
        self.peer.ip(f"""
link set lo up
link add pod0 type veth peer name eth0 netns {self.pod.path}
link add pod1 type veth peer name eth1 netns {self.pod.path}
link set pod0 up
link set pod1 up
""")
        self.pod.ip("link set lo up\nlink set eth0 up\nlink set eth1 up\n")
        pod = "".join(self._address(address, device) for address, device in ((POD, "eth0"), (POD_SECOND, "eth1")))
        peer = "".join(self._address(address, device) for address, device in ((PEER, "pod0"), (PEER_SECOND, "pod1")))
        for family in self.families:
            pod += f"route add default via {PEER[family]}\n"
            for probe in (PROBE, OTHER_PROBE):
                peer += f"addr add {probe[family]} dev lo {'nodad' if family == 6 else ''}\n"
        peer += "route add local 198.51.100.0/24 dev lo\n"
        if ipv6:
            peer += "route add local 2001:db8::/32 dev lo\n"
        self.pod.ip(pod)
        self.peer.ip(peer)
        if ipv6:
            self._wait_for_local_routes(self.pod, (POD[6], POD_SECOND[6]))
            self._wait_for_local_routes(self.peer, (PEER[6], PEER_SECOND[6], PROBE[6], OTHER_PROBE[6]))
        self.peer.nft(f"""
table inet any-port {{
  chain prerouting {{
    type nat hook prerouting priority -100
    tcp dport != {ANY_PORT} redirect to :{ANY_PORT}
  }}
}}
""")

    def _address(self, address, device):
        lines = f"addr add {address[4]}/24 dev {device}\n"
        if 6 in self.families:
            lines += f"addr add {address[6]}/64 dev {device} nodad\n"
        return lines

    @staticmethod
    def _wait_for_local_routes(namespace, addresses):
        """A work queue of the kernel puts in the local route of an IPv6 address, a moment after the address itself: until
        then, a packet to that address leaves by the prefix route instead of being delivered."""
        wanted = {ipaddress.ip_address(address).exploded.replace(":", "") for address in addresses}
        deadline = time.monotonic() + 10
        while True:
            with namespace, open("/proc/thread-self/net/ipv6_route", encoding="ascii") as file:
                fields = [line.split() for line in file]
            # Flag 0x80000000: RTF_LOCAL.
            if wanted <= {row[0] for row in fields if row[1] == "80" and int(row[8], 16) & 0x80000000}:
                return
            assert time.monotonic() < deadline, f"no local routes for {addresses}"
            time.sleep(0.002)

    def close(self):
        self.pod.close()
        self.peer.close()
