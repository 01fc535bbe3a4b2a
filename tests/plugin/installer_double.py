"""A double of the node agent's side of the wire (include/ambient/wire.h), as strict as the agent: what breaks the protocol is
remembered and fails the test. What it answers is told by the test, conversation by conversation."""
import contextlib
import fcntl
import json
import os
import pathlib
import socket
import subprocess
import threading

from .conftest import BUILD

PACKET_MAX = 65536
NS_GET_NSTYPE, CLONE_NEWNET = 0xB703, 0x40000000
REDIRECT_TOOL = BUILD / "tests" / "redirect_tool"
ATTACHMENT_KEYS = {"network", "containerID", "interface", "netnsPath", "netns", "podNamespace", "podName", "podUID", "addresses",
                   "enrolled"}
KEYS = {"add": {"attachment", "timeoutMilliseconds"}, "report": {"error"}, "del": {"attachment"}, "gc": {"network", "valid"}}


class ProtocolError(AssertionError):
    pass


class Closed(Exception):
    """The plugin closed its end."""


def expect(condition, message):
    if not condition:
        raise ProtocolError(message)


class Conversation:
    def __init__(self, installer, connection):
        self.installer, self.connection = installer, connection
        self.netns = -1
        self.log = []
        self.request = self.receive("add", "del", "gc")
        self.kind = self.request["type"]

    def close(self):
        self.connection.close()
        if self.netns >= 0:
            os.close(self.netns)
            self.netns = -1

    def receive(self, *types):
        try:
            packet, descriptors, flags, _ = socket.recv_fds(self.connection, PACKET_MAX + 1, 4)
        except ConnectionResetError as error:
            raise Closed from error
        try:
            if not packet:
                raise Closed
            expect(not flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC) and len(packet) <= PACKET_MAX, "too large a packet")
            message = json.loads(packet.decode())
            kind = message["type"]
            expect(kind in types, f"expected {types}, got {kind}")
            expect(message["version"] == 1 and message["minimumVersion"] == 1, f"versions of {message}")
            unknown = set(message) - KEYS[kind] - {"type", "version", "minimumVersion", "log"}
            expect(not unknown, f"unknown keys {unknown}")
            self.log += message.get("log", "").splitlines()
            expect(kind != "add" or 0 < message["timeoutMilliseconds"] <= 300000, "how long the plugin waits")
            if kind in ("add", "del"):
                self._check_attachment(message["attachment"], kind, descriptors)
            expect(len(descriptors) == (1 if kind == "add" else min(1, len(descriptors)) if kind == "del" else 0),
                   f"{len(descriptors)} descriptors with {kind}")
            if descriptors:
                self.netns = descriptors.pop()
            return message
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    @staticmethod
    def _check_attachment(attachment, kind, descriptors):
        expect(set(attachment) <= ATTACHMENT_KEYS, f"unknown keys in {attachment}")
        for key in ("network", "containerID", "interface"):
            expect(isinstance(attachment[key], str) and attachment[key], f"{key} of {attachment}")
        expect(attachment["enrolled"] is False, "the plugin can't know that it is enrolled")
        if kind == "add":
            expect(attachment.get("podNamespace") and attachment.get("podName"), "an ADD that is no pod's")
        for descriptor in descriptors:
            status = os.fstat(descriptor)
            expect(fcntl.ioctl(descriptor, NS_GET_NSTYPE) == CLONE_NEWNET, "the descriptor is no network namespace")
            expect(attachment["netns"] == {"device": str(status.st_dev), "inode": str(status.st_ino)},
                   "the descriptor is not the attachment's namespace")

    # What a behaviour is written in.

    @property
    def attachment(self):
        return self.request["attachment"]

    def send(self, kind, version=1, minimum=1, **body):
        text = json.dumps({"type": kind, "version": version, "minimumVersion": minimum, **body})
        self.send_raw(text.encode())

    def send_raw(self, packet, descriptors=()):
        try:
            socket.send_fds(self.connection, [packet], list(descriptors))
        except (BrokenPipeError, ConnectionResetError) as error:
            raise Closed from error

    def tool(self, verb, redirect=None):
        command = [str(REDIRECT_TOOL), verb, "--netns", f"/proc/{os.getpid()}/fd/{self.netns}"]
        if redirect is not None:
            command += ["--redirect", json.dumps(redirect)]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def redirect(self, **redirect):
        """Decides; nothing may be in the namespace yet. Then the report, by when all of it must be there."""
        self.send("decision", decision="redirect", reason="a label", redirect=redirect)
        report = self.receive("report")
        if "error" not in report:
            verified = self.tool("verify", redirect)
            expect(verified.returncode == 0, f"reported, but {verified.stdout}{verified.stderr}")
        return report

    def skip(self, reason="no label selects it"):
        self.send("decision", decision="skip", reason=reason)

    def accept(self):
        self.send("result", code=0)

    def refuse(self, code, message, **more):
        self.send("result", code=code, message=message, **more)

    def wait_for_end(self):
        """The plugin says nothing more and closes."""
        try:
            self.receive()
        except Closed:
            return


def enrol(conversation, **redirect):
    """What the agent does with a pod of the mesh."""
    if conversation.kind == "add":
        conversation.redirect(**redirect)
    conversation.accept()


class Installer:
    def __init__(self, run_dir):
        self.path = pathlib.Path(run_dir) / "installer.sock"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.behaviours = []  # for the next conversations, first come first served
        self.otherwise = enrol
        self.conversations, self.problems, self.threads = [], [], []
        self.lock = threading.Lock()
        self.listener = None
        self.listen()

    def listen(self):
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with contextlib.suppress(FileNotFoundError):
            self.path.unlink()
        self.listener.bind(str(self.path))
        self.listener.listen(128)
        thread = threading.Thread(target=self._serve, args=(self.listener,), daemon=True)
        thread.start()
        self.threads.append(thread)

    def go_away(self, leave_socket=False):
        listener, self.listener = self.listener, None
        if listener is not None:
            listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        if not leave_socket:
            with contextlib.suppress(FileNotFoundError):
                self.path.unlink()

    def _serve(self, listener):
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._converse, args=(connection,), daemon=True)
            thread.start()
            with self.lock:
                self.threads.append(thread)

    def _converse(self, connection):
        connection.settimeout(30)
        conversation = None
        try:
            conversation = Conversation(self, connection)
            with self.lock:
                self.conversations.append(conversation)
                behaviour = self.behaviours.pop(0) if self.behaviours else self.otherwise
            behaviour(conversation)
            if conversation.connection.fileno() >= 0:
                conversation.wait_for_end()
        except Closed:
            pass
        except Exception as problem:  # pylint: disable=broad-except # whatever it is, the test must fail of it
            self.problems.append(f"{type(problem).__name__}: {problem}")
        finally:
            (conversation or connection).close()

    def close(self):
        self.go_away()
        for thread in self.threads:
            thread.join(timeout=30)
        assert not self.problems, self.problems[0]
