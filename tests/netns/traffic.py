"""Real packets: who gets a connection or a datagram, where it was meant to go, and single segments put on a device.

Nothing here waits for a fixed time: a look at the sockets ends as soon as one of them has something to say."""
import contextlib
import errno
import select
import socket
import struct
import time
from dataclasses import dataclass, field

SO_ORIGINAL_DST = 80
SO_MARK = 36
IP_TRANSPARENT = 19
IP_FREEBIND = 15
IPV6_TRANSPARENT = 75
IPV6_FREEBIND = 78
SO_BINDTODEVICE = 25

PATIENCE = 2.0  # seconds; passes only where a test is about to fail, or where silence is what is expected
SILENCE = 0.1

REFUSED = "refused"
SILENT = "silent"


def family_of(address):
    return 6 if ":" in address else 4


def domain_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def plain(address):
    """An IPv4 address that a dual-stack socket reports as a mapped one."""
    return address[7:] if address.startswith("::ffff:") and "." in address else address.split("%")[0]


def original_destination(connection):
    """The address and port that the client meant, as the tunnel reads it."""
    if "." in connection.getsockname()[0]:
        _, port, address = struct.unpack("!HH4s8x", connection.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16))
        return socket.inet_ntop(socket.AF_INET, address), port
    _, port, _, address = struct.unpack("!HHI16s4x", connection.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, 28))
    return socket.inet_ntop(socket.AF_INET6, address), port


def make_socket(namespace, address, kind=socket.SOCK_STREAM, mark=None, device=None, transparent=False):
    with namespace:
        sock = socket.socket(domain_of(address), kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if mark is not None:
        sock.setsockopt(socket.SOL_SOCKET, SO_MARK, struct.pack("I", mark))
    if device is not None:
        sock.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, device.encode())
    if transparent:
        if sock.family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
            sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
        else:
            sock.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
            sock.setsockopt(socket.SOL_IP, IP_FREEBIND, 1)
    return sock


def abort(sock):
    """Closes with a reset: no FIN handshake, no TIME_WAIT."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


@dataclass
class Arrival:
    """A connection at one of the listeners. Two are equal when they arrived at the same listener with the same original
    destination; the sockets are there for more questions."""
    at: str
    original: tuple
    source: tuple = field(compare=False, default=None)
    client: socket.socket = field(compare=False, repr=False, default=None)
    server: socket.socket = field(compare=False, repr=False, default=None)

    def close(self):
        for sock in (self.client, self.server):
            if sock is not None:
                abort(sock)

    def talks(self):
        """Sends a byte each way; False when the connection is broken."""
        return talks(self.client, self.server)


def talks(client, server, patience=PATIENCE):
    try:
        for sender, receiver, byte in ((client, server, b"?"), (server, client, b"!")):
            sender.send(byte)
            receiver.settimeout(patience)
            if receiver.recv(1) != byte:
                return False
    except OSError:
        return False
    return True


class Listeners:
    """All TCP listeners of a node, by label; says which of them a connection reaches."""

    def __init__(self):
        self.sockets = {}
        self.poll = select.epoll()
        self.labels = {}

    def add(self, label, namespace, address, port, backlog=64, **options):
        sock = make_socket(namespace, address, **options)
        if sock.family == socket.AF_INET6 and address == "::":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind((address, port))
        sock.listen(backlog)
        sock.setblocking(False)
        self.labels[sock.fileno()] = label
        self.sockets[sock.fileno()] = sock
        self.poll.register(sock.fileno(), select.EPOLLIN)
        return sock

    def close(self):
        self.poll.close()
        for sock in self.sockets.values():
            sock.close()

    def reach(self, namespace, address, port, source=None, source_port=0, patience=PATIENCE, **options):
        """Connects, and returns the Arrival, REFUSED (a reset answered the SYN) or SILENT (nothing did)."""
        client = make_socket(namespace, address, **options)
        if source is not None or source_port:
            client.bind((source or ("::" if ":" in address else "0.0.0.0"), source_port))
        client.setblocking(False)
        result = client.connect_ex((address, port))
        if result not in (0, errno.EINPROGRESS):
            client.close()
            if result == errno.ECONNREFUSED:
                return REFUSED
            raise OSError(result, f"connect to {address} port {port}: {errno.errorcode[result]}")
        return self.follow(client, patience)

    def follow(self, client, patience=PATIENCE):
        local_port = client.getsockname()[1]
        deadline = time.monotonic() + patience
        self.poll.register(client.fileno(), select.EPOLLERR | select.EPOLLHUP)
        try:
            while True:
                events = self.poll.poll(max(0, deadline - time.monotonic()))
                if not events:
                    client.close()
                    return SILENT
                for fd, _ in events:
                    if fd == client.fileno():
                        number = client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                        client.close()
                        return REFUSED if number == errno.ECONNREFUSED else errno.errorcode.get(number, number)
                    try:
                        server, source = self.sockets[fd].accept()
                    except BlockingIOError:
                        continue
                    if source[1] != local_port:
                        abort(server)  # a straggler of an earlier connection
                        continue
                    arrival = Arrival(self.labels[fd], original_destination_or_own(server), (plain(source[0]), source[1]),
                                      client, server)
                    return arrival
        finally:
            if client.fileno() >= 0:
                self.poll.unregister(client.fileno())


def original_destination_or_own(connection):
    try:
        return original_destination(connection)
    except OSError as error:
        if error.errno != errno.ENOENT:  # conntrack does not follow this connection: nobody redirected it
            raise
        name = connection.getsockname()
        return plain(name[0]), name[1]


def send_datagram(namespace, address, port, payload=b"query", **options):
    """Sends from a new socket, which is returned."""
    source, source_port = options.pop("source", None), options.pop("source_port", 0)
    sock = make_socket(namespace, address, socket.SOCK_DGRAM, **options)
    if source is not None or source_port:
        sock.bind((source or ("::" if ":" in address else "0.0.0.0"), source_port))
    sock.sendto(payload, (address, port))
    return sock


def open_datagram(namespace, address, port, **options):
    sock = make_socket(namespace, address, socket.SOCK_DGRAM, **options)
    if address == "::":
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind((address, port))
    return sock


def receive(sock, patience=PATIENCE):
    """(payload, (address, port)) or SILENT."""
    sock.settimeout(patience)
    try:
        payload, source = sock.recvfrom(2048)
    except (TimeoutError, BlockingIOError):
        return SILENT
    return payload, (plain(source[0]), source[1])


def _checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


SYN = 0x02
ACK = 0x10


def segment(source, source_port, destination, port, flags=SYN):
    """An IP packet with one TCP segment, checksums included."""
    domain = domain_of(source)
    ends = socket.inet_pton(domain, source) + socket.inet_pton(domain, destination)

    def tcp(checksum):
        return struct.pack("!HHIIBBHHH", source_port, port, 1000, 1 if flags & ACK else 0, 5 << 4, flags, 65535, checksum, 0)

    if domain == socket.AF_INET:
        pseudo = ends + struct.pack("!BBH", 0, socket.IPPROTO_TCP, 20)

        def header(checksum):
            return struct.pack("!BBHHHBBH", 0x45, 0, 40, 1, 0, 64, socket.IPPROTO_TCP, checksum) + ends

        return header(_checksum(header(0))) + tcp(_checksum(pseudo + tcp(0)))
    pseudo = ends + struct.pack("!IHBB", 20, 0, 0, socket.IPPROTO_TCP)
    return struct.pack("!IHBB", 6 << 28, 20, socket.IPPROTO_TCP, 64) + ends + tcp(_checksum(pseudo + tcp(0)))


def inject(namespace, device, packet, mark=0, hardware_address=bytes(6)):
    """Puts an IP packet on a device as it is. On lo it enters the namespace like one from outside: conntrack has not seen
    it on its way out, and it keeps its mark."""
    protocol = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
    with namespace:
        sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        with sock:
            sock.setsockopt(socket.SOL_SOCKET, SO_MARK, struct.pack("I", mark))
            sock.sendto(packet, (device, protocol, 0, 0, hardware_address))


def answers_echo(namespace, address, patience=PATIENCE):
    """Whether an ICMP echo request is answered."""
    domain = domain_of(address)
    with namespace:
        sock = socket.socket(domain, socket.SOCK_RAW,
                             socket.IPPROTO_ICMPV6 if domain == socket.AF_INET6 else socket.IPPROTO_ICMP)
    with sock:
        request, answer = (128, 129) if domain == socket.AF_INET6 else (8, 0)
        packet = struct.pack("!BBHHH", request, 0, 0, 4711, 1)
        if domain == socket.AF_INET:  # for IPv6 the kernel does it
            packet = struct.pack("!BBHHH", request, 0, _checksum(packet), 4711, 1)
        sock.sendto(packet, (address, 0))
        deadline = time.monotonic() + patience
        while (left := deadline - time.monotonic()) > 0:
            sock.settimeout(left)
            try:
                packet = sock.recv(2048)
            except TimeoutError:
                return False
            if domain == socket.AF_INET:
                packet = packet[20:]
            if packet[0] == answer and packet[4:8] == struct.pack("!HH", 4711, 1):
                return True
    return False
