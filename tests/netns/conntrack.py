"""What conntrack knows in a namespace, as conntrack(8) prints it."""
import re
import time
from dataclasses import dataclass


@dataclass
class Flow:
    protocol: str
    original: tuple  # source address, destination address, source port, destination port
    reply: tuple
    mark: int
    zone: int
    unreplied: bool


def flows(namespace, protocol=None):
    found = []
    for family in ("ipv4", "ipv6"):
        text = namespace.run("conntrack", "-L", "-f", family, *(("-p", protocol) if protocol else ()))
        for line in text.splitlines():
            pairs = re.findall(r"(\w+)=(\S+)", line)
            ends = [value for key, value in pairs if key in ("src", "dst", "sport", "dport")]
            if len(ends) != 8:
                continue  # ICMP
            other = dict(pairs)
            tuples = [(a, b, int(c), int(d)) for a, b, c, d in (ends[:4], ends[4:])]
            found.append(Flow(line.split()[0], tuples[0], tuples[1], int(other.get("mark", 0)), int(other.get("zone", 0)),
                              "[UNREPLIED]" in line))
    return found


def find(namespace, source_port, protocol="tcp", patience=2.0):
    """The flows whose first packet came from this port; waits for the first."""
    deadline = time.monotonic() + patience
    while True:
        matching = [flow for flow in flows(namespace, protocol) if flow.original[2] == source_port]
        if matching or time.monotonic() > deadline:
            return matching


def flush(namespace):
    namespace.run("conntrack", "-F")
