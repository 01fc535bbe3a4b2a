"""A node tunnel in small, for one pod, started inside its network namespace: it binds what ztunnel binds (every socket marked
0x539), finds out where a connection was meant to go, says so as one JSON line on standard output, and carries the bytes there.

    15001  outbound: on to the original destination, or by CONNECT to the destination's tunnel (15008) where that is in the mesh
    15006  inbound: on to the application, with the client's own address as source
    15008  inbound from another tunnel: in the clear here, mutual TLS and HTTP/2 in the real one
    15053  DNS, UDP and TCP: on to the name server

A line on standard input, a JSON list, names the addresses in the mesh."""
import asyncio
import contextlib
import json
import os
import socket
import struct
import sys

MARK = 0x539
SO_ORIGINAL_DST = 80
IPV6_TRANSPARENT = 75
IPV6_FREEBIND = 78
IP_TRANSPARENT = 19
IP_FREEBIND = 15

mesh = set()
tasks = set()


def tell(**event):
    sys.stdout.write(json.dumps(event) + "\n")
    sys.stdout.flush()


def plain(address):
    """An IPv4 address without the prefix that a dual-stack socket gives it."""
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
        return socket.inet_ntop(socket.AF_INET, address), port
    with contextlib.suppress(OSError):
        _, port, _, address = struct.unpack("!HHI16s4x", sock.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, 28))
        return socket.inet_ntop(socket.AF_INET6, address), port
    name = sock.getsockname()
    return plain(name[0]), name[1]


async def connect(address, port, source=None):
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


async def copy(reader, writer):
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()


async def carry(here, there):
    await asyncio.gather(copy(here[0], there[1]), copy(there[0], here[1]))


async def outbound(reader, writer, source, destination):
    if destination[0] not in mesh:
        tell(listener="outbound", source=source, destination=destination, onward="direct")
        await carry((reader, writer), await connect(*destination))
        return
    tell(listener="outbound", source=source, destination=destination, onward="tunnel")
    there = await connect(destination[0], 15008)
    there[1].write(f"CONNECT {destination[0]}|{destination[1]}\n".encode())
    await carry((reader, writer), there)


async def inbound(reader, writer, source, destination):
    tell(listener="inbound", source=source, destination=destination)
    await carry((reader, writer), await connect(*destination, source=source[0]))


async def hbone(reader, writer, source, _destination):
    verb, _, target = (await reader.readline()).decode().strip().partition(" ")
    address, _, port = target.partition("|")
    tell(listener="hbone", source=source, destination=[address, int(port)], verb=verb)
    await carry((reader, writer), await connect(address, int(port), source=source[0]))


async def dns_by_tcp(reader, writer, source, destination):
    tell(listener="dns-tcp", source=source, destination=destination)
    await carry((reader, writer), await connect(*destination))


async def listen(family, address, port, serve, is_transparent):
    """Accepts by hand: the accepted sockets must carry the mark too, and a reset by a client is no news."""
    listener = marked_socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if address == "::" else 1)
    if is_transparent:
        allow_foreign_address(listener)
    listener.bind((address, port))
    listener.listen(1024)

    async def accepted(sock, peer):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, MARK)
        destination = original_destination(sock)
        reader, writer = await asyncio.open_connection(sock=sock)
        try:
            await serve(reader, writer, [plain(peer[0]), peer[1]], list(destination))
        except OSError as error:
            tell(listener="error", source=[plain(peer[0]), peer[1]], destination=list(destination), error=str(error))
        finally:
            writer.close()

    async def accept():
        while True:
            task = asyncio.create_task(accepted(*await asyncio.get_running_loop().sock_accept(listener)))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    task = asyncio.create_task(accept())
    tasks.add(task)


class DnsByUdp(asyncio.DatagramProtocol):
    """Every query goes on from a socket of its own; the answer goes back the way that the query came."""

    def __init__(self, upstream):
        self.upstream = upstream

    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, source):
        tell(listener="dns", source=[plain(source[0]), source[1]], destination=self.upstream, octets=len(data))
        task = asyncio.create_task(self.ask(data, source))
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    async def ask(self, data, source):
        with marked_socket(socket.AF_INET6 if ":" in self.upstream[0] else socket.AF_INET, socket.SOCK_DGRAM) as sock:
            sock.connect(tuple(self.upstream))
            sock.send(data)
            answer = await asyncio.wait_for(asyncio.get_running_loop().sock_recv(sock, 65535), 5)
            self.transport.sendto(answer, source)


async def main(name_server):
    loop = asyncio.get_running_loop()
    has_ipv6 = os.path.exists("/proc/net/if_inet6")
    family, wildcard = (socket.AF_INET6, "::") if has_ipv6 else (socket.AF_INET, "0.0.0.0")
    for port, serve in ((15001, outbound), (15006, inbound), (15008, hbone)):
        await listen(family, wildcard, port, serve, True)
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        if family == socket.AF_INET6 and not has_ipv6:
            continue
        await listen(family, address, 15053, dns_by_tcp, False)
        sock = marked_socket(family, socket.SOCK_DGRAM)
        sock.bind((address, 15053))
        await loop.create_datagram_endpoint(lambda: DnsByUdp([name_server, 53]), sock=sock)
    tell(listener="ready")

    commands = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(commands), sys.stdin)
    while line := await commands.readline():
        mesh.clear()
        mesh.update(json.loads(line))
        tell(listener="mesh", addresses=sorted(mesh))


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
