"""What changes under pods that run: annotations, settings, addresses, phases, uids; and what is never selected."""
import socket
import time

import pytest

from .cni import Runtime
from .netlink import Changes
from .node import eventually

AMBIENT = {"istio.io/dataplane-mode": "ambient"}


def table(pod):
    return pod.netns.run("nft", "list", "table", "inet", "ambient-cni", check=False)


def test_a_changed_annotation_replaces_the_rules_at_once(node):
    pod, other = node.pod(), node.pod()
    node.join()
    pod.enter()
    other.enter()
    handles = other.handles()
    assert "15053" in table(pod)
    with Changes(pod.netns) as changes:
        pod.annotations["ambient.istio.io/dns-capture"] = "false"
        pod.show()
        eventually(lambda: "15053" not in table(pod))
        time.sleep(0.1)
    assert len(changes.times) <= 2, "one transaction"
    assert pod.redirects() and other.handles() == handles
    pod.annotations["ambient.istio.io/bypass-inbound-capture"] = "true"
    pod.show()
    eventually(lambda: "input-redirect" not in table(pod) and "prerouting" not in table(pod) or
               "redirect to :15006" not in table(pod))
    del pod.annotations["ambient.istio.io/dns-capture"], pod.annotations["ambient.istio.io/bypass-inbound-capture"]
    pod.show()
    eventually(lambda: "15053" in table(pod) and "redirect to :15006" in table(pod))
    assert [kind for kind, uid in node.tunnel.requests if uid == pod.uid] == ["add"]


def test_an_invalid_annotation_is_ignored_with_a_word(node):
    pod = node.pod(show=False)
    pod.annotations["ambient.istio.io/dns-capture"] = "ja"
    pod.annotations["ambient-cni.io/exclude-outbound-ports"] = "99"
    pod.show(**AMBIENT)
    pod.enter()
    assert "15053" in table(pod)
    log = node.log_has('annotation ambient.istio.io/dns-capture="ja" is ignored')
    assert "allowPodExclusions is false" in log


def test_exclusions_where_they_are_allowed(new_node):
    node = new_node(settings=["allowPodExclusions=true"])
    pod = node.pod(show=False)
    pod.annotations["ambient-cni.io/exclude-outbound-ports"] = "99, 5000-5010"
    pod.show(**AMBIENT)
    pod.enter()
    assert "5000-5010" in table(pod)
    pod.annotations["ambient-cni.io/exclude-outbound-ports"] = "99"
    pod.show()
    eventually(lambda: "5000-5010" not in table(pod))
    assert pod.redirects()


def test_a_changed_node_default_reaches_running_pods(node):
    pod = node.pod()
    node.join()
    pod.enter()
    node.stop()
    node.settings.append("redirect.dnsCapture=false")
    node.start()
    pod.enter()
    eventually(lambda: "15053" not in table(pod))
    assert pod.redirects()


def test_an_address_moves_to_another_pod(node):
    old, new = node.pod(), node.pod(show=False)
    node.join()
    old.enter()
    address = old.address
    old.netns.ip(f"addr del {address}/16 dev eth0\n")
    new.address = address
    new.netns.ip(f"addr add {address}/16 dev eth0\n")
    new.show()
    eventually(lambda: new.redirects() and new.is_probed())
    # The late end of the old one does not take the address away.
    old.hide()
    eventually(lambda: not old.traces())
    time.sleep(0.2)
    assert new.is_in() and new.address in node.probes() and old.address6 not in node.probes()


def test_a_pod_that_has_ended_leaves(node):
    pod, other = node.pod(), node.pod()
    node.join()
    pod.enter()
    other.enter()
    pod.status["phase"] = "Succeeded"
    pod.show()
    pod.exit()
    assert other.is_in()


def test_a_deleted_object_of_a_pod_that_runs(node):
    """Nothing of ours stays in it, nor on the host, nor in the tunnel."""
    pod = node.pod()
    node.join()
    pod.enter()
    pod.hide()
    pod.exit()
    eventually(lambda: node.enrolled() == set())


NEVER = {
    "it opts out": lambda pod: pod.labels.update({"istio.io/dataplane-mode": "none"}),
    "it has a sidecar": lambda pod: pod.annotations.update({"sidecar.istio.io/status": "{}"}),
    "it has ended": lambda pod: pod.status.update(phase="Failed"),
    "it is in an excluded namespace": lambda pod: (setattr(pod, "namespace", "kube-system"), pod.labels.update(AMBIENT)),
    "it has the host's network": lambda pod: setattr(pod, "host_network", True),
}


@pytest.mark.parametrize("why", NEVER)
def test_never_selected(node, why):
    node.join("shop")
    node.join("kube-system")
    pod, witness = node.pod(show=False), node.pod()
    NEVER[why](pod)
    pod.show()
    witness.enter()
    time.sleep(0.1)
    assert not pod.traces() and pod.uid not in node.tunnel.workloads and not pod.is_probed()
    assert pod.view()["wanted"] is False, "what keeps it out is no more than that it can't be found"
    # And a pod that comes to be so leaves.
    if why != "it has the host's network" and why != "it is in an excluded namespace":
        NEVER[why](witness)
        witness.show()
        witness.exit()


def test_labels_of_pod_and_namespace(node):
    by_label, out = node.pod(show=False), node.pod()
    by_label.show(**AMBIENT)
    by_label.enter()
    assert not out.traces()
    node.join()
    out.enter()
    by_label.labels.clear()
    by_label.show()
    time.sleep(0.1)
    assert by_label.is_in()
    node.leave()
    by_label.exit()
    out.exit()


def test_the_namespace_object_goes(node):
    pod = node.pod()
    node.join()
    pod.enter()
    node.unlink("namespace-shop.json")
    pod.exit()
    node.join()
    pod.enter()


def test_one_uid_in_two_network_namespaces(node):
    """A sandbox made anew although the old one's processes are still there: the one that the ADD brought counts."""
    runtime = Runtime(node)
    node.join()
    first = node.pod(starts=True, name="cart")
    runtime.add(first, container="first")
    second = node.pod(show=False, starts=True, name="cart")
    second.uid = first.uid
    first.hide()
    second.show()
    runtime.add(second, container="second")
    node.kill()
    node.start()
    second.enter()
    assert node.tunnel.workloads[second.uid].identity[1] == int(second.netns.run("stat", "-Lc", "%i", "/proc/self/ns/net"))
    assert node.probes() == {second.address, second.address6}


def test_a_probe_of_the_node_reaches_the_pod_past_the_tunnel(new_node):
    """The kubelet's probe is answered by the pod itself, from the host, in the mesh, throughout."""
    node = new_node(listeners=True)
    pod = node.pod()
    with pod.netns:
        server = socket.create_server(("0.0.0.0", 8080))
    node.join()
    pod.enter()
    before = len(node.tunnel.events)
    with node.host:
        client = socket.create_connection((pod.address, 8080), timeout=5)
    connection, source = server.accept()
    assert source[0] == "169.254.7.127"
    client.close()
    connection.close()
    assert not [event for event in node.tunnel.events[before:] if event["event"] == "carried"]
