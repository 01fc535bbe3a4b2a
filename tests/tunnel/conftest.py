"""What the tests of the tunnel's server share: the server as a program, the double, and namespaces without names."""
import ctypes
import os
import sys
import threading

import pytest

sys.path.insert(0, os.path.dirname(__file__))
sys.path.insert(0, os.path.join(os.path.dirname(__file__), "../peers"))

from server_process import Server  # noqa: E402
from tunnel import Tunnel  # noqa: E402

CLONE_NEWNET = 0x40000000


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "run" / "ztunnel.sock")


@pytest.fixture
def start(path):
    servers = []

    def start_server(ready=True, **limits):
        servers.append(Server(path, **{"accepts": 1000, **limits}))
        if ready:
            servers[-1].say("ready 1")
        return servers[-1]

    os.makedirs(os.path.dirname(path), exist_ok=True)
    yield start_server
    for server in servers:
        server.stop()


@pytest.fixture
def server(start):
    return start()


@pytest.fixture
def new_tunnel(path):
    tunnels = []

    def make(**options):
        tunnels.append(Tunnel(path, **options).start())
        return tunnels[-1]

    yield make
    for tunnel in tunnels:
        tunnel.stop()
    for tunnel in tunnels:
        tunnel.check()


@pytest.fixture
def tunnel(server, new_tunnel):
    """One that is connected and has its (empty) snapshot."""
    made = new_tunnel()
    made.wait(lambda: made.is_ready)
    return made


@pytest.fixture
def new_namespace():
    """Paths of fresh network namespaces, held by descriptors of this process."""
    libc = ctypes.CDLL(None, use_errno=True)
    held = []

    def make():
        result = []

        def unshare():
            assert libc.unshare(CLONE_NEWNET) == 0
            result.append(os.open("/proc/thread-self/ns/net", os.O_RDONLY))

        thread = threading.Thread(target=unshare)
        thread.start()
        thread.join()
        held.extend(result)
        return f"/proc/{os.getpid()}/fd/{result[0]}"

    yield make
    for descriptor in held:
        os.close(descriptor)
