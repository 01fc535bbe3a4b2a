"""What conntrack remembers of a pod's connections, and a kernel that can't be told to forget."""
import socket

from tests.netns import conntrack

from .cni import Runtime
from .node import BUILD, WITH_PRELOAD, eventually
from .test_flips import carried

PORT = 40001
SERVER_PORT = 7300


def listen(outside):
    """In both families."""
    with outside.netns:
        return socket.create_server(("::", SERVER_PORT), family=socket.AF_INET6, dualstack_ipv6=True)


def connect(pod, address):
    """From the same port each time."""
    with pod.netns:
        sock = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("", PORT))
    sock.settimeout(5)
    sock.connect((address, SERVER_PORT))
    return sock


def accept(server):
    """The pod's own: what the tunnel carried there comes from another port."""
    while True:
        peer, address = server.accept()
        if address[1] == PORT:
            peer.settimeout(5)
            return peer
        peer.close()


def is_carried(node, pod, address):
    """A new connection from the port that an old one had."""
    before = len(node.tunnel.events)
    with connect(pod, address):
        eventually(lambda: [event["destination"] for event in carried(node, before)] == [(address, SERVER_PORT)],
                   what=lambda: f"{address}: {carried(node, before)} {conntrack.flows(pod.netns, 'tcp')}")


def test_a_port_is_used_again_after_an_earlier_enrolment(new_node):
    """A connection of a released pod is tracked while its guard stands, and closed when nobody looks any more. The label comes
    back."""
    node = new_node(listeners=True, drain=1)
    outside, pod = node.pod(show=False), node.pod()
    server = listen(outside)
    for address in (outside.address, outside.address6):
        node.join()
        pod.enter()
        node.leave()
        eventually(lambda: not pod.redirects())
        assert pod.has_table()
        client = connect(pod, address)
        peer = accept(server)
        client.sendall(b"?")
        assert peer.recv(1) == b"?"
        pod.exit()
        peer.close()
        client.close()
        node.join()
        pod.enter()
        is_carried(node, pod, address)
        node.leave()
        pod.exit()


def test_an_idle_connection_is_closed_and_its_port_used_again(new_node):
    """By the server, as one that keeps connections alive for a while does: the client has no TIME_WAIT."""
    node = new_node(listeners=True)
    outside, pod = node.pod(show=False), node.pod()
    server = listen(outside)
    for address in (outside.address, outside.address6):
        client = connect(pod, address)
        peer = accept(server)
        node.join()
        pod.enter()
        peer.close()
        assert client.recv(1) == b""
        client.close()
        is_carried(node, pod, address)
        node.leave()
        pod.exit()


def test_a_kernel_without_conntrack_timeouts(new_node):
    """It is told once; pods are in the mesh all the same, by whatever way, and their rules are as they should be."""
    node = new_node(listeners=True, start=False, tunnel=False)
    environment = {"LD_PRELOAD": str(BUILD / "tests" / "no_conntrack_timeout.so"), **WITH_PRELOAD}
    node.start(**environment)
    node.connect()
    log = node.log_has("the kernel lacks CONFIG_NF_CONNTRACK_TIMEOUT")
    assert log.count("CONFIG_NF_CONNTRACK_TIMEOUT") == 1
    node.join()
    outside, running, new = node.pod(show=False), node.pod(), node.pod(starts=True)
    server = listen(outside)
    running.enter()
    runtime = Runtime(node)
    new.start_by_add(runtime)
    runtime.check(new)
    for pod in (running, new):
        text = pod.netns.run("nft", "list", "table", "inet", "ambient-cni")
        assert "open connections out" in text and "forget" not in text and "ct timeout" not in text
        is_carried(node, pod, outside.address)
    handles = [pod.handles() for pod in (running, new)]
    eventually(lambda: node.enrolled() == {running.uid, new.uid})
    node.stop()
    node.start(**environment)
    node.tunnel.wait(lambda: node.tunnel.is_ready)
    for pod in (running, new):
        pod.enter()
    runtime.check(new)
    assert [pod.handles() for pod in (running, new)] == handles
    # Another kernel, or none of this: the rules become whole.
    node.stop()
    node.start()
    for pod in (running, new):
        eventually(lambda pod=pod: "forget open connections out" in pod.netns.run("nft", "list", "table", "inet", "ambient-cni"))
    eventually(lambda: runtime.call("CHECK", new)[0] == 0)
    server.close()
