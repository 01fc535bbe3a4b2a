"""Clients whose connections are watched: one that stays open, and a stream of new ones, each in a thread of its own that makes
its sockets inside a namespace."""
import contextlib
import socket
import struct
import threading
import time

from machine import inside

PATIENCE = 3.0  # seconds; an answer that takes longer is a loss


def family_of(address):
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def connect(netns, address, port, source=None):
    with inside(netns):
        sock = socket.socket(family_of(address))
    sock.settimeout(PATIENCE)
    try:
        if source:
            sock.bind((source, 0))
        sock.connect((address, port))
    except BaseException:
        sock.close()
        raise
    return sock


def ask(sock, text="hello"):
    """Sends a line and returns the line that comes back."""
    sock.sendall(text.encode() + b"\n")
    answer = b""
    while not answer.endswith(b"\n"):
        data = sock.recv(4096)
        if not data:
            raise ConnectionError("closed by the other side")
        answer += data
    return answer.decode().strip()


def ask_once(netns, address, port, source=None):
    """A connection for one line. Returns the answer and the client's own (address, port)."""
    with connect(netns, address, port, source) as sock:
        return ask(sock), list(sock.getsockname()[:2])


def ask_name(netns, server, is_tcp, name="shop.example"):
    """One DNS query. Returns the first address of the answer; None when none came. The socket is connected: an answer from any
    other address than the server's is not taken."""
    question = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0" + struct.pack("!HH", 1, 1)
    query = struct.pack("!HHHHHH", 0x1337, 0x0100, 1, 0, 0, 0) + question
    with inside(netns):
        sock = socket.socket(family_of(server), socket.SOCK_STREAM if is_tcp else socket.SOCK_DGRAM)
    with sock, contextlib.suppress(OSError):
        sock.settimeout(PATIENCE)
        sock.connect((server, 53))
        sock.sendall(struct.pack("!H", len(query)) + query if is_tcp else query)
        answer = sock.recv(4096)
        if is_tcp:
            answer = answer[2:]
        if answer[:2] == query[:2]:
            return socket.inet_ntoa(answer[-4:])
    return None


class Conversation(threading.Thread):
    """One connection over which a line goes back and forth every 10 ms."""

    def __init__(self, name, netns, address, port):
        super().__init__(daemon=True)
        self.label = name
        self.sock = connect(netns, address, port)
        self.source, self.destination = list(self.sock.getsockname()[:2]), [address, port]
        self.lines, self.longest, self.failure = 0, 0.0, None
        self.is_stopping = threading.Event()
        self.start()

    def run(self):
        last = time.monotonic()
        with self.sock:
            try:
                while not self.is_stopping.wait(0.01):
                    ask(self.sock)
                    now = time.monotonic()
                    self.lines, self.longest, last = self.lines + 1, max(self.longest, now - last), now
            except OSError as error:
                self.failure = str(error)

    def wait_for_lines(self, count, timeout=PATIENCE):
        """Whether so many more lines came."""
        wanted, deadline = self.lines + count, time.monotonic() + timeout
        while self.lines < wanted and self.failure is None and time.monotonic() < deadline:
            time.sleep(0.005)
        return self.lines >= wanted

    def stop(self):
        self.is_stopping.set()
        self.join()


class Stream(threading.Thread):
    """A new connection every few milliseconds, one line each."""

    def __init__(self, netns, address, port, interval=0.005):
        super().__init__(daemon=True)
        self.netns, self.address, self.port, self.interval = netns, address, port, interval
        self.opened, self.lost, self.longest, self.failures = 0, 0, 0.0, []
        self.is_stopping = threading.Event()
        self.start()

    def run(self):
        while not self.is_stopping.wait(self.interval):
            started = time.monotonic()
            self.opened += 1
            try:
                ask_once(self.netns, self.address, self.port)
                self.longest = max(self.longest, time.monotonic() - started)
            except OSError as error:
                self.lost += 1
                self.failures.append(str(error))

    def wait_for(self, count, timeout=30):
        wanted, deadline = self.opened + count, time.monotonic() + timeout
        while self.opened < wanted and time.monotonic() < deadline:
            time.sleep(0.01)

    def stop(self):
        self.is_stopping.set()
        self.join()
