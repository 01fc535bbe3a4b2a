"""A name server that knows one answer to every question for an address (A: 192.0.2.53, AAAA: 2001:db8::53), by UDP and TCP on port 53
of the addresses that it is given. It writes who asked."""
import asyncio
import socket
import struct
import sys

ANSWERS = {1: socket.inet_pton(socket.AF_INET, "192.0.2.53"), 28: socket.inet_pton(socket.AF_INET6, "2001:db8::53")}


def answer(query):
    """The question as it came, and one record that points to its name."""
    end = 12
    while query[end]:
        end += query[end] + 1
    end += 5
    kind, = struct.unpack("!H", query[end - 4:end - 2])
    data = ANSWERS.get(kind)
    header = query[:2] + struct.pack("!HHHHH", 0x8180, 1, 1 if data else 0, 0, 0)
    record = struct.pack("!HHHIH", 0xC00C, kind, 1, 60, len(data)) + data if data else b""
    return header + query[12:end] + record


class ByUdp(asyncio.DatagramProtocol):
    def connection_made(self, transport):
        self.transport = transport

    def datagram_received(self, data, address):
        print("udp", address[0], flush=True)
        self.transport.sendto(answer(data), address)


async def by_tcp(reader, writer):
    print("tcp", writer.get_extra_info("peername")[0], flush=True)
    length, = struct.unpack("!H", await reader.readexactly(2))
    reply = answer(await reader.readexactly(length))
    writer.write(struct.pack("!H", len(reply)) + reply)
    await writer.drain()
    writer.close()


async def main(addresses):
    for address in addresses:
        await asyncio.get_running_loop().create_datagram_endpoint(ByUdp, local_addr=(address, 53))
        await asyncio.start_server(by_tcp, address, 53)
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1:]))
