"""A node with everything that listens on it, and the words that tests are written in.

Listeners, by the label that an arrival bears:
    application   in the pod, TCP 8080 (and every port that a test adds)
    inbound, outbound, hbone, dns   the tunnel's in the pod
    peer          outside: every address, every TCP port
"""
from . import node as places
from . import redirect
from .node import Node
from .traffic import PATIENCE, Arrival, Listeners
from .tunnel import MARK, add_tunnel

APPLICATION_PORT = 8080


class Mesh:
    def __init__(self, ipv6=True, application_ports=(APPLICATION_PORT,), **redirection):
        self.node = Node(ipv6=ipv6)
        self.pod, self.peer = self.node.pod, self.node.peer
        self.listeners = Listeners()
        self.wildcard = "::" if ipv6 else "0.0.0.0"
        self.dns = add_tunnel(self.listeners, self.node)
        for port in application_ports:
            self.listen_in_pod(port)
        self.listeners.add("peer", self.peer, self.wildcard, places.ANY_PORT)
        self.kept = []
        self.patience = PATIENCE  # until a connection that nobody answers is silent
        if redirection:
            self.apply(**redirection)

    def close(self):
        for arrival in self.kept:
            arrival.close()
        for sock in self.dns.values():
            sock.close()
        self.listeners.close()
        self.node.close()

    def listen_in_pod(self, port):
        self.listeners.add("application", self.pod, self.wildcard, port)

    def apply(self, **redirection):
        redirect.apply(self.pod, **redirection)

    def guard(self, **redirection):
        redirect.guard(self.pod, **redirection)

    def _reach(self, namespace, address, port, **options):
        arrival = self.listeners.reach(namespace, address, port, **{"patience": self.patience, **options})
        if isinstance(arrival, Arrival):
            self.kept.append(arrival)
        return arrival

    def leave(self, address, port, **options):
        """A connection from the pod: who gets it."""
        return self._reach(self.pod, address, port, **options)

    def enter(self, address, port, **options):
        """A connection from the peer: who gets it."""
        return self._reach(self.peer, address, port, **options)

    def reach_application_as(self, source, family=None, port=APPLICATION_PORT, **options):
        """The tunnel connects to the application from the client's own address, as it does for every request."""
        address = places.POD[family or (6 if ":" in source else 4)]
        return self._reach(self.pod, address, port, source=source, mark=MARK, transparent=True, **options)


def at(label, address, port):
    """What is expected of a connection: where it arrives, and its original destination."""
    return Arrival(label, (address, port))
