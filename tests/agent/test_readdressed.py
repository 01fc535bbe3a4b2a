"""A pod's addresses change while it runs: same sandbox, same network namespace. Its interface has others, then the kubelet reports them."""
import json
import time

import pytest

from .cni import Runtime
from .netlink import Changes
from .node import eventually


def new_address(number):
    return f"10.91.200.{number}"


def new_address6(number):
    return f"fd91::c8:{number}"


CHANGES = {
    "both": lambda pod: pod.move(new_address(pod.number), new_address6(pod.number)),
    "IPv4": lambda pod: pod.move(new_address(pod.number), pod.address6),
    "IPv6": lambda pod: pod.move(pod.address, new_address6(pod.number)),
    "IPv6 goes": lambda pod: pod.move(pod.address, None),
    "IPv4 goes": lambda pod: pod.move(None, pod.address6),
    "to the other family": lambda pod: (pod.move(pod.address, None), pod.move(None, new_address6(pod.number))),
}


def settled(cluster, pod):
    eventually(lambda: cluster.probes() == set(pod.addresses), 5, what=lambda: f"{cluster.probes()}, {set(pod.addresses)}\n{cluster.log()[-3000:]}")


def remembered(cluster, pod):
    """It is written down a moment later."""
    def is_written():
        entries = json.loads((cluster.run_dir / "enrolled.json").read_text())["pods"]
        return [set(entry["addresses"]) for entry in entries if entry["uid"] == pod.uid] == [set(pod.addresses)]
    eventually(is_written)


def enabled_pod(cluster, how):
    pod = cluster.pod(starts=how == "by ADD")
    if pod.starts:
        pod.start_by_add(Runtime(cluster))
    else:
        pod.show()
    cluster.enabled()
    return pod


@pytest.mark.parametrize("how", ["by ADD", "found"])
@pytest.mark.parametrize("change", CHANGES)
def test_addresses_change_in_place(cluster, change, how):
    cluster.join()
    pod = enabled_pod(cluster, how)
    handles, adds = pod.handles(), [kind for kind, _ in cluster.tunnel.requests]
    CHANGES[change](pod)
    pod.show()
    settled(cluster, pod)
    # Enrolment stays as it was: nothing was written or asked anew.
    time.sleep(0.3)
    assert pod.handles() == handles and [kind for kind, _ in cluster.tunnel.requests] == adds
    assert pod.redirects() and pod.annotation() == "enabled" and cluster.probes() == set(pod.addresses)
    # Another one, and back.
    before = set(pod.addresses)
    pod.move(f"10.91.201.{pod.number}", f"fd91::c9:{pod.number}")
    pod.show()
    settled(cluster, pod)
    assert not before & cluster.probes()
    pod.hide()
    eventually(lambda: not cluster.probes())


@pytest.mark.parametrize("change", CHANGES)
def test_addresses_change_before_the_first_report(cluster, change):
    """The kubelet's word came late: no report had the addresses of the ADD."""
    cluster.join()
    pod = cluster.pod(starts=True)
    Runtime(cluster).add(pod)
    CHANGES[change](pod)
    pod.starts = False
    pod.show()
    settled(cluster, pod)
    eventually(lambda: pod.redirects() and pod.annotation() == "enabled")


@pytest.mark.parametrize("when", ["before", "while it is away", "and the source is away"])
@pytest.mark.parametrize("change", ["both", "IPv4", "IPv6 goes"])
@pytest.mark.parametrize("how", ["by ADD", "found"])
def test_a_restart_after_addresses_changed_in_place(cluster, how, change, when):
    """What is remembered does not give the pod its old address back: by now it is that of a pod outside."""
    cluster.join()
    cluster.label("office")
    pod = enabled_pod(cluster, how)
    eventually(lambda: cluster.enrolled() == {pod.uid})
    old = set(pod.addresses)
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
    assert cluster.probes() == set(pod.addresses) and not cluster.probes() & (old - set(pod.addresses))
    if when == "and the source is away":
        cluster.start_api()


def test_the_old_address_is_a_pods_outside(cluster):
    """Whatever the first pod does then, the second is not probed as one of the mesh."""
    cluster.join()
    cluster.label("office")
    runtime = Runtime(cluster)
    pod, other = cluster.pod(starts=True), cluster.pod(starts=True, namespace="office", show=False)
    pod.start_by_add(runtime)
    cluster.enabled([pod])
    old, old6 = pod.address, pod.address6
    pod.move(new_address(pod.number), pod.address6)
    pod.show()
    settled(cluster, pod)
    other.move(old, other.address6)
    other.status = other.reported()
    other.show()
    runtime.add(other)
    remembered(cluster, pod)
    with Changes(cluster.host) as changes:
        pod.show(seen="again")
        cluster.kill()
        cluster.start()
        time.sleep(0.5)
    assert not changes.times and cluster.probes() == set(pod.addresses) and old6 in cluster.probes()


def test_addresses_change_while_the_pod_is_outside(cluster):
    """And then it comes in, by its namespace's label: its own object tells nothing new."""
    cluster.label("shop")
    runtime = Runtime(cluster)
    pod = cluster.pod(starts=True)
    pod.start_by_add(runtime)
    old = pod.address
    pod.move(new_address(pod.number), pod.address6)
    pod.show()
    eventually(cluster.api.has_told)
    time.sleep(0.2)
    with Changes(cluster.host) as changes:
        cluster.join()
        cluster.enabled()
    assert cluster.probes() == set(pod.addresses) and old not in cluster.probes() and changes.times


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
        eventually(lambda: cluster.probes() == {*pod.addresses, "192.0.2.7"}, 5, what=lambda: f"{cluster.probes()}")
    cluster.kill()
    cluster.start()
    eventually(lambda: pod.redirects() and cluster.probes() == {*pod.addresses, "192.0.2.7"})
