"""A tunnel that listens on IPv4 alone (ztunnel's IPV6_ENABLED is off) in pods that have IPv6: redirects of IPv6 would lead nowhere,
and connections around the mesh nobody asked for."""
import socket

import pytest

from .cni import Runtime
from .node import eventually


@pytest.fixture
def node(new_node):
    node = new_node(listeners=True)
    node.tunnel.has_ipv6 = False
    return node


def connects(node, address, port=7000):
    """From the host, whose connections bear the probe address: the pod answers by its default route."""
    with node.host, socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET) as sock:
        sock.settimeout(3)
        try:
            sock.connect((address, port))
        except ConnectionRefusedError:
            return False
    return True


def serve(pod):
    pod.netns.ip("route add default via fd91::1\n")
    with pod.netns:
        sock = socket.socket(socket.AF_INET6)
    sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
    sock.bind(("::", 7000))
    sock.listen(64)
    return sock


def out(node, pod, family):
    """Whether the pod reaches the host in this family."""
    with node.host:
        server = socket.create_server(("::", 7001), family=socket.AF_INET6, dualstack_ipv6=True)
    with pod.netns:
        sock = socket.socket(family)
    with server, sock:
        sock.settimeout(3)
        try:
            sock.connect(("fd91::1" if family == socket.AF_INET6 else "10.91.0.1", 7001))
        except ConnectionRefusedError:
            return False
    return True


def test_a_pod_that_runs_waits_and_nothing_of_it_breaks(node):
    pod = node.pod()
    with serve(pod):
        node.join()
        node.wait_for("failed")
        assert pod.uid in node.tunnel.workloads and not pod.redirects()
        assert connects(node, pod.address) and connects(node, pod.address6)
        assert out(node, pod, socket.AF_INET) and out(node, pod, socket.AF_INET6)
        view = pod.view()
        assert "IPV6_ENABLED" in view["lastError"] and pod.address6 in view["lastError"] and not view["annotation"]
        # It goes on asking, ever more seldom, and is in when the tunnel comes back with IPv6.
        node.tunnel.has_ipv6 = True
        node.tunnel.kill()
        pod.enter()
        node.wait_for("enabled")
        assert pod.view()["lastError"] == ""
        # Once in, it stays in, whatever the tunnel does: the other way its traffic would leave in plain text.
        node.tunnel.has_ipv6 = False
        node.tunnel.kill()
        node.tunnel.wait(lambda: pod.uid in node.tunnel.workloads)
        node.kill()
        node.start()
        pod.enter()
        assert not out(node, pod, socket.AF_INET6) and out(node, pod, socket.AF_INET)


def test_it_leaves_while_it_waits(node):
    pod = node.pod()
    node.join()
    node.wait_for("failed")
    node.leave()
    pod.exit()
    assert pod.view()["lastError"] == ""


def test_an_annotation_of_an_earlier_life_goes(new_cluster):
    node = new_cluster(listeners=True)
    node.tunnel.has_ipv6 = False
    pod = node.pod(show=False)
    pod.annotations["ambient.istio.io/redirection"] = "enabled"
    pod.show()
    node.join()
    eventually(lambda: pod.annotation() is None)
    assert not pod.redirects()


@pytest.mark.parametrize("reason", ["the setting", "no such address"])
def test_who_leaves_ipv6_alone_is_in(new_node, reason):
    node = new_node(listeners=True, settings=["redirect.ipv6=false"] if reason == "the setting" else ())
    node.tunnel.has_ipv6 = False
    pod = node.pod(show=False)
    if reason == "no such address":
        pod.status["podIPs"] = [{"ip": pod.address}]
    pod.show()
    node.join()
    node.wait_for("enabled")
    assert pod.redirects() and out(node, pod, socket.AF_INET)
    assert out(node, pod, socket.AF_INET6) == (reason == "the setting")


def test_a_new_pod_starts_and_says_so(node):
    """Nothing of it can break yet, and IPv4 works: IPv6 is refused, not sent around the mesh."""
    runtime = Runtime(node)
    node.join()
    pod = node.pod(starts=True)
    runtime.add(pod)
    assert pod.is_in() and out(node, pod, socket.AF_INET) and not out(node, pod, socket.AF_INET6)
    node.log_has("listens on port 15001 for IPv4 only")


def test_a_new_pod_that_has_nothing_else_does_not_start(node):
    runtime = Runtime(node)
    node.join()
    pod = node.pod(starts=True)
    status, error = runtime.call("ADD", pod, ips=[f"{pod.address6}/64"])
    assert status == 1 and error["code"] == 102 and "IPV6_ENABLED" in error["msg"], error
    eventually(lambda: not pod.traces() and not node.probes() and pod.uid not in node.tunnel.workloads)
    assert not runtime.attachments()
    node.tunnel.has_ipv6 = True
    runtime.add(pod, ips=[f"{pod.address6}/64"])
    assert pod.redirects() and out(node, pod, socket.AF_INET6)


@pytest.mark.parametrize("starts", [True, False], ids=["new", "running"])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
def test_a_pod_of_one_family(new_node, family, starts):
    """It has nothing of the other one; the tunnel has both."""
    node = new_node(listeners=True)
    node.join()
    pod = node.pod(show=False, starts=starts)
    address = pod.address if family == socket.AF_INET else pod.address6
    if family == socket.AF_INET6:
        pod.netns.ip(f"addr del {pod.address}/16 dev eth0\n")
    else:
        pod.netns.sysctl("net.ipv6.conf.eth0.disable_ipv6", 1)
    if not starts:
        pod.status.update(podIP=address, podIPs=[{"ip": address}])
    pod.show()
    runtime = Runtime(node)
    if starts:
        runtime.add(pod, ips=[f"{address}/{16 if family == socket.AF_INET else 64}"])
    node.wait_for("enabled")
    assert pod.redirects() and node.probes() == {address}

    def carried():
        return sum(event["event"] == "carried" for event in node.tunnel.events)
    before = carried()
    assert out(node, pod, family)
    eventually(lambda: carried() > before, what=lambda: node.tunnel.events[-5:])
    if starts:
        runtime.check(pod)
    node.leave()
    eventually(lambda: not pod.traces() and not node.probes() and not node.tunnel.workloads)
