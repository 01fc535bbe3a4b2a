"""The double itself: that it can fail, and that it carries what is redirected."""
import array
import os
import socket
import struct
import subprocess
import threading

from tunnel import Tunnel, fields, inside

ADD = b"\x0a\x16\x0a\x02u1\x12\x10\x0a\x04cart\x12\x04shop\x1a\x02sa"
SNAPSHOT = b"\x1a\x00"


class Agent:
    """The other end, raw."""

    def __init__(self, path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listener.bind(path)
        self.listener.listen()

    def accept(self):
        self.sock, _ = self.listener.accept()
        self.sock.settimeout(5)
        assert self.sock.recv(1024) == b"\x08\x01"

    def ask(self, data, descriptors=()):
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        self.sock.sendmsg([data], control)
        return self.sock.recv(65536)


def talk(path, *requests):
    """Answers and violations after these requests (data, descriptors)."""
    agent = Agent(path)
    with_violations = Tunnel(path, redial=False).start()
    agent.accept()
    answers = []
    for data, descriptors in requests:
        answers.append(agent.ask(data, descriptors))
    with_violations.stop()
    agent.sock.close()
    agent.listener.close()
    os.unlink(path)
    return answers, with_violations.violations


def test_it_accepts_what_is_right_and_refuses_what_is_forbidden(path, new_namespace):
    netns = os.open(new_namespace(), os.O_RDONLY)
    ok = b"\x0a\x00"
    assert talk(path, (ADD, [netns]), (b"\x2a\x04\x0a\x02u2", []), (SNAPSHOT, []), (b"\x12\x04\x12\x02u1", [])) == ([ok] * 4, [])
    for wrong in ([(ADD, [])], [(ADD, [netns, netns])], [(SNAPSHOT, [netns])], [(SNAPSHOT, []), (SNAPSHOT, [])],
                  [(SNAPSHOT, []), (b"\x2a\x04\x0a\x02u2", [])], [(b"\x0a\x04\x0a\x02u1", [netns])],
                  [(b"\x12\x04\x12\x02u1", [])]):
        answers, violations = talk(path, *wrong)
        assert violations, wrong
        assert fields(answers[-1])[1] or wrong[-1][0][0] == 0x12, wrong
    os.close(netns)


def ip(path, *arguments):
    subprocess.run(["nsenter", f"--net={path}", "ip", *arguments], check=True)


def test_its_listeners_carry_connections_and_answer_dns(path, server, new_tunnel, new_namespace):
    """A redirect of our own making stands in for the product's rules; the double has to find the original destination."""
    pod = new_namespace()
    ip(pod, "link", "set", "lo", "up")
    tunnel = new_tunnel(listeners=True)
    tunnel.wait(lambda: tunnel.is_ready)
    server.say(f"add u1 shop cart sa {pod}")
    server.wait_outcome("u1", "add", "accepted")
    rules = """
        table inet t {
            chain output {
                type nat hook output priority -100
                meta mark != 0x539 tcp dport 8080 redirect to :15001
            }
        }"""
    subprocess.run(["nsenter", f"--net={pod}", "nft", "-f", "-"], input=rules, text=True, check=True)
    netns = os.open(pod, os.O_RDONLY)

    def in_pod(family, kind):
        made = []

        def make():
            with inside(netns):
                made.append(socket.socket(family, kind))
        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        made[0].settimeout(5)
        return made[0]

    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        with in_pod(family, socket.SOCK_STREAM) as listener, in_pod(family, socket.SOCK_STREAM) as client, \
                in_pod(family, socket.SOCK_DGRAM) as resolver:
            listener.bind((address, 8080))
            listener.listen()
            client.connect((address, 8080))
            accepted, _ = listener.accept()
            client.sendall(b"there")
            assert accepted.recv(16) == b"there"
            accepted.sendall(b"and back")
            assert client.recv(16) == b"and back"
            accepted.close()
            assert client.recv(16) == b""
            # A reset at one end is the other's end: who is not told would wait for ever.
            with in_pod(family, socket.SOCK_STREAM) as another:
                another.connect((address, 8080))
                accepted, _ = listener.accept()
                another.sendall(b"there")
                assert accepted.recv(16) == b"there"
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                accepted.close()
                assert another.recv(16) == b""
            resolver.sendto(b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x01a\x00\x00\x01\x00\x01", (address, 15053))
            assert resolver.recv(512).endswith(socket.inet_aton("192.0.2.53"))
        tunnel.wait(lambda: any(event["event"] == "carried" and event["destination"] == (address, 8080) for event in tunnel.events))
    os.close(netns)
    server.say("delete u1")
    server.wait_outcome("u1", "delete", "accepted")
    sockets = subprocess.run(["nsenter", f"--net={pod}", "ss", "-Hlntu"], capture_output=True, text=True, check=True).stdout
    assert not sockets, sockets


def test_as_a_program(path, server, new_namespace):
    pod = new_namespace()
    program = subprocess.Popen(["/usr/bin/python3", os.path.join(os.path.dirname(__file__), "../peers/tunnel.py"), "--socket", path],
                               stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    server.wait(lambda: server.count("connections"))
    server.say(f"add u1 shop cart sa {pod}")
    server.wait_outcome("u1", "add", "accepted")
    output, _ = program.communicate('{"disconnect": true}\n', timeout=10)
    assert program.returncode == 0
    assert '"event": "add"' in output and '"uid": "u1"' in output
