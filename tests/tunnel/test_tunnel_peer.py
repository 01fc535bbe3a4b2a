"""The tunnel's server against peers that break the protocol: the connection goes, the server and everybody else stay."""
import array
import os
import socket
import subprocess
import time

import pytest

HELLO, ACK = b"\x08\x01", b"\x0a\x00"


class Peer:
    """A raw socket."""

    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.sock.settimeout(10)
        self.sock.connect(path)

    def send(self, data, descriptors=()):
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        self.sock.sendmsg([data], control)

    def receive(self):
        data, control, _, _ = self.sock.recvmsg(2048, 256)
        for _, _, content in control:
            for descriptor in array.array("i", content):
                os.close(descriptor)
        return data

    def is_closed(self):
        try:
            while self.receive():
                pass
        except ConnectionResetError:
            pass
        return True


@pytest.fixture
def new_peer(path):
    peers = []

    def make():
        peers.append(Peer(path))
        return peers[-1]

    yield make
    for peer in peers:
        peer.sock.close()


@pytest.fixture
def peer(server, new_peer):
    """One that said hello and has accepted its snapshot."""
    made = new_peer()
    made.send(HELLO)
    assert made.receive() == b"\x1a\x00"
    made.send(ACK)
    server.wait_log("snapshot accepted")
    return made


@pytest.mark.parametrize("hello", [b"\x08\x00", b"\x08", b"GET / HTTP/1.1\r\n\r\n", b"\xff" * 100, b"x" * 65537])
def test_a_wrong_hello(server, new_peer, new_tunnel, hello):
    peer = new_peer()
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    peer.send(hello)
    assert peer.is_closed()
    assert not server.count("connections") and server.ask("statistics")["protocolErrors"] == 1
    tunnel = new_tunnel()
    tunnel.wait(lambda: tunnel.is_ready)


def test_no_hello_in_time(start, new_peer):
    server = start(hello=200)
    begin = time.monotonic()
    assert new_peer().is_closed()
    assert 0.15 < time.monotonic() - begin < 5
    server.wait_log("no hello")
    assert not server.count("connections")


def test_an_empty_packet_is_the_end(server, new_peer):
    peer = new_peer()
    peer.sock.send(b"")
    assert peer.is_closed()
    server.wait_log("disconnected")


@pytest.mark.parametrize("answer", [ACK, HELLO, b"junk"])
def test_an_answer_that_nobody_asked_for(server, peer, answer):
    peer.send(answer)
    assert peer.is_closed()
    server.wait_log("without being asked")
    server.wait(lambda: server.count("connections") == 2)


@pytest.mark.parametrize("answer", [b"\x12\x00", b"\x0a\x05", b"\xff\xff", HELLO])
def test_an_answer_that_is_none(server, peer, new_namespace, answer):
    server.say(f"add u1 shop cart sa {new_namespace()}")
    peer.receive()
    peer.send(answer)
    assert peer.is_closed()
    server.wait_outcome("u1", "add", "lost")
    assert server.ask("statistics")["protocolErrors"] == 1


def test_a_descriptor_from_the_peer(server, peer, new_namespace):
    server.say(f"add u1 shop cart sa {new_namespace()}")
    peer.receive()
    server.ask("state")
    before = server.descriptors()
    peer.send(ACK, [0])
    assert peer.is_closed()
    server.wait_outcome("u1", "add", "lost")
    server.wait_log("it sent a descriptor")
    server.ask("state")
    assert server.descriptors() == before - 1


def test_an_answer_as_large_as_may_be_and_one_byte_more(server, peer, new_namespace):
    path = new_namespace()
    peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    server.say(f"add u1 shop cart sa {path}")
    peer.receive()
    text = b"x" * (65536 - 8)
    peer.send(b"\x0a\xfc\xff\x03\x0a\xf8\xff\x03" + text)
    server.wait_outcome("u1", "add", "refused")
    server.say(f"add u2 shop cart sa {path}")
    peer.receive()
    peer.send(b"\x0a\xfd\xff\x03\x0a\xf9\xff\x03" + text + b"x")
    assert peer.is_closed()
    server.wait_outcome("u2", "add", "lost")


def test_the_end_while_idle_is_seen_at_once(server, peer):
    peer.sock.close()
    server.wait(lambda: server.count("connections") == 2, 2)


def test_only_root_may_talk(server, path):
    code = ("import os, socket, sys; os.setuid(65534); s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
            f"try: s.connect({path!r})\nexcept OSError as error: sys.exit(error.errno)\ntry: sys.exit(len(s.recv(9)))\n"
            "except ConnectionResetError: sys.exit(0)")
    assert os.stat(path).st_mode & 0o777 == 0o600
    folder = os.path.dirname(path)
    while folder != "/tmp" and folder != "/":
        os.chmod(folder, 0o755)
        folder = os.path.dirname(folder)
    assert subprocess.run(["/usr/bin/python3", "-c", code]).returncode == 13
    os.chmod(path, 0o666)
    assert subprocess.run(["/usr/bin/python3", "-c", code]).returncode == 0
    server.wait_log("only root may talk here")
    assert server.ask("statistics")["refused"] == 1


def test_accepts_are_limited(start, new_peer):
    server = start(accepts=5)
    for _ in range(11):
        new_peer()
    begin = time.monotonic()
    for _ in range(100):
        if server.ask("statistics")["accepted"] == 11:
            break
        time.sleep(0.1)
    assert server.ask("statistics")["accepted"] == 11
    assert time.monotonic() - begin > 1.5


def test_too_many_descriptors_in_flight(start, new_peer, new_namespace):
    """The kernel counts a user's descriptors in flight: others' fill the limit here, and when they are gone it goes on."""
    server, path = start(), new_namespace()
    peer = new_peer()
    peer.send(HELLO)
    peer.receive()
    peer.send(ACK)
    server.wait_log("snapshot accepted")
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    for _ in range(2):
        ours.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [0] * 250))])
    server.say("unprivileged", "descriptors 300", f"add u1 shop cart sa {path}", "state")
    server.wait(lambda: server.count("state"))
    state = [event for event in server.events if event["event"] == "state"][-1]
    assert state["connections"][0]["waiting"] == 1, state
    ours.close()
    theirs.close()
    assert b"cart" in peer.receive()
    peer.send(ACK)
    server.wait_outcome("u1", "add", "accepted")


def test_no_message_is_larger_than_the_tunnel_reads_and_each_carries_its_descriptor(server, peer, new_namespace):
    path = new_namespace()
    for uid, length in (("u1", 1), ("u2", 253)):
        server.say(f"add {uid} {'s' * 63} {'n' * length} {'a' * 253} {path}")
        data, control, flags, _ = peer.sock.recvmsg(1024, 256, socket.MSG_CMSG_CLOEXEC)
        descriptors = array.array("i", control[0][2])
        assert len(control) == 1 and len(descriptors) == 1 and not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC)
        assert os.fstat(descriptors[0]).st_ino == os.stat(path).st_ino and uid.encode() in data
        os.close(descriptors[0])
        peer.send(ACK)
        server.wait_outcome(uid, "add", "accepted")
