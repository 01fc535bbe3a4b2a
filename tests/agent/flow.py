"""Traffic between two network namespaces, as a program of its own, so that nothing else holds it up: one connection in each
direction that stays open, and new ones all the time, in both directions and families.

    flow.py CLIENT POD CLIENT_ADDRESSES POD_ADDRESSES [INTERVAL]      namespaces by path, addresses with commas

Prints "ready" when the lasting connections talk, and, after the end of its standard input, one JSON object."""
import asyncio
import itertools
import json
import os
import pathlib
import socket
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from peers.sockets import listen_in, socket_in  # noqa: E402

PORT = 7000
PATIENCE = 4


class Flow:
    def __init__(self, client, pod, client_addresses, pod_addresses, interval):
        self.namespaces = {name: os.open(path, os.O_RDONLY) for name, path in (("client", client), ("pod", pod))}
        self.addresses = {"client": client_addresses, "pod": pod_addresses}
        self.interval = interval
        self.started = time.monotonic()
        self.opened, self.lost, self.slowest = 0, [], 0.0
        self.lasting = {}
        self.is_stopping = False

    async def serve(self, where):
        sock = listen_in(self.namespaces[where], PORT)

        async def echo(reader, writer):
            try:
                while data := await reader.read(4096):
                    writer.write(data)
                    await writer.drain()
            except OSError:
                pass
            finally:
                writer.close()
        return await asyncio.start_server(echo, sock=sock)

    async def connect(self, where, address):
        sock = socket_in(self.namespaces[where], socket.AF_INET6 if ":" in address else socket.AF_INET)
        try:
            await asyncio.get_running_loop().sock_connect(sock, (address, PORT))
            return await asyncio.open_connection(sock=sock)
        except BaseException:
            sock.close()
            raise

    async def ask(self, reader, writer):
        writer.write(b"question")
        if await reader.readexactly(8) != b"question":
            raise ConnectionError("another answer")

    async def last(self, where, address):
        """One connection that stays."""
        state = self.lasting[f"{where} to {address}"] = {"answers": 0, "longest": 0.0, "failure": None}
        try:
            reader, writer = await asyncio.wait_for(self.connect(where, address), PATIENCE)
            while not self.is_stopping:
                before = time.monotonic()
                await asyncio.wait_for(self.ask(reader, writer), PATIENCE)
                state["answers"] += 1
                state["longest"] = max(state["longest"], time.monotonic() - before)
                await asyncio.sleep(self.interval)
            writer.close()
        except Exception as error:
            state["failure"] = f"{error!r} after {time.monotonic() - self.started:.3f} s"

    async def once(self, where, address):
        before = time.monotonic()
        step = "connect"

        async def whole():
            nonlocal step
            reader, writer = await self.connect(where, address)
            try:
                step = "talk"
                await self.ask(reader, writer)
            finally:
                writer.close()
        self.opened += 1
        try:
            await asyncio.wait_for(whole(), PATIENCE)
            self.slowest = max(self.slowest, time.monotonic() - before)
        except Exception as error:
            self.lost.append(f"{where} to {address} ({step}): {error!r}, opened after {before - self.started:.3f} s")

    async def run(self):
        servers = [await self.serve(where) for where in ("client", "pod")]
        directions = [(where, address) for where, other in (("client", "pod"), ("pod", "client"))
                      for address in self.addresses[other]]
        tasks = {asyncio.create_task(self.last(*direction)) for direction in directions}
        while not all(state["answers"] for state in self.lasting.values()) or not self.lasting:
            await asyncio.sleep(0.01)
        print("ready", flush=True)
        end = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
        for direction in itertools.cycle(directions):
            if end.done():
                break
            task = asyncio.create_task(self.once(*direction))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
            await asyncio.sleep(self.interval)
        self.is_stopping = True
        await asyncio.gather(*tasks)
        for server in servers:
            server.close()
        print(json.dumps({"opened": self.opened, "lost": self.lost, "slowest": self.slowest, "lasting": self.lasting,
                          "started": self.started}), flush=True)


if __name__ == "__main__":
    asyncio.run(Flow(*sys.argv[1:3], *(text.split(",") for text in sys.argv[3:5]),
                     float(sys.argv[5]) if len(sys.argv) > 5 else 0.005).run())
