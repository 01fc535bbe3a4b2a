"""An application: answers every line that a client sends with who it is and whom it sees, on TCP ports; with further addresses
it is a name server there too (port 53, UDP and TCP), to which every name is 192.0.2.1.

    server.py NAME PORT[,PORT...] [DNS-ADDRESS...]"""
import asyncio
import contextlib
import os
import socket
import struct
import sys


def plain(address):
    return address.removeprefix("::ffff:") if "." in address else address


async def answer_lines(name, reader, writer):
    client = plain(writer.get_extra_info("peername")[0])
    with contextlib.suppress(OSError):
        while line := await reader.readline():
            writer.write(f"{name} sees {client}: ".encode() + line)
            await writer.drain()
    writer.close()


def answer_query(query):
    """The header with the answer bit and one answer, the question as it came, and an A record that points to its name."""
    return query[:2] + struct.pack("!HHHHH", 0x8180, 1, 1, 0, 0) + query[12:] + struct.pack(
        "!HHHIH4s", 0xC00C, 1, 1, 60, 4, socket.inet_aton("192.0.2.1"))


async def answer_dns_by_tcp(reader, writer):
    with contextlib.suppress(OSError, asyncio.IncompleteReadError):
        while True:
            length, = struct.unpack("!H", await reader.readexactly(2))
            answer = answer_query(await reader.readexactly(length))
            writer.write(struct.pack("!H", len(answer)) + answer)
    writer.close()


class DnsByUdp(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, source):
        self.transport.sendto(answer_query(data), source)


async def main(name, ports, *dns_addresses):
    addresses = ["0.0.0.0", "::"] if os.path.exists("/proc/net/if_inet6") else ["0.0.0.0"]

    async def serve(reader, writer):
        await answer_lines(name, reader, writer)

    for port in ports.split(","):
        await asyncio.start_server(serve, addresses, int(port), backlog=1024)
    for address in dns_addresses:
        await asyncio.start_server(answer_dns_by_tcp, address, 53)
        await asyncio.get_running_loop().create_datagram_endpoint(DnsByUdp, local_addr=(address, 53))
    print('{"listener": "ready"}', flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(main(*sys.argv[1:]))
