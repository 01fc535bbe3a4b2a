"""The node tunnel on a real node: the strict double of tests/peers/tunnel.py, which here decides as peers do by istiod, and cuts what it
carries when it is told to stop.

    tunnel_double.py SOCKET API-URL CA-FILE TOKEN NAME-SERVER       (runs in the node; writes one JSON line for each event)

What peers do follows the annotation ambient.istio.io/redirection: it polls the pods from the API server, and connects to 15008 of every
address whose pod is `enabled`, a moment after it became so. From the same pods it knows the identity that an Add must carry. Whatever
the agent must not send ends it.

    15001  outbound: to the destination's 15008 where that is in the mesh, else to the original destination
    15006  inbound: to the application, with the client's address as source
    15008  from another tunnel: a line "CONNECT ADDRESS|PORT", then as 15006
    15053  DNS: on to the name server, from the pod's own namespace"""
import asyncio
import contextlib
import functools
import json
import os
import signal
import socket
import ssl
import struct
import sys
import time
import urllib.request

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "peers"))
import tunnel  # noqa: E402  pylint: disable=wrong-import-position

POLL_SECONDS = 0.3
IDENTITY_SECONDS = 15
HBONE = 15008


def show(event):
    sys.stdout.write(json.dumps({**event, "time": round(time.time(), 3)}) + "\n")
    sys.stdout.flush()
    if event["event"] == "violation":
        os._exit(3)


class ControlPlane:
    """What istiod would tell: the addresses in the mesh, and who each pod is."""

    def __init__(self, url, authority, token):
        self.request = urllib.request.Request(f"{url}/api/v1/pods", headers={"Authorization": f"Bearer {token}"})
        self.context = ssl.create_default_context(cafile=authority)
        self.addresses, self.identities, self.unproven = set(), {}, []

    def follow(self):
        while True:
            # The API server may be away: what was known stays.
            with contextlib.suppress(OSError, ValueError):
                with urllib.request.urlopen(self.request, timeout=10, context=self.context) as answer:
                    self._take(json.load(answer)["items"])
            self._prove()
            time.sleep(POLL_SECONDS)

    def _take(self, pods):
        addresses = set()
        for pod in pods:
            metadata, status = pod["metadata"], pod.get("status", {})
            self.identities[metadata["uid"]] = {"name": metadata["name"], "namespace": metadata["namespace"],
                                                "service_account": pod["spec"].get("serviceAccountName", "default")}
            if metadata.get("annotations", {}).get("ambient.istio.io/redirection") == "enabled" and \
                    status.get("phase") not in ("Succeeded", "Failed"):
                addresses.update(entry["ip"] for entry in status.get("podIPs", []))
        if addresses != self.addresses:
            show({"event": "mesh", "addresses": sorted(addresses)})
        self.addresses = addresses

    def _prove(self):
        """ztunnel would drop all traffic of a pod that it was told of under a wrong name."""
        now, unproven, self.unproven = time.monotonic(), self.unproven, []
        for uid, info, since in unproven:
            if uid not in self.identities:
                # A pod may have come and gone between two polls.
                if now < since + IDENTITY_SECONDS:
                    self.unproven.append((uid, info, since))
            elif self.identities[uid] != info:
                show({"event": "violation", "text": f"the Add of {uid} says {info}, the control plane {self.identities[uid]}"})


class Listeners(tunnel.PodListeners):
    def __init__(self, loop, workload, tell, control_plane, name_server):
        self.control_plane, self.name_server = control_plane, name_server
        super().__init__(loop, workload.netns, functools.partial(tell, uid=workload.uid))

    async def outbound(self, here, source, destination):
        is_mesh = destination[0] in self.control_plane.addresses
        self.tell("outbound", source=source, destination=destination, onward="tunnel" if is_mesh else "direct")
        if not is_mesh:
            await self.join(here, await self.connect(destination))
            return
        there = await self.connect((destination[0], HBONE))
        there[1].write(f"CONNECT {destination[0]}|{destination[1]}\n".encode())
        await self.join(here, there)

    async def inbound(self, here, source, destination):
        self.tell("inbound", source=source, destination=destination)
        await self.join(here, await self.connect(destination, source[0]))

    async def hbone(self, here, source, _destination):
        address, _, port = (await here[0].readline()).decode().removeprefix("CONNECT ").strip().partition("|")
        self.tell("hbone", source=source, destination=[address, int(port)])
        await self.join(here, await self.connect((address, int(port)), source[0]))

    async def dns_by_tcp(self, here, source, destination):
        self.tell("dns", source=source, by="tcp")
        await self.join(here, await self.connect(destination))

    def dns_by_udp(self, sock):
        with contextlib.suppress(OSError):
            query, source = sock.recvfrom(65535)
            self.tell("dns", source=[tunnel.plain(source[0]), source[1]], by="udp")
            task = self.loop.create_task(self.answer_dns(sock, query, source))
            self.tasks.add(task)
            task.add_done_callback(self.tasks.discard)

    async def answer_dns(self, sock, query, source):
        with tunnel.inside(self.netns):
            onward = tunnel.marked(socket.AF_INET6 if ":" in self.name_server else socket.AF_INET, socket.SOCK_DGRAM)
        with onward, contextlib.suppress(OSError, asyncio.TimeoutError):
            onward.connect((self.name_server, 53))
            onward.send(query)
            sock.sendto(await asyncio.wait_for(self.loop.sock_recv(onward, 65535), 5), source)

    async def carry(self, sock, source, serve):
        """A connection that can't be carried on, or is cut, is reset and not ended: nothing may look like its peer's doing."""
        try:
            await super().carry(sock, source, serve)
        except asyncio.CancelledError:
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            raise

    def close(self):
        """Everything that is carried breaks: an agent that has drained the pod loses nothing."""
        super().close()
        for task in list(self.tasks):
            task.cancel()


class Tunnel(tunnel.Tunnel):
    def __init__(self, path, control_plane, name_server):
        super().__init__(path, listeners=True, on_event=show)
        self.control_plane, self.name_server = control_plane, name_server

    def make_listeners(self, workload):
        return Listeners(self._loop, workload, self.tell, self.control_plane, self.name_server)

    def _add(self, uid, info, descriptors):
        before = self.workloads.get(uid)
        answer = super()._add(uid, info, descriptors)
        if info:
            self.control_plane.unproven.append((uid, info, time.monotonic()))
        if uid in self.workloads and self.workloads[uid] is not before:
            self.tell("started", uid=uid)
        return answer

    def _stop_workload(self, uid):
        """By a Del, by the end of a snapshot that does not name it, or for its successor."""
        if uid in self.workloads:
            self.tell("stopped", uid=uid)
        super()._stop_workload(uid)


def main(path, url, authority, token, name_server):
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    control_plane = ControlPlane(url, authority, token)
    Tunnel(path, control_plane, name_server).start()
    control_plane.follow()


if __name__ == "__main__":
    main(*sys.argv[1:])
