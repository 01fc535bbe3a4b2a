"""What the applications of the node's pods say to each other, as a program of its own so that nothing else holds it up: every pod
serves, and all the time connections are opened between pods, in both families, and from the node itself (a kubelet's probes, and connections that stay a while). The tunnel's own ports are
tried from the node: nobody may be taken there. Every pod asks the node's name server, by UDP and by TCP; the tunnel's own name
server answers something else.

Commands on standard input, JSON lines:

    {"pod": KEY, "netns": PATH, "addresses": [...], "serves": true}     it talks from now on
    {"moved": KEY, "addresses": [...]}       it is found at these from now on
    {"gone": KEY}                          its sockets are closed, and connections with it end without a word
    {"lasting": KEY, "to": KEY}            a connection that stays; answered by {"lasting": true} when it talks
    {"stop": true}

Answers on standard output, JSON lines: {"ready": KEY} for a pod, {"gone": KEY}, {"failed": ...} for each connection that could
not be opened or that broke, or that the tunnel's own port took, {"asked": ...} for each question to the name server with who answered,
and {"totals": ...} at the end. Times are the wall clock's, as a packet's are."""
import asyncio
import contextlib
import errno
import gc
import json
import os
import pathlib
import random
import socket
import struct
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from peers.sockets import listen_in, socket_in  # noqa: E402
from peers.tunnel import dns_answer  # noqa: E402

PORT = 7000
GUARDED = 15001, 15006
NAME_SERVERS = "10.91.0.1", "fd91::1"
ANSWERS = {socket.inet_aton("192.0.2.1"): "server", socket.inet_aton("192.0.2.53"): "tunnel"}  # the latter: peers/tunnel.py
PATIENCE = 8
SHORT_EVERY, LONG_EVERY, ASK_EVERY = 0.12, 1.2, 0.3  # seconds, for each pod
SCAN_EVERY = 0.2                                      # for the node
LIFE = 4                             # of a long one, at most
PING_EVERY = 0.15


def say(**what):
    print(json.dumps(what), flush=True)


class Pod:
    def __init__(self, key, netns, addresses, serves):
        self.key, self.addresses, self.serves = key, addresses, serves
        self.netns = os.open(netns, os.O_RDONLY)
        self.server, self.tasks, self.accepted = None, set(), set()
        self.name_servers = []
        self.is_gone = False

    async def serve(self):
        sock = listen_in(self.netns, PORT)

        async def echo(reader, writer):
            # One that was accepted just before the pod went comes here after it.
            if self.is_gone:
                writer.transport.abort()
                return
            self.accepted.add(writer)
            try:
                while data := await reader.read(4096):
                    writer.write(data)
                    await writer.drain()
            except OSError:
                pass
            finally:
                self.accepted.discard(writer)
                writer.close()
        self.server = await asyncio.start_server(echo, sock=sock)

    async def serve_names(self):
        """The node's name server."""
        loop = asyncio.get_running_loop()

        def by_udp(sock):
            with contextlib.suppress(OSError):
                query, source = sock.recvfrom(512)
                sock.sendto(dns_answer(query, "192.0.2.1") or b"", source)

        async def by_tcp(reader, writer):
            with contextlib.suppress(OSError, EOFError):
                query = await reader.readexactly(struct.unpack("!H", await reader.readexactly(2))[0])
                answer = dns_answer(query, "192.0.2.1") or b""
                writer.write(struct.pack("!H", len(answer)) + answer)
                await writer.drain()
            writer.close()
        for address in NAME_SERVERS:
            family = socket.AF_INET6 if ":" in address else socket.AF_INET
            for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
                sock = socket_in(self.netns, family, kind)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((address, 53))
                if kind == socket.SOCK_DGRAM:
                    loop.add_reader(sock, by_udp, sock)
                else:
                    sock.listen(1024)
                    self.name_servers.append(await asyncio.start_server(by_tcp, sock=sock))


class Traffic:
    def __init__(self):
        self.pods, self.random = {}, random.Random(1)
        self.totals = {"short": 0, "long": 0, "lasting": 0, "probe": 0, "held": 0, "scan": 0, "asked": 0, "answers": 0, "failed": 0}

    def begin(self, pod, routine):
        """A task that belongs to a pod: it is cancelled when the pod goes."""
        task = asyncio.create_task(routine)
        pod.tasks.add(task)
        task.add_done_callback(pod.tasks.discard)
        return task

    @staticmethod
    async def connect(sock, address, report, port=PORT):
        problem = sock.connect_ex((address, port))
        report["source"] = sock.getsockname()[:2]
        if problem == errno.EINPROGRESS:
            loop, done = asyncio.get_running_loop(), asyncio.Event()
            loop.add_writer(sock, done.set)
            try:
                async with asyncio.timeout(PATIENCE):
                    await done.wait()
            finally:
                loop.remove_writer(sock)
            problem = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if problem:
            raise OSError(problem, os.strerror(problem))

    @staticmethod
    def common(pod, other):
        """Addresses of the other one that it can reach: it may have lost a family. The node has both."""
        families = {":" in address for address in pod.addresses} if pod.serves else {True, False}
        return [address for address in other.addresses if (":" in address) in families]

    async def talk(self, pod, other, kind, life, told=None):
        """One connection: opened, asked at least once, and as long as it lives."""
        addresses = self.common(pod, other)
        if not addresses:
            return
        address = self.random.choice(addresses)
        report = {"kind": kind, "from": pod.key, "to": other.key, "address": address, "opened": time.time(), "last": None,
                  "source": None, "step": "connect"}
        self.totals[kind] += 1
        sock = socket_in(pod.netns, socket.AF_INET6 if ":" in address else socket.AF_INET)
        writer = None
        try:
            await self.connect(sock, address, report)
            reader, writer = await asyncio.open_connection(sock=sock)
            while True:
                report["step"] = "talk"
                async with asyncio.timeout(PATIENCE):
                    writer.write(b"question")
                    if await reader.readexactly(8) != b"question":
                        raise ConnectionError("another answer")
                report["last"] = time.time()
                self.totals["answers"] += 1
                if told:
                    told()
                    told = None
                if life is not None and time.time() - report["opened"] >= life:
                    break
                await asyncio.sleep(PING_EVERY)
        except asyncio.CancelledError:
            if writer:
                writer.transport.abort()
            raise
        except (OSError, EOFError, asyncio.TimeoutError) as error:
            if self.pods.get(pod.key) is pod and self.pods.get(other.key) is other:
                self.totals["failed"] += 1
                say(failed={**report, "at": time.time(), "error": repr(error)})
        finally:
            if writer:
                writer.close()
            else:
                sock.close()

    async def ask(self, pod):
        """A question to the name server, from a socket of its own."""
        families = {":" in address for address in pod.addresses}
        servers = [server for server in NAME_SERVERS if (":" in server) in families]
        if not servers:
            return
        server, by = self.random.choice(servers), self.random.choice(["udp", "tcp"])
        family = socket.AF_INET6 if ":" in server else socket.AF_INET
        query = struct.pack("!HHHHHH", self.random.randrange(65536), 0x100, 1, 0, 0, 0) + b"\4name\0\0\1\0\1"
        report = {"from": pod.key, "server": server, "by": by, "asked": time.time(), "answered": None, "source": None}
        self.totals["asked"] += 1
        writer, sock = None, socket_in(pod.netns, family, socket.SOCK_DGRAM if by == "udp" else socket.SOCK_STREAM)
        try:
            async with asyncio.timeout(PATIENCE):
                if by == "udp":
                    sock.connect((server, 53))
                    report["source"] = sock.getsockname()[:2]
                    sock.send(query)
                    answer = await asyncio.get_running_loop().sock_recv(sock, 512)
                else:
                    await self.connect(sock, server, report, 53)
                    reader, writer = await asyncio.open_connection(sock=sock)
                    writer.write(struct.pack("!H", len(query)) + query)
                    answer = await reader.readexactly(struct.unpack("!H", await reader.readexactly(2))[0])
            report["answered"] = ANSWERS.get(answer[-4:], "garbage")
        except asyncio.CancelledError:
            if writer:
                writer.transport.abort()
            raise
        except (OSError, EOFError, asyncio.TimeoutError) as error:
            report["error"] = repr(error)
        finally:
            if writer:
                writer.close()
            else:
                sock.close()
        if self.pods.get(pod.key) is pod:
            say(asked={**report, "at": time.time()})

    async def ask_always(self, pod):
        while True:
            await asyncio.sleep(ASK_EVERY * self.random.uniform(0.5, 1.5))
            self.begin(pod, self.ask(pod))

    async def scan(self, pod, other):
        """A port of the tunnel's, which takes nobody whom the rules have not sent there."""
        if not other.addresses:
            return
        address, port = self.random.choice(other.addresses), self.random.choice(GUARDED)
        report = {"kind": "scan", "from": pod.key, "to": other.key, "address": address, "port": port, "opened": time.time(), "last": None,
                  "source": None}
        self.totals["scan"] += 1
        with socket_in(pod.netns, socket.AF_INET6 if ":" in address else socket.AF_INET) as sock:
            try:
                await self.connect(sock, address, report, port)
            except OSError:
                return
            if self.pods.get(other.key) is other:
                say(failed={**report, "at": time.time(), "error": "it was taken"})

    async def scan_always(self, pod):
        while True:
            await asyncio.sleep(SCAN_EVERY)
            if others := [other for other in self.pods.values() if other.serves]:
                await self.scan(pod, self.random.choice(others))

    async def open_always(self, pod, every, kind):
        while True:
            await asyncio.sleep(every * self.random.uniform(0.5, 1.5))
            others = [other for other in self.pods.values() if other is not pod and other.serves]
            if others:
                other = self.random.choice(others)
                life = self.random.uniform(0.3, LIFE) if kind in ("long", "held") else 0
                task = self.begin(pod, self.talk(pod, other, kind, life))
                other.tasks.add(task)
                task.add_done_callback(other.tasks.discard)

    async def add(self, key, netns, addresses, serves):
        assert key not in self.pods
        pod = Pod(key, netns, addresses, serves)
        if serves:
            await pod.serve()
            self.begin(pod, self.ask_always(pod))
        else:
            await pod.serve_names()
            self.begin(pod, self.scan_always(pod))
        self.pods[key] = pod
        self.begin(pod, self.open_always(pod, LONG_EVERY, "long" if serves else "held"))
        self.begin(pod, self.open_always(pod, SHORT_EVERY, "short" if serves else "probe"))
        say(ready=key)

    async def remove(self, key):
        pod = self.pods.pop(key)
        pod.is_gone = True
        if pod.server:
            pod.server.close()
        for task in list(pod.tasks):
            task.cancel()
        for writer in list(pod.accepted):
            writer.transport.abort()
        os.close(pod.netns)
        # One that was accepted as its server closed is left to the collector by asyncio: it would keep the network namespace.
        await asyncio.sleep(0.02)
        gc.collect()
        say(gone=key)

    def last(self, key, other):
        pod, other = self.pods[key], self.pods[other]
        task = self.begin(pod, self.talk(pod, other, "lasting", None, lambda: say(lasting=True)))
        other.tasks.add(task)
        task.add_done_callback(other.tasks.discard)

    async def run(self):
        reader = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
        while line := await reader.readline():
            command = json.loads(line)
            if "pod" in command:
                await self.add(command["pod"], command["netns"], command["addresses"], command["serves"])
            elif "gone" in command:
                await self.remove(command["gone"])
            elif "moved" in command:
                self.pods[command["moved"]].addresses = command["addresses"]
                say(moved=command["moved"])
            elif "lasting" in command:
                self.last(command["lasting"], command["to"])
            else:
                break
        say(totals=self.totals)


if __name__ == "__main__":
    asyncio.run(Traffic().run())
