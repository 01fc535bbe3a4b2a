"""A double of the node tunnel: it speaks ZDS to the node agent as ztunnel does (contract of the protocol: docs/tunnel.md), and carries
the traffic of the pods that it was given, in the clear where ztunnel uses mutual TLS and HTTP/2.

    tunnel_double.py SOCKET API-URL CA-FILE TOKEN       (runs in the node; writes one JSON line for each event)

It is strict: whatever the agent must not send ends it, with a line {"event": "violation"}. What peers do follows the annotation
ambient.istio.io/redirection, as with istiod: it polls the pods from the API server, and connects to 15008 of every address whose pod
is `enabled`, a moment after it became so. From the same pods it knows the identity that an Add must carry.

    15001  outbound: to the destination's 15008 where that is in the mesh, else to the original destination
    15006  inbound: to the application, with the client's address as source
    15008  from another tunnel: a line "CONNECT ADDRESS|PORT", then as 15006
    15053  DNS: to the name server that the query was for (UDP: that of the node's resolv.conf)"""
import array
import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import struct
import sys
import time
import urllib.request

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from namespaces import entered  # noqa: E402  (this file is a program)

MARK = 0x539
SO_ORIGINAL_DST = 80
IPV6_TRANSPARENT, IPV6_FREEBIND, IP_TRANSPARENT, IP_FREEBIND = 75, 78, 19, 15
LARGEST_REQUEST = 1024
POLL_SECONDS = 0.3

tasks = set()


def tell(event, **facts):
    sys.stdout.write(json.dumps({"event": event, "at": round(time.time(), 3), **facts}) + "\n")
    sys.stdout.flush()


def violation(text):
    tell("violation", text=text)
    os._exit(3)


def spawn(coroutine):
    task = asyncio.get_running_loop().create_task(coroutine)
    tasks.add(task)
    task.add_done_callback(tasks.discard)
    return task


# --- protobuf's wire format, as much of it as ZDS uses: varints and length-delimited fields


def decode(data):
    """{field number: value}; a field that comes twice, or in another wire format, is a violation."""
    fields, at = {}, 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            if at >= len(data):
                violation(f"a message ends in the middle: {data.hex()}")
            octet = data[at]
            at += 1
            value |= (octet & 0x7F) << shift
            shift += 7
            if not octet & 0x80:
                return value

    while at < len(data):
        key = varint()
        number, kind = key >> 3, key & 7
        if number in fields or kind not in (0, 2):
            violation(f"field {number} of wire type {kind}: {data.hex()}")
        if kind == 0:
            fields[number] = varint()
        else:
            length = varint()
            if at + length > len(data):
                violation(f"a field ends behind its message: {data.hex()}")
            fields[number] = data[at:at + length]
            at += length
    return fields


def text_of(fields, number, what):
    value = fields.get(number, b"")
    try:
        return value.decode()
    except (UnicodeDecodeError, AttributeError):
        violation(f"{what} is no text")


def ack(error=""):
    encoded = error.encode()[:100]
    body = bytes([0x0A, len(encoded)]) + encoded if encoded else b""
    return bytes([0x0A, len(body)]) + body


# --- carrying


def plain(address):
    return address.removeprefix("::ffff:") if "." in address else address


def marked_socket(family, kind=socket.SOCK_STREAM):
    sock = socket.socket(family, kind | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
    return sock


def allow_foreign_address(sock):
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, IPV6_FREEBIND, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, IP_TRANSPARENT, 1)
        sock.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)


def original_destination(sock):
    with contextlib.suppress(OSError):
        _, port, address = struct.unpack("!HH4s8x", sock.getsockopt(socket.IPPROTO_IP, SO_ORIGINAL_DST, 16))
        return [socket.inet_ntop(socket.AF_INET, address), port]
    with contextlib.suppress(OSError):
        _, port, _, address = struct.unpack("!HHI16s4x", sock.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, 28))
        return [socket.inet_ntop(socket.AF_INET6, address), port]
    name = sock.getsockname()
    return [plain(name[0]), name[1]]


async def copy(reader, writer):
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


def reset(sock):
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


class Workload:
    """One pod: its listeners, and every connection that they carry."""

    def __init__(self, mesh, uid, info, namespace):
        self.mesh, self.uid, self.info, self.namespace = mesh, uid, info, namespace
        status = os.fstat(namespace)
        self.identity = (status.st_dev, status.st_ino)
        self.sockets, self.tasks = [], set()

    def _inside(self):
        return entered(f"/proc/self/fd/{self.namespace}")

    def start(self):
        """OSError when something is in the way; nothing stays open then."""
        try:
            with self._inside():
                has_ipv6 = os.path.exists("/proc/thread-self/net/if_inet6")
                wildcard = (socket.AF_INET6, "::") if has_ipv6 else (socket.AF_INET, "0.0.0.0")
                wanted = [(*wildcard, 15001, self.outbound), (*wildcard, 15006, self.inbound), (*wildcard, 15008, self.hbone),
                          (socket.AF_INET, "127.0.0.1", 15053, self.dns_by_tcp)]
                if has_ipv6:
                    wanted.append((socket.AF_INET6, "::1", 15053, self.dns_by_tcp))
                listeners = [(self._listener(*place), serve) for *place, serve in wanted]
                datagram = [self._datagram(family, address) for family, address, port, _ in wanted if port == 15053]
        except OSError:
            self._close_sockets()
            raise
        for sock, serve in listeners:
            self._spawn(self._accept(sock, serve))
        for sock in datagram:
            self._spawn(self._serve_dns(sock))

    def _spawn(self, coroutine):
        task = asyncio.get_running_loop().create_task(coroutine)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    def _listener(self, family, address, port):
        sock = marked_socket(family)
        self.sockets.append(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if address == "::" else 1)
        if port != 15053:
            allow_foreign_address(sock)
        sock.bind((address, port))
        sock.listen(1024)
        return sock

    def _datagram(self, family, address):
        sock = marked_socket(family, socket.SOCK_DGRAM)
        self.sockets.append(sock)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind((address, 15053))
        return sock

    def _close_sockets(self):
        for sock in self.sockets:
            sock.close()
        self.sockets = []

    def stop(self):
        """Listeners first; what is carried breaks."""
        for task in list(self.tasks):
            task.cancel()
        self._close_sockets()
        os.close(self.namespace)

    async def _accept(self, listener, serve):
        while True:
            sock, peer = await asyncio.get_running_loop().sock_accept(listener)
            self._spawn(self._accepted(sock, peer, serve))

    async def _accepted(self, sock, peer, serve):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
        source, destination = [plain(peer[0]), peer[1]], original_destination(sock)
        writer = None
        try:
            reader, writer = await asyncio.open_connection(sock=sock)
            await serve(reader, writer, source, destination)
        except OSError as error:
            tell("failed", uid=self.uid, source=source, destination=destination, error=str(error))
            reset(sock)
        except asyncio.CancelledError:
            reset(sock)
            raise
        finally:
            if writer:
                writer.close()
            else:
                sock.close()

    async def _connect(self, address, port, source=None):
        with self._inside():
            sock = marked_socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        try:
            if source:
                allow_foreign_address(sock)
                sock.bind((source, 0))
            await asyncio.get_running_loop().sock_connect(sock, (address, port))
            return await asyncio.open_connection(sock=sock)
        except BaseException:
            sock.close()
            raise

    async def _carry(self, reader, writer, onward):
        try:
            await asyncio.gather(copy(reader, onward[1]), copy(onward[0], writer))
        finally:
            onward[1].close()

    async def outbound(self, reader, writer, source, destination):
        is_mesh = destination[0] in self.mesh.addresses
        tell("outbound", uid=self.uid, source=source, destination=destination, onward="tunnel" if is_mesh else "direct")
        if not is_mesh:
            await self._carry(reader, writer, await self._connect(*destination))
            return
        there = await self._connect(destination[0], 15008)
        there[1].write(f"CONNECT {destination[0]}|{destination[1]}\n".encode())
        await self._carry(reader, writer, there)

    async def inbound(self, reader, writer, source, destination):
        tell("inbound", uid=self.uid, source=source, destination=destination)
        await self._carry(reader, writer, await self._connect(*destination, source=source[0]))

    async def hbone(self, reader, writer, source, _destination):
        verb, _, target = (await reader.readline()).decode().strip().partition(" ")
        address, _, port = target.partition("|")
        if verb != "CONNECT":
            return
        tell("hbone", uid=self.uid, source=source, destination=[address, int(port)])
        await self._carry(reader, writer, await self._connect(address, int(port), source=source[0]))

    async def dns_by_tcp(self, reader, writer, source, destination):
        tell("dns", uid=self.uid, source=source, destination=destination, by="tcp")
        await self._carry(reader, writer, await self._connect(*destination))

    async def _serve_dns(self, listener):
        while True:
            query, source = await asyncio.get_running_loop().sock_recvfrom(listener, 65535)
            self._spawn(self._answer_dns(listener, query, source))

    async def _answer_dns(self, listener, query, source):
        upstream = self.mesh.name_server
        tell("dns", uid=self.uid, source=[plain(source[0]), source[1]], by="udp")
        if not upstream:
            return
        with self._inside():
            sock = marked_socket(socket.AF_INET6 if ":" in upstream else socket.AF_INET, socket.SOCK_DGRAM)
        with sock, contextlib.suppress(OSError, TimeoutError):
            sock.connect((upstream, 53))
            sock.send(query)
            answer = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 65535), 5)
            listener.sendto(answer, source)


# --- what the control plane knows


class Mesh:
    def __init__(self, url, authority, token):
        self.url, self.token = url, token
        self.context = ssl.create_default_context(cafile=authority)
        self.addresses, self.pods = set(), {}
        self.name_server = os.environ.get("NAME_SERVER")

    def _list(self):
        request = urllib.request.Request(f"{self.url}/api/v1/pods", headers={"Authorization": f"Bearer {self.token}"})
        with urllib.request.urlopen(request, timeout=10, context=self.context) as answer:
            return json.load(answer)["items"]

    async def follow(self):
        while True:
            with contextlib.suppress(OSError, ValueError):
                self.take(await asyncio.get_running_loop().run_in_executor(None, self._list))
            await asyncio.sleep(POLL_SECONDS)

    def take(self, pods):
        addresses = set()
        for pod in pods:
            metadata, status = pod["metadata"], pod.get("status", {})
            self.pods[metadata["uid"]] = (metadata["name"], metadata["namespace"], pod["spec"].get("serviceAccountName", "default"))
            if metadata.get("annotations", {}).get("ambient.istio.io/redirection") == "enabled" and \
                    status.get("phase") not in ("Succeeded", "Failed"):
                addresses.update(entry["ip"] for entry in status.get("podIPs", []))
        if addresses != self.addresses:
            tell("mesh", addresses=sorted(addresses))
        self.addresses = addresses

    async def check_identity(self, uid, info):
        for _ in range(40):
            if uid in self.pods:
                if self.pods[uid] != info:
                    violation(f"the Add of {uid} says {info}, the control plane {self.pods[uid]}")
                return
            await asyncio.sleep(POLL_SECONDS)
        tell("unknown", uid=uid, info=info)


# --- the protocol


class Tunnel:
    def __init__(self, path, mesh):
        self.path, self.mesh = path, mesh
        self.workloads = {}

    async def run(self):
        wait = 0.02
        while True:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
            try:
                await asyncio.get_running_loop().sock_connect(sock, self.path)
                wait = 0.02
                await self.serve(sock)
            except OSError as error:
                tell("unconnected", error=str(error))
            finally:
                sock.close()
            await asyncio.sleep(wait)
            wait = min(wait * 2, 15)

    async def receive(self, sock):
        loop = asyncio.get_running_loop()
        while True:
            try:
                data, control, flags, _ = sock.recvmsg(LARGEST_REQUEST, socket.CMSG_SPACE(16 * 4))
                break
            except BlockingIOError:
                readable = loop.create_future()
                loop.add_reader(sock, lambda: readable.done() or readable.set_result(None))
                try:
                    await readable
                finally:
                    loop.remove_reader(sock)
        if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            violation("a request of more than 1024 octets, or too many descriptors")
        descriptors = array.array("i")
        for level, kind, content in control:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                descriptors.frombytes(content[:len(content) - len(content) % descriptors.itemsize])
        return data, list(descriptors)

    async def serve(self, sock):
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(sock, bytes((0x08, 0x01)))
        tell("connected")
        known, is_snapshot = set(), True
        while True:
            data, descriptors = await self.receive(sock)
            if not data:
                tell("disconnected")
                return
            request = decode(data)
            if len(request) != 1 or not isinstance(next(iter(request.values())), bytes):
                violation(f"no single payload: {data.hex()}")
            (kind, body), = request.items()
            if len(descriptors) != (1 if kind == 1 else 0):
                violation(f"{len(descriptors)} descriptors with payload {kind}")
            fields = decode(body)
            error = ""
            if kind == 1:
                error = self.add(fields, descriptors[0], known)
            elif kind == 2:
                uid = text_of(fields, 2, "DelWorkload.uid")
                if not uid or is_snapshot:
                    violation(f"a Del of {uid!r}" + (" before SnapshotSent" if is_snapshot else ""))
                known.discard(uid)
                self.delete(uid)
            elif kind == 5:
                uid = text_of(fields, 1, "KeepWorkload.uid")
                if not is_snapshot or not uid:
                    violation(f"a Keep of {uid!r}" + ("" if is_snapshot else " after SnapshotSent"))
                known.add(uid)
                tell("keep", uid=uid)
            elif kind == 3:
                if not is_snapshot:
                    violation("a second SnapshotSent")
                is_snapshot = False
                stale = sorted(set(self.workloads) - known)
                tell("snapshot", known=sorted(known), stale=stale)
                for uid in stale:
                    self.delete(uid)
            else:
                violation(f"payload {kind} is none of ZDS")
            await loop.sock_sendall(sock, ack(error))

    def add(self, fields, namespace, known):
        uid = text_of(fields, 1, "AddWorkload.uid")
        if not uid or 2 not in fields:
            violation(f"an Add without uid or workload_info: {fields}")
        information = decode(fields[2])
        info = tuple(text_of(information, number, "WorkloadInfo") for number in (1, 2, 3))
        spawn(self.mesh.check_identity(uid, info))
        known.add(uid)
        workload = Workload(self.mesh, uid, info, namespace)
        present = self.workloads.get(uid)
        if present and present.identity == workload.identity:
            os.close(namespace)
            tell("add", uid=uid, info=info, result="present")
            return ""
        if present:
            self.delete(uid)
        try:
            workload.start()
        except OSError as error:
            os.close(namespace)
            tell("add", uid=uid, info=info, result=str(error))
            return f"cannot start: {error}"
        self.workloads[uid] = workload
        tell("add", uid=uid, info=info, result="new")
        return ""

    def delete(self, uid):
        workload = self.workloads.pop(uid, None)
        tell("del", uid=uid, known=workload is not None)
        if workload:
            workload.stop()


async def main(path, url, authority, token):
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, lambda: os._exit(0))
    mesh = Mesh(url, authority, token)
    follower = spawn(mesh.follow())
    await Tunnel(path, mesh).run()
    follower.cancel()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
