"""The kernel's own account of changes in a network namespace, with times; and a deletion that needs no program."""
import select
import socket
import struct
import threading
import time

NETLINK_ROUTE, NETLINK_NETFILTER = 0, 12
NFNLGRP_NFTABLES = 7
ROUTING_GROUPS = (1, 7, 8, 11, 19)  # link, routes and rules of both families
NFNL_SUBSYS_NFTABLES, NFT_MSG_DELTABLE, NFTA_TABLE_NAME = 10, 2, 1
NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END = 16, 17
NLM_F_REQUEST, NLM_F_ACK = 1, 4
NFPROTO_INET = 1


class Changes:
    """A context manager: `times` of every change of nftables, routes and rules in the meantime."""

    def __init__(self, *namespaces, routing=True):
        self.sockets, self.times = {}, []
        self.by_namespace = {number: [] for number in range(len(namespaces))}
        for number, namespace in enumerate(namespaces):
            with namespace:
                kinds = [(NETLINK_NETFILTER, (NFNLGRP_NFTABLES,))]
                if routing:
                    kinds.append((NETLINK_ROUTE, ROUTING_GROUPS))
                for protocol, groups in kinds:
                    sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, protocol)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
                    sock.bind((0, sum(1 << (group - 1) for group in groups)))
                    self.sockets[sock.fileno()] = sock, number
        self.poll = select.epoll()
        for fd in self.sockets:
            self.poll.register(fd, select.EPOLLIN)
        self.is_ended = False
        self.thread = threading.Thread(target=self.listen, daemon=True)

    def listen(self):
        while not self.is_ended:
            for fd, _ in self.poll.poll(0.05):
                now = time.monotonic()
                sock, number = self.sockets[fd]
                try:
                    while sock.recv(65536):
                        pass
                except BlockingIOError:
                    pass
                except OSError:  # more than the buffer holds: something changed all the same
                    pass
                self.times.append(now)
                self.by_namespace[number].append(now)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.is_ended = True
        self.thread.join()
        for sock, _ in self.sockets.values():
            sock.close()
        self.poll.close()


def message(kind, flags, sequence, body):
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body


def delete_table(namespace, name):
    """True: there was one."""
    attribute = struct.pack("=HH", 5 + len(name), NFTA_TABLE_NAME) + name.encode() + b"\0"
    attribute += b"\0" * (-len(attribute) % 4)
    batch = message(NFNL_MSG_BATCH_BEGIN, NLM_F_REQUEST, 1, struct.pack("!BBH", 0, 0, NFNL_SUBSYS_NFTABLES))
    batch += message(NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_DELTABLE, NLM_F_REQUEST | NLM_F_ACK, 2,
                     struct.pack("!BBH", NFPROTO_INET, 0, 0) + attribute)
    batch += message(NFNL_MSG_BATCH_END, NLM_F_REQUEST, 3, struct.pack("!BBH", 0, 0, NFNL_SUBSYS_NFTABLES))
    with namespace:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    with sock:
        sock.settimeout(5)
        sock.send(batch)
        answer = sock.recv(4096)
        return struct.unpack_from("=i", answer, 16)[0] == 0
