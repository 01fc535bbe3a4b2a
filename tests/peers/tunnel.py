"""A strict double of the node tunnel (ztunnel), on ZDS's other end: it dials the node agent, says hello, and does what a ztunnel
does with each request. Whatever zds.md forbids is answered as the real one answers it, and stands in `violations`, which a test
looks at (`check`).

    tunnel = Tunnel(path).start()          a thread of its own; or as a context manager, which checks at the end
    tunnel.wait(lambda: "uid" in tunnel.workloads)
    tunnel.refuse["uid"] = "busy"          answers this uid's Adds with an error, until taken out
    tunnel.die_at = ("add", "uid", "before" or "after")   the process's end at that request, before or after its answer
    tunnel.hold(True)                      stops reading; False goes on
    tunnel.delay = 0.1                     before each answer
    tunnel.send(b"...")                    raw bytes; tunnel.hello = b"..." is what comes first, None: nothing
    tunnel.disconnect(); tunnel.kill()     redials at once; or all workloads forgotten too, as after a restart
    tunnel.stay_away(True)                 disconnects and does not redial; all that runs goes on; False redials
    tunnel.stop()

With listeners=True the pod's listeners (zds.md, "Inside the pod's namespace") are opened before an Add is acknowledged, and
redirected connections are carried to where they were going; with has_ipv6 = False, on IPv4 alone, as a ztunnel whose IPV6_ENABLED
is off. As a program: see --help; events are JSON lines on standard output,
commands are JSON lines on standard input."""
import argparse
import array
import asyncio
import contextlib
import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import sys
import threading
import time

MARK = 0x539
TRAFFIC_CLASS = 0xb8  # on every packet of the tunnel's sockets: a mark does not leave the namespace, this does
SO_MARK, SO_ORIGINAL_DST = 36, 80
PORTS = 15001, 15006, 15008  # outbound, inbound, HBONE
IP_TRANSPARENT, IP_FREEBIND, IPV6_TRANSPARENT, IPV6_FREEBIND = 19, 15, 75, 78
RECEIVE_MAX = 1024
CLONE_NEWNET = 0x40000000
NS_GET_NSTYPE = 0xB703
libc = ctypes.CDLL(None, use_errno=True)


class Malformed(Exception):
    pass


def fields(data):
    """The fields of a protobuf message: {number: value}, an int or bytes. A number twice is malformed: nobody sends it."""
    found, at = {}, 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            if at >= len(data) or shift > 63:
                raise Malformed("varint")
            value |= (data[at] & 0x7F) << shift
            at, shift = at + 1, shift + 7
            if data[at - 1] < 0x80:
                return value

    while at < len(data):
        key = varint()
        if key >> 3 in found:
            raise Malformed(f"field {key >> 3} twice")
        if key & 7 == 0:
            found[key >> 3] = varint()
        elif key & 7 == 2:
            length = varint()
            if at + length > len(data):
                raise Malformed("length")
            found[key >> 3], at = data[at:at + length], at + length
        else:
            raise Malformed(f"wire type {key & 7}")
    return found


def texts(data, names):
    """A message of strings only, by field number."""
    found = fields(data)
    if not set(found) <= set(names):
        raise Malformed(f"unknown fields {sorted(set(found) - set(names))}")
    return {name: found.get(number, b"").decode() for number, name in names.items()}


def acknowledgement(error=""):
    text = error.encode()

    def sized(data):
        length, out = len(data), b""
        while length > 0x7F:
            out, length = out + bytes([length & 0x7F | 0x80]), length >> 7
        return out + bytes([length]) + data

    return b"\x0a" + sized(b"\x0a" + sized(text) if text else b"")


@contextlib.contextmanager
def inside(netns):
    """This thread in another network namespace."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if libc.setns(netns, CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
        yield
    finally:
        if libc.setns(home, CLONE_NEWNET) != 0:
            os._exit(70)  # in a pod's namespace for good: nothing after this could be right
        os.close(home)


def is_netns(fd):
    """A name tells nothing: one that is bound at a path shows that path."""
    try:
        return fcntl.ioctl(fd, NS_GET_NSTYPE) == CLONE_NEWNET
    except OSError:
        return False


def plain(address):
    return address.removeprefix("::ffff:") if "." in address else address


def marked(family, kind=socket.SOCK_STREAM):
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.SOL_SOCKET, SO_MARK, MARK)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, TRAFFIC_CLASS)
    if family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, TRAFFIC_CLASS)
    return sock


def make_transparent(sock):
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
        sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)


def original_destination(sock):
    with contextlib.suppress(OSError):
        _, port, address = struct.unpack("!HH4s8x", sock.getsockopt(socket.IPPROTO_IP, SO_ORIGINAL_DST, 16))
        return socket.inet_ntop(socket.AF_INET, address), port
    with contextlib.suppress(OSError):
        _, port, _, address = struct.unpack("!HHI16s4x", sock.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, 28))
        return socket.inet_ntop(socket.AF_INET6, address), port
    return None  # it was not redirected


def dns_answer(query, address="192.0.2.53"):
    """The canned answer: one A record for whatever was asked."""
    if len(query) < 17:
        return None
    end = 12
    while end < len(query) and query[end]:
        end += query[end] + 1
    question = query[12:end + 5]
    return (query[:2] + b"\x81\x80\x00\x01\x00\x01\x00\x00\x00\x00" + question +
            b"\xc0\x0c\x00\x01\x00\x01\x00\x00\x00\x05\x00\x04" + socket.inet_aton(address))


class PodListeners:
    """What a ztunnel binds inside one pod, and the connections that it carries."""

    def __init__(self, loop, netns, tell, ipv6=True):
        self.loop, self.netns, self.tell = loop, netns, tell
        self.sockets, self.tasks = [], set()
        try:
            with inside(netns):
                has_ipv6 = ipv6 and os.path.exists("/proc/thread-self/net/if_inet6")
                wildcard = (socket.AF_INET6, "::") if has_ipv6 else (socket.AF_INET, "0.0.0.0")
                for port, serve in zip(PORTS, (self.outbound, self.inbound, self.hbone)):
                    self.listen(*wildcard, port, serve, True)
                for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
                    if family == socket.AF_INET6 and not has_ipv6:
                        continue
                    self.listen(family, address, 15053, self.dns_by_tcp, False)
                    sock = marked(family, socket.SOCK_DGRAM)
                    self.sockets.append(sock)
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                    sock.bind((address, 15053))
                    loop.add_reader(sock, self.dns_by_udp, sock)
        except OSError:
            self.close()
            raise

    def listen(self, family, address, port, serve, is_transparent):
        sock = marked(family)
        self.sockets.append(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if address == "::" else 1)
        if is_transparent:
            make_transparent(sock)
        sock.bind((address, port))
        sock.listen(1024)
        self.loop.add_reader(sock, self.accept, sock, serve)

    def accept(self, listener, serve):
        with contextlib.suppress(OSError):
            sock, peer = listener.accept()
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, SO_MARK, MARK)
            task = self.loop.create_task(self.carry(sock, [plain(peer[0]), peer[1]], serve))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def carry(self, sock, source, serve):
        here = await asyncio.open_connection(sock=sock)
        try:
            await serve(here, source, original_destination(sock))
        except asyncio.CancelledError:
            here[1].transport.abort()
            raise
        except OSError as error:
            self.tell("carry-failed", source=source, error=str(error))
        finally:
            here[1].close()

    async def connect(self, destination, source=None):
        with inside(self.netns):
            sock = marked(socket.AF_INET6 if ":" in destination[0] else socket.AF_INET)
        try:
            if source:
                make_transparent(sock)
                sock.bind((source, 0))
            await self.loop.sock_connect(sock, tuple(destination))
            return await asyncio.open_connection(sock=sock)
        except BaseException:
            sock.close()
            raise

    async def join(self, here, there):
        async def copy(reader, writer):
            try:
                while data := await reader.read(65536):
                    writer.write(data)
                    await writer.drain()
                writer.write_eof()
            except OSError:  # reset: the other end may have gone without a word, and would be waited for
                here[1].transport.abort()
                there[1].transport.abort()

        try:
            await asyncio.gather(copy(here[0], there[1]), copy(there[0], here[1]))
        except asyncio.CancelledError:
            there[1].transport.abort()
            raise
        finally:
            there[1].close()

    async def outbound(self, here, source, destination):
        self.tell("carried", listener="outbound", source=source, destination=destination)
        if destination and destination[1] not in PORTS:
            await self.join(here, await self.connect(destination))

    async def inbound(self, here, source, destination):
        self.tell("carried", listener="inbound", source=source, destination=destination)
        # As ztunnel: what was meant for one of its own ports would come to it again and again.
        if destination and destination[1] not in PORTS:
            await self.join(here, await self.connect(destination, source[0]))

    async def hbone(self, here, source, _destination):
        """In the clear: a line "CONNECT ADDRESS|PORT", then the bytes."""
        words = (await here[0].readline()).decode().split()
        self.tell("carried", listener="hbone", source=source, line=words)
        if len(words) == 2 and words[0] == "CONNECT":
            address, _, port = words[1].partition("|")
            await self.join(here, await self.connect((address, int(port)), source[0]))

    async def dns_by_tcp(self, here, source, destination):
        query = await here[0].readexactly(struct.unpack("!H", await here[0].readexactly(2))[0])
        self.tell("dns", source=source, by="tcp")
        answer = dns_answer(query) or b""
        here[1].write(struct.pack("!H", len(answer)) + answer)
        await here[1].drain()

    def dns_by_udp(self, sock):
        with contextlib.suppress(OSError):
            query, source = sock.recvfrom(65535)
            self.tell("dns", source=[plain(source[0]), source[1]], by="udp")
            if answer := dns_answer(query):
                sock.sendto(answer, source)

    def close(self):
        """New connections find nobody; those that run are carried to their end."""
        for sock in self.sockets:
            self.loop.remove_reader(sock)
            sock.close()
        self.sockets = []


class Workload:
    def __init__(self, uid, info, netns, identity):
        self.uid, self.info, self.netns, self.identity = uid, info, netns, identity
        self.listeners = None

    def close(self):
        if self.listeners:
            self.listeners.close()
            tasks = list(self.listeners.tasks)
            if tasks:  # the namespace is needed as long as something is carried
                left = set(tasks)

                def ended(task):
                    left.discard(task)
                    if not left:
                        os.close(self.netns)
                for task in tasks:
                    task.add_done_callback(ended)
                return
        os.close(self.netns)


class Tunnel:
    def __init__(self, path, listeners=False, hello=b"\x08\x01", redial=True, on_event=None):
        self.path, self.has_listeners, self.hello, self.redial = str(path), listeners, hello, redial
        self.on_event = on_event
        self.workloads = {}          # uid: Workload
        self.violations = []
        self.events = []             # dicts; "event" says which
        self.requests = []           # (kind, uid) as they came
        self.refuse, self.delay, self.die_at = {}, 0, None
        self.has_ipv6 = True
        self.is_connected = self.is_ready = False
        self.connections = 0
        self._changed = threading.Condition()
        self._loop = asyncio.new_event_loop()
        self._sock = None
        self._held = self._is_away = False
        self._kept = []              # descriptors of requests whose answers are delayed
        self._stopping = False
        self._wake = None

    # From the test's thread.
    def start(self):
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        return self

    def __enter__(self):
        return self.start()

    def __exit__(self, kind, *_):
        self.stop()
        if kind is None:
            self.check()

    def check(self):
        assert not self.violations, self.violations

    def wait(self, condition, seconds=10):
        with self._changed:
            assert self._changed.wait_for(condition, seconds), (self.requests[-20:], self.events[-20:], self.violations)
        return self

    def _call(self, function, *arguments):
        self._loop.call_soon_threadsafe(function, *arguments)

    def hold(self, is_held):
        done = threading.Event()

        def set_held():
            self._held = is_held
            self._watch()
            done.set()

        self._call(set_held)
        assert done.wait(10)

    def send(self, data, descriptors=()):
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
        self._call(lambda: self._sock.sendmsg([data], control))

    def disconnect(self):
        self._call(self._lost, "told to")

    def stay_away(self, is_away):
        done = threading.Event()

        def set_away():
            self._is_away = is_away
            if is_away:
                self._lost("stays away")
            self._wake.set()
            done.set()

        self._call(set_away)
        assert done.wait(10)

    def kill(self):
        def die():
            self._forget()
            self._lost("killed")
        self._call(die)

    def stop(self):
        def end():
            self._stopping = True
            self._lost("stopped")
            self._wake.set()
        if self._thread.is_alive():
            # Its loop may end by itself at this moment.
            with contextlib.suppress(RuntimeError):
                self._call(end)
            self._thread.join(10)

    # In the loop's thread.
    def tell(self, event, **more):
        with self._changed:
            self.events.append(dict(event=event, time=time.monotonic(), **more))
            self._changed.notify_all()
        if self.on_event:
            self.on_event(self.events[-1])

    def _violation(self, text):
        self.violations.append(text)
        self.tell("violation", text=text)

    def _run(self):
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._dial())
        self._forget()
        for task in asyncio.all_tasks(self._loop):
            task.cancel()
            with contextlib.suppress(BaseException):
                self._loop.run_until_complete(task)
        self._loop.close()
        for descriptor in (descriptor for descriptors in self._kept for descriptor in descriptors):
            os.close(descriptor)

    async def _dial(self):
        wait = 0.02
        self._wake = asyncio.Event()
        while not self._stopping:
            if self._is_away:
                self._wake.clear()
                await self._wake.wait()
                continue
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
            try:
                sock.connect(self.path)
            except OSError as error:
                sock.close()
                self.tell("dial-failed", error=str(error))
                self._wake.clear()
                with contextlib.suppress(asyncio.TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), wait)
                wait = min(wait * 2, 15)
                continue
            wait = 0.02
            sock.setblocking(False)
            self._sock, self._named, self._has_snapshot, self._queue = sock, set(), False, []
            self._busy = False
            self._wake.clear()
            self.connections += 1
            self.is_connected = True
            self.tell("connected")
            with contextlib.suppress(OSError):
                if self.hello is not None:
                    sock.send(self.hello)
            self._watch()
            await self._wake.wait()
            if not self.redial:
                return

    def _watch(self):
        if self._sock is None:
            return
        if self._held or self._busy:
            self._loop.remove_reader(self._sock)
        else:
            self._loop.add_reader(self._sock, self._readable)

    def _lost(self, reason):
        if self._sock is None:
            return
        self._loop.remove_reader(self._sock)
        self._sock.close()
        self._sock = None
        self.is_connected = self.is_ready = False
        self._wake.set()
        self.tell("disconnected", reason=reason)

    def _forget(self):
        for workload in self.workloads.values():
            workload.close()
        self.workloads.clear()

    def _readable(self):
        for _ in range(64):
            if self._sock is None or self._held or self._busy:
                return
            try:
                data, control, flags, _ = self._sock.recvmsg(RECEIVE_MAX, socket.CMSG_SPACE(16), socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            except OSError as error:
                self._lost(str(error))
                return
            descriptors = array.array("i")
            for level, kind, content in control:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    descriptors.frombytes(content[:len(content) - len(content) % descriptors.itemsize])
            if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
                self._violation(f"a packet that does not fit (flags {flags})")
            if not data:
                self._lost("end of file")
                return
            self._take(data, list(descriptors))

    def _take(self, data, descriptors):
        if not self.hello:
            self._violation("a request before the hello")
        try:
            kind, uid, info = self._decode(data)
        except (Malformed, UnicodeDecodeError) as error:
            self._violation(f"malformed request {data!r}: {error}")
            for descriptor in descriptors:
                os.close(descriptor)
            self._lost("malformed")
            return
        with self._changed:
            self.requests.append((kind, uid))
        if self.die_at and self.die_at[:2] == (kind, uid) and self.die_at[2] == "before":
            self.die_at = None
            for descriptor in descriptors:
                os.close(descriptor)
            self._forget()
            self._lost("died before the answer")
            return
        if self.delay:
            self._busy = True
            self._watch()
            self._kept.append(descriptors)
            self._loop.call_later(self.delay, self._delayed, kind, uid, info, descriptors, self._sock)
        else:
            self._answer(kind, uid, info, descriptors)

    def _delayed(self, kind, uid, info, descriptors, sock):
        self._kept.remove(descriptors)
        if sock is not self._sock:
            for descriptor in descriptors:
                os.close(descriptor)
            return
        self._busy = False
        self._answer(kind, uid, info, descriptors)
        self._watch()

    def _answer(self, kind, uid, info, descriptors):
        error, is_fatal = self._do(kind, uid, info, descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        try:
            self._sock.send(acknowledgement(error))
        except OSError as problem:
            self._lost(str(problem))
            return
        self.tell(kind, uid=uid, error=error, **(info or {}))
        if self.die_at and self.die_at[:2] == (kind, uid):
            self.die_at = None
            is_fatal = True
        if is_fatal:
            self._forget()
            self._lost("exit")

    @staticmethod
    def _decode(data):
        found = fields(data)
        if len(found) != 1:
            raise Malformed(f"{len(found)} payloads")
        (number, payload), = found.items()
        if not isinstance(payload, bytes):
            raise Malformed("a payload that is no message")
        if number == 1:
            add = fields(payload)
            if not set(add) <= {1, 2}:
                raise Malformed("unknown fields of an Add")
            info = texts(add[2], {1: "name", 2: "namespace", 3: "service_account"}) if 2 in add else None
            return "add", add.get(1, b"").decode(), info
        if number == 2:
            return "delete", texts(payload, {2: "uid"})["uid"], None
        if number == 3:
            if payload:
                raise Malformed("SnapshotSent has no fields")
            return "snapshot-sent", "", None
        if number == 5:
            return "keep", texts(payload, {1: "uid"})["uid"], None
        raise Malformed(f"payload {number}")

    def _do(self, kind, uid, info, descriptors):
        """Returns the error for the answer, and whether a ztunnel exits of it. Takes a descriptor that it keeps out of the list."""
        if len(descriptors) != (1 if kind == "add" else 0):
            self._violation(f"{kind} {uid} with {len(descriptors)} descriptors")
            return "wrong number of descriptors", False
        if kind != "snapshot-sent" and not uid:
            self._violation(f"{kind} without uid")
        if kind == "add":
            return self._add(uid, info, descriptors)
        if kind == "delete":
            if not self._has_snapshot:
                self._violation(f"delete {uid} before the end of the snapshot")
            self._stop_workload(uid)
            return "", False
        if self._has_snapshot:
            self._violation(f"{kind} {uid} after the end of the snapshot")
            return f"unexpected {kind}", True
        if kind == "keep":
            self._named.add(uid)
            return "", False
        self._has_snapshot = self.is_ready = True
        self.tell("ready")
        for other in [known for known in self.workloads if known not in self._named]:
            self._stop_workload(other)
        return "", False

    def make_listeners(self, workload):
        return PodListeners(self._loop, workload.netns, self.tell, self.has_ipv6)

    def _stop_workload(self, uid):
        if workload := self.workloads.pop(uid, None):
            workload.close()

    def _add(self, uid, info, descriptors):
        if info is None:
            self._violation(f"add {uid} without workload_info")
            return "no workload_info", True
        status = os.fstat(descriptors[0])
        if not is_netns(descriptors[0]):
            self._violation(f"add {uid}: the descriptor is no network namespace")
            return "no network namespace", False
        self._named.add(uid)
        if uid in self.refuse:
            return self.refuse[uid], False
        identity = (status.st_dev, status.st_ino)
        known = self.workloads.get(uid)
        if known and known.identity == identity:
            return "", False
        self._stop_workload(uid)
        workload = Workload(uid, info, descriptors.pop(), identity)
        try:
            if self.has_listeners:
                workload.listeners = self.make_listeners(workload)
        except OSError as error:
            workload.close()
            return f"cannot start: {error}", False
        self.workloads[uid] = workload
        return "", False


def main():
    parser = argparse.ArgumentParser(description="A double of the node tunnel. Commands on standard input, JSON lines: "
                                     '{"refuse": {"UID": "TEXT"}}, {"hold": true}, {"delay": 0.1}, {"disconnect": true}, {"kill": true}. '
                                     "Its end, or SIGTERM, closes ZDS and every listener.")
    parser.add_argument("--socket", default="/var/run/ztunnel/ztunnel.sock")
    parser.add_argument("--listeners", action="store_true", help="open and serve the listeners inside the pods")
    parser.add_argument("--delay", type=float, default=0, help="seconds before each answer")
    arguments = parser.parse_args()

    def show(event):
        print(json.dumps(event), flush=True)

    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    tunnel = Tunnel(arguments.socket, listeners=arguments.listeners, on_event=show)
    tunnel.delay = arguments.delay
    tunnel.start()
    try:
        for line in sys.stdin:
            command = json.loads(line)
            if "refuse" in command:
                tunnel.refuse = command["refuse"]
            if "delay" in command:
                tunnel.delay = command["delay"]
            if "hold" in command:
                tunnel.hold(command["hold"])
            if command.get("disconnect"):
                tunnel.disconnect()
            if command.get("kill"):
                tunnel.kill()
    finally:
        tunnel.stop()
    return 1 if tunnel.violations else 0


if __name__ == "__main__":
    sys.exit(main())
