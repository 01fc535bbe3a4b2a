"""Every TCP packet that leaves a pod, seen from outside: at the node's end of the pod's veth. The tunnel's packets have its traffic
class (peers/tunnel.py), an application's have none.

A connection is judged by its first packet here: the SYN of one that the pod opens, the SYN-ACK of one that it accepts. When
the SYN came that it answers is told too: that may be a second ago. What follows belongs to it. A packet of a connection whose
beginning was never seen left the tunnel in the middle."""
import collections
import ctypes
import socket
import struct
import sys
import pathlib
import threading

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from peers.tunnel import TRAFFIC_CLASS  # noqa: E402

ETH_P_ALL, PACKET_OUTGOING = 3, 4
SO_TIMESTAMPNS, SO_ATTACH_FILTER, SOL_PACKET, PACKET_STATISTICS, SO_RCVBUFFORCE = 35, 26, 263, 6, 33
FIN, SYN, RST, ACK = 1, 2, 4, 16

Packet = collections.namedtuple("Packet", "time interface source sport destination dport flags sequence acknowledged marked length asked",
                                defaults=[None])  # asked: when the SYN came that it answers

# TCP over IPv4 or IPv6 (without extension headers: our programs send none) that comes in at an interface, and the SYNs that go out to
# a pod; the first 120 bytes.
FILTER = [
    (0x20, 0, 0, 0xfffff004),       # 0  load packet type
    (0x02, 0, 0, 0),                # 1  remember it
    (0x28, 0, 0, 12),               # 2  load ethertype
    (0x15, 0, 5, 0x0800),           # 3  == IPv4, else 9
    (0x30, 0, 0, 23),               # 4  load protocol
    (0x15, 0, 14, 6),               # 5  == TCP, else 20
    (0xb1, 0, 0, 14),               # 6  length of the IP header
    (0x50, 0, 0, 27),               # 7  load TCP flags
    (0x05, 0, 0, 4),                # 8  13
    (0x15, 0, 10, 0x86dd),          # 9  == IPv6, else 20
    (0x30, 0, 0, 20),               # 10 load next header
    (0x15, 0, 8, 6),                # 11 == TCP, else 20
    (0x30, 0, 0, 67),               # 12 load TCP flags
    (0x54, 0, 0, 18),               # 13 SYN and ACK
    (0x07, 0, 0, 0),                # 14 kept
    (0x60, 0, 0, 0),                # 15 packet type
    (0x15, 0, 2, PACKET_OUTGOING),  # 16 == outgoing, else 19
    (0x87, 0, 0, 0),                # 17 flags
    (0x15, 0, 1, 2),                # 18 == SYN alone, else 20
    (0x06, 0, 0, 120),              # 19
    (0x06, 0, 0, 0)]                # 20 nothing


class _Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("filter", ctypes.c_void_p)]


def _attach(sock):
    code = b"".join(struct.pack("=HBBI", *instruction) for instruction in FILTER)
    buffer = ctypes.create_string_buffer(code)
    program = _Program(len(FILTER), ctypes.addressof(buffer))
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, bytes(program))


def parse(time, interface, data):
    """None: no TCP packet."""
    kind = data[12:14]
    if kind == b"\x08\x00":
        at, marked = 14 + (data[14] & 15) * 4, data[15] & 0xfc == TRAFFIC_CLASS & 0xfc
        source, destination = socket.inet_ntop(socket.AF_INET, data[26:30]), socket.inet_ntop(socket.AF_INET, data[30:34])
        length = struct.unpack_from("!H", data, 16)[0] - (at - 14)
    elif kind == b"\x86\xdd":
        at, marked = 54, (data[14] << 4 | data[15] >> 4) & 0xfc == TRAFFIC_CLASS & 0xfc
        source, destination = socket.inet_ntop(socket.AF_INET6, data[22:38]), socket.inet_ntop(socket.AF_INET6, data[38:54])
        length = struct.unpack_from("!H", data, 18)[0]
    else:
        return None
    if len(data) < at + 20:
        return None
    sport, dport, sequence, acknowledged = struct.unpack_from("!HHII", data, at)
    return Packet(time, interface, source, sport, destination, dport, data[at + 13], sequence, acknowledged, marked,
                  length - (data[at + 12] >> 4) * 4)


class Wire:
    """`judge(packet, is_first, opens)` is called for each packet of an interface that is watched (`interfaces`, by name), in a thread of its
    own. is_first: the beginning of a connection; None: it was never seen to begin. opens: the pod opens it (else it accepts)."""

    def __init__(self, host, interfaces, judge):
        self.interfaces, self.judge = interfaces, judge
        self.begun = {}   # connection as the pod sees it: the sequence number of its first packet
        self.asked = {}   # the same, of those that others open: the sequence number of their SYN, and when it came first
        self.seen, self.lost, self.failure = 0, 0, None
        with host:
            self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self.sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        self.sock.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        _attach(self.sock)
        self.sock.settimeout(0.1)
        self.is_ended = False
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self):
        try:
            while not self.is_ended:
                try:
                    data, control, _, address = self.sock.recvmsg(128, 64)
                except socket.timeout:
                    continue
                interface = address[0]
                if interface not in self.interfaces:
                    continue
                seconds, nanoseconds = struct.unpack("=qq", control[0][2][:16])
                packet = parse(seconds + nanoseconds / 1e9, interface, data)
                if packet and address[2] == PACKET_OUTGOING:
                    key = interface, packet.destination, packet.dport, packet.source, packet.sport
                    if key not in self.asked or self.asked[key][0] != packet.sequence:
                        self.asked[key] = packet.sequence, packet.time
                elif packet:
                    self.seen += 1
                    self._look(packet)
        except Exception as error:
            self.failure = error
            raise

    def _look(self, packet):
        key = packet.interface, packet.source, packet.sport, packet.destination, packet.dport
        if packet.flags & SYN:
            is_first = self.begun.get(key) != packet.sequence
            self.begun[key] = packet.sequence
            sequence, when = self.asked.get(key, (None, None))
            if packet.flags & ACK and sequence is not None and (sequence + 1) % 2**32 == packet.acknowledged:
                packet = packet._replace(asked=when)
        else:
            is_first = False if key in self.begun else None
        self.judge(packet, is_first, not packet.flags & ACK)

    def end(self):
        self.is_ended = True
        self.thread.join()
        _, self.lost = struct.unpack("=II", self.sock.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        self.sock.close()
