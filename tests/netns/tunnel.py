"""A double of the node tunnel inside a pod: its listeners, marked and transparent as the real one's are."""
import socket

from . import node as places
from .traffic import IPV6_TRANSPARENT, IP_TRANSPARENT, SO_MARK, Listeners, open_datagram

MARK = 0x539
CONNECTION_MARK = 0x111
OUTBOUND, INBOUND, HBONE, DNS = 15001, 15006, 15008, 15053


def add_tunnel(listeners, node):
    """Adds the tunnel's listeners: labels "outbound", "inbound", "hbone" and "dns". Returns the UDP DNS sockets by family."""
    pod = node.pod
    wildcard = "::" if 6 in node.families else "0.0.0.0"
    for label, port in (("outbound", OUTBOUND), ("inbound", INBOUND), ("hbone", HBONE)):
        listeners.add(label, pod, wildcard, port, mark=MARK, transparent=True)
    dns = {}
    for family in node.families:
        address = places.LOOPBACK[family]
        listeners.add("dns", pod, address, DNS, mark=MARK)
        dns[family] = open_datagram(pod, address, DNS, mark=MARK)
    return dns
