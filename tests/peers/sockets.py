"""Sockets of applications in a pod's network namespace, for programs with an event loop."""
import socket

from .tunnel import inside


def socket_in(netns, family, kind=socket.SOCK_STREAM):
    with inside(netns):
        return socket.socket(family, kind | socket.SOCK_NONBLOCK)


def listen_in(netns, port):
    """In both families."""
    sock = socket_in(netns, socket.AF_INET6)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(("::", port))
    sock.listen(1024)
    return sock
