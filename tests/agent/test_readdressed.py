"""A pod's addresses change while it runs: same sandbox, same network namespace. Its interface has others, then the kubelet reports them."""
import json
import time

import pytest

from .cni import Runtime
from .netlink import Changes
from .node import eventually


def move(pod, address, address6):
    """None: that family goes, or stays away."""
    for old, new, bits, nodad in (pod.address, address, 16, ""), (pod.address6, address6, 64, " nodad"):
        if old != new:
            pod.netns.ip(("" if old is None else f"addr del {old}/{bits} dev eth0\n") +
                         ("" if new is None else f"addr add {new}/{bits} dev eth0{nodad}\n"))
    if address:
        pod.netns.ip("route replace default via 10.91.0.1\n")
    pod.address, pod.address6 = address, address6
    pod.status = {"podIP": (address or address6), "podIPs": [{"ip": ip} for ip in (address, address6) if ip]}


def addresses(pod):
    return {address for address in (pod.address, pod.address6) if address}


def new_address(number):
    return f"10.91.200.{number}"


def new_address6(number):
    return f"fd91::c8:{number}"


CHANGES = {
    "both": lambda pod: move(pod, new_address(pod.number), new_address6(pod.number)),
    "IPv4": lambda pod: move(pod, new_address(pod.number), pod.address6),
    "IPv6": lambda pod: move(pod, pod.address, new_address6(pod.number)),
    "IPv6 goes": lambda pod: move(pod, pod.address, None),
    "IPv4 goes": lambda pod: move(pod, None, pod.address6),
    "to the other family": lambda pod: (move(pod, pod.address, None), move(pod, None, new_address6(pod.number))),
}


def settled(cluster, pod):
    eventually(lambda: cluster.probes() == addresses(pod), 5, what=lambda: f"{cluster.probes()}, {addresses(pod)}\n{cluster.log()[-3000:]}")


def remembered(cluster, pod):
    """It is written down a moment later."""
    def is_written():
        entries = json.loads((cluster.run_dir / "enrolled.json").read_text())["pods"]
        return [set(entry["addresses"]) for entry in entries if entry["uid"] == pod.uid] == [addresses(pod)]
    eventually(is_written)


@pytest.mark.parametrize("how", ["by ADD", "found"])
@pytest.mark.parametrize("change", CHANGES)
def test_addresses_change_in_place(cluster, change, how):
    cluster.join()
    runtime = Runtime(cluster)
    pod = cluster.pod(starts=how == "by ADD")
    if pod.starts:
        runtime.add(pod)
        pod.starts = False
    pod.show()
    cluster.enabled()
    handles, adds = pod.handles(), [kind for kind, _ in cluster.tunnel.requests]
    CHANGES[change](pod)
    pod.show()
    settled(cluster, pod)
    # Enrolment stays as it was: nothing was written or asked anew.
    time.sleep(0.3)
    assert pod.handles() == handles and [kind for kind, _ in cluster.tunnel.requests] == adds
    assert pod.redirects() and pod.annotation() == "enabled" and cluster.probes() == addresses(pod)
    # Another one, and back.
    before = addresses(pod)
    move(pod, f"10.91.201.{pod.number}", f"fd91::c9:{pod.number}")
    pod.show()
    settled(cluster, pod)
    assert not before & cluster.probes()
    pod.hide()
    eventually(lambda: not cluster.probes())


@pytest.mark.parametrize("when", ["before", "while it is away", "and the source is away"])
@pytest.mark.parametrize("change", ["both", "IPv4", "IPv6 goes"])
@pytest.mark.parametrize("how", ["by ADD", "found"])
def test_a_restart_after_addresses_changed_in_place(cluster, how, change, when):
    """What is remembered does not give the pod its old address back: by now it is that of a pod outside."""
    cluster.join()
    cluster.label("office")
    runtime = Runtime(cluster)
    pod = cluster.pod(starts=how == "by ADD")
    if pod.starts:
        runtime.add(pod)
        pod.starts = False
    pod.show()
    cluster.enabled()
    eventually(lambda: cluster.enrolled() == {pod.uid})
    old = addresses(pod)
    if when == "while it is away":
        cluster.kill()
    CHANGES[change](pod)
    pod.show()
    if when != "while it is away":
        settled(cluster, pod)
        time.sleep(0.3)
        cluster.kill()
    if when == "and the source is away":
        cluster.stop_api()
    with Changes(cluster.host) as changes:
        cluster.start(wait=False)
        if when == "and the source is away":
            cluster.log_has("cannot watch pods")
            cluster.tunnel.wait(lambda: pod.uid in cluster.tunnel.workloads)
            time.sleep(0.3)
        else:
            cluster.log_has("listed ")
            time.sleep(0.5)
            settled(cluster, pod)
    if when != "while it is away":
        assert not changes.times, "the old address came back, or the new one was missing for a moment"
    assert cluster.probes() == addresses(pod) and not cluster.probes() & (old - addresses(pod))
    if when == "and the source is away":
        cluster.start_api()


def test_the_old_address_is_a_pods_outside(cluster):
    """Whatever the first pod does then, the second is not probed as one of the mesh."""
    cluster.join()
    cluster.label("office")
    runtime = Runtime(cluster)
    pod, other = cluster.pod(starts=True), cluster.pod(starts=True, namespace="office", show=False)
    runtime.add(pod)
    pod.starts = False
    pod.show()
    cluster.enabled([pod])
    old, old6 = pod.address, pod.address6
    move(pod, new_address(pod.number), pod.address6)
    pod.show()
    settled(cluster, pod)
    move(other, old, other.address6)
    other.show()
    runtime.add(other)
    remembered(cluster, pod)
    with Changes(cluster.host) as changes:
        pod.show(seen="again")
        cluster.kill()
        cluster.start()
        time.sleep(0.5)
    assert not changes.times and cluster.probes() == addresses(pod) and old6 in cluster.probes()


def test_addresses_change_while_the_pod_is_outside(cluster):
    """And then it comes in, by its namespace's label: its own object tells nothing new."""
    cluster.label("shop")
    runtime = Runtime(cluster)
    pod = cluster.pod(starts=True)
    runtime.add(pod)
    pod.starts = False
    pod.show()
    old = pod.address
    move(pod, new_address(pod.number), pod.address6)
    pod.show()
    eventually(cluster.api.has_told)
    time.sleep(0.2)
    with Changes(cluster.host) as changes:
        cluster.join()
        cluster.enabled()
    assert cluster.probes() == addresses(pod) and old not in cluster.probes() and changes.times


def test_another_interface_keeps_its_addresses(cluster):
    """The kubelet does not report them."""
    cluster.join()
    runtime = Runtime(cluster)
    pod = cluster.pod(starts=True)
    runtime.add(pod)
    pod.netns.ip("link add net1 type veth peer name net1p\nlink set net1 up\naddr add 192.0.2.7/24 dev net1\n")
    runtime.add(pod, interface="net1", ips=["192.0.2.7/24"])
    pod.starts = False
    pod.show()
    cluster.enabled()
    for change in ("IPv4", "both", "IPv6 goes"):
        CHANGES[change](pod)
        pod.show()
        eventually(lambda: cluster.probes() == {*addresses(pod), "192.0.2.7"}, 5, what=lambda: f"{cluster.probes()}")
    cluster.kill()
    cluster.start()
    eventually(lambda: pod.redirects() and cluster.probes() == {*addresses(pod), "192.0.2.7"})
