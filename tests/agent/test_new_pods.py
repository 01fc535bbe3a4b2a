"""New pods: the real plugin, called as a runtime calls it, and the real agent."""
import concurrent.futures
import json
import signal
import time

import pytest

from .cni import Runtime
from .node import eventually
from .test_review import ask, connect


@pytest.fixture
def runtime(node):
    return Runtime(node)


def test_inside(node, runtime):
    node.join()
    pod = node.pod(starts=True)
    answer = runtime.add(pod)
    # When the plugin returns, everything is there: nothing is waited for.
    assert answer["ips"][0]["address"] == f"{pod.address}/16"
    assert pod.is_in() and node.tunnel.workloads[pod.uid].info == {
        "name": pod.name, "namespace": "shop", "service_account": "account"}
    runtime.check(pod)
    runtime.delete(pod)
    pod.exit()
    assert not runtime.attachments()
    runtime.delete(pod)


def test_outside(node, runtime):
    pod = node.pod(starts=True)
    handles = pod.netns.run("nft", "list", "ruleset")
    runtime.add(pod)
    assert not pod.traces() and pod.netns.run("nft", "list", "ruleset") == handles == ""
    assert (pod.uid not in node.tunnel.workloads) and not node.probes()
    runtime.check(pod)
    # Labelled later: its namespace is known from its ADD, nobody looks among processes.
    node.join()
    pod.enter()
    runtime.check(pod)
    node.leave()
    pod.exit()
    eventually(lambda: runtime.call("CHECK", pod)[0] == 0)
    runtime.delete(pod)


def test_check_follows_what_happens_later(node, runtime):
    node.join()
    pod = node.pod(starts=True)
    runtime.add(pod)
    node.leave()
    pod.exit()
    eventually(lambda: runtime.call("CHECK", pod)[0] == 0)  # released since: no difference
    node.join()
    pod.enter()
    eventually(lambda: runtime.call("CHECK", pod)[0] == 0)
    pod.annotations["ambient.istio.io/dns-capture"] = "false"
    pod.show()
    eventually(lambda: "15053" not in pod.netns.run("nft", "list", "table", "inet", "ambient-cni"))
    eventually(lambda: runtime.call("CHECK", pod)[0] == 0, what=lambda: runtime.call("CHECK", pod))
    # And it does look, as soon as it is remembered that the pod is in again (a moment after it is).
    eventually(lambda: runtime.remembered(pod)["enrolled"] and not runtime.remembered(pod)["redirect"]["dnsCapture"])
    node.kill()
    pod.netns.run("nft", "delete", "table", "inet", "ambient-cni")
    assert runtime.call("CHECK", pod)[0] == 1


def test_the_pod_is_known_to_the_source_only_later(node, runtime):
    """A folder is read when it changes: a pod that nobody knows can't be decided, and its namespace is in the mesh."""
    node.join()
    pod = node.pod(show=False, starts=True)
    status, error = runtime.call("ADD", pod)
    assert status == 1 and error["code"] == 11 and "knows no pod" in error["msg"]
    assert not pod.traces()
    pod.show()
    eventually(lambda: runtime.call("ADD", pod)[0] == 0)
    assert pod.is_in()


def test_the_label_comes_and_goes_while_the_add_waits_for_the_tunnel(node, runtime):
    node.join()
    pod = node.pod(starts=True)
    node.tunnel.hold(True)
    process = runtime.start("ADD", pod)
    eventually(pod.redirects)
    node.leave()
    time.sleep(0.2)
    node.tunnel.hold(False)
    assert runtime.finish(process)[0] == 0
    # It was decided by the label that was there; then it leaves like any pod that runs.
    pod.exit()
    node.join()
    pod.enter()


def test_the_tunnel_comes_during_the_add(new_node):
    node = new_node(tunnel=False)
    runtime = Runtime(node)
    node.join()
    pod = node.pod(starts=True)
    process = runtime.start("ADD", pod)
    eventually(pod.redirects)
    node.connect()
    assert runtime.finish(process)[0] == 0 and pod.is_in()


def test_no_tunnel(new_node):
    node = new_node(tunnel=False)
    runtime = Runtime(node)
    node.join()
    pod = node.pod(starts=True)
    began = time.monotonic()
    status, error = runtime.call("ADD", pod)
    assert status == 1 and error["code"] == 11 and "no tunnel is connected" in error["msg"], error
    assert 3 < time.monotonic() - began < 6
    assert not pod.traces() and not node.probes() and not runtime.attachments()
    node.connect()
    assert runtime.call("ADD", pod)[0] == 0 and pod.is_in()


@pytest.mark.parametrize("seconds", [1, 2])
def test_the_reason_comes_before_the_plugin_gives_up(new_node, seconds):
    """Also where timeoutSeconds is short: "did not answer" would name the wrong culprit."""
    node = new_node(tunnel=False)
    runtime = Runtime(node)
    node.join()
    pod = node.pod(starts=True)
    began = time.monotonic()
    status, error = runtime.call("ADD", pod, config={"timeoutSeconds": seconds})
    assert status == 1 and error["code"] == 11 and "no tunnel is connected" in error["msg"], error
    assert time.monotonic() - began < seconds + 0.5
    assert not pod.traces()


def test_a_long_timeout_is_used(new_node):
    node = new_node(tunnel=False)
    runtime = Runtime(node)
    node.join()
    pod = node.pod(starts=True)
    process = runtime.start("ADD", pod, config={"timeoutSeconds": 20})
    time.sleep(5.5)
    assert process.poll() is None
    node.connect()
    assert runtime.finish(process)[0] == 0 and pod.is_in()


def test_the_tunnel_refuses(node, runtime):
    node.join()
    pod = node.pod(starts=True)
    node.tunnel.refuse[pod.uid] = "cannot bind"
    status, error = runtime.call("ADD", pod)
    assert status == 1 and "cannot bind" in error["msg"]
    # The tunnel would try it for ever by itself, and not be ready: it is told.
    node.tunnel.wait(lambda: ("delete", pod.uid) in node.tunnel.requests)
    eventually(lambda: not pod.traces() and not node.probes())
    del node.tunnel.refuse[pod.uid]
    runtime.add(pod)
    assert pod.is_in()


@pytest.mark.parametrize("moment", ["applied", "in the tunnel"])
def test_a_killed_plugin_leaves_what_the_next_add_or_del_finds(node, runtime, moment):
    node.join()
    pod = node.pod(starts=True)
    node.tunnel.hold(True)
    process = runtime.start("ADD", pod)
    eventually(pod.redirects)
    if moment == "in the tunnel":
        eventually(pod.is_probed)
    process.kill()
    process.wait()
    node.tunnel.hold(False)
    eventually(lambda: not node.probes() and pod.uid not in node.tunnel.workloads, what=node.log)
    runtime.add(pod)
    assert pod.is_in()
    process = runtime.start("ADD", pod, container="another")
    process.kill()
    process.wait()
    runtime.delete(pod, container="another")
    runtime.delete(pod)
    pod.exit()


def test_the_agent_is_killed_in_the_middle_and_comes_back(node, runtime):
    node.join()
    pod = node.pod(starts=True)
    node.tunnel.hold(True)
    process = runtime.start("ADD", pod)
    eventually(pod.redirects)
    node.kill()
    node.start()
    node.tunnel.hold(False)
    assert runtime.finish(process)[0] == 0, node.log()
    assert pod.is_in()


def test_the_agent_does_not_come_back(node, runtime):
    node.join()
    pod = node.pod(starts=True)
    node.tunnel.hold(True)
    process = runtime.start("ADD", pod, config={"timeoutSeconds": 1})
    eventually(pod.redirects)
    node.kill()
    status, error = runtime.finish(process)
    assert status == 1 and error["code"] == 11 and not pod.traces(), error


@pytest.mark.parametrize("share", range(2))
def test_the_agent_is_killed_at_every_step_of_an_add(new_node, share):
    node = new_node(start=False, tunnel=False, drain=0)
    runtime = Runtime(node)
    node.join()
    node.start()
    node.connect()
    node.stop()
    for step in range(1 + share, 40, 2):
        pod = node.pod(starts=True)
        node.start_to_stop_at(step)
        node.tunnel.wait(lambda: node.tunnel.is_ready)
        node.stop_now()
        process = runtime.start("ADD", pod)
        if not (killed := node.was_killed(0.2)):
            eventually(lambda: process.poll() is not None)
            killed = node.was_killed(0.3)
        if not killed:
            node.kill()
        node.start()
        status, error = runtime.finish(process)
        if status != 0:
            assert error["code"] == 11, error
            # As a runtime does: the tunnel may not be back yet.
            eventually(lambda pod=pod: runtime.call("ADD", pod)[0] == 0, 20, what=node.log)
        pod.enter()
        runtime.delete(pod)
        eventually(pod.is_out)
        assert not runtime.attachments()
        pod.hide()
        node.stop()
        if not killed:
            break
    else:
        raise AssertionError("more steps than are tried")


def test_fifty_at_once(node, runtime):
    node.join()
    pods = [node.pod(starts=True) for _ in range(50)]
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda pod: runtime.call("ADD", pod), pods))
    assert [status for status, _ in answers] == [0] * 50, answers
    assert len(node.tunnel.workloads) == 50 and len(node.probes()) == 100 and len(runtime.marks()) == 50
    assert all(pod.redirects() for pod in pods)
    with concurrent.futures.ThreadPoolExecutor(16) as pool:
        assert [status for status, _ in pool.map(lambda pod: runtime.call("DEL", pod), pods)] == [0] * 50
    eventually(lambda: not node.tunnel.workloads and not node.probes())
    assert not any(pod.has_table() for pod in pods) and not runtime.attachments() and not runtime.marks()


@pytest.mark.parametrize("others", ["the same ADD", "another interface"])
@pytest.mark.parametrize("moment", ["at once", "in the tunnel"])
def test_adds_of_one_sandbox_at_the_same_moment(node, runtime, others, moment):
    """A runtime whose time was up, or a meta plugin with two interfaces. The first leads, the others follow: were it refused for
    them, it would take the rules away that they have just put there."""
    node.join()
    pod = node.pod(starts=True)
    node.tunnel.hold(True)
    more = {"interface": "net1", "ips": ["192.0.2.7/24"]} if others == "another interface" else {}
    processes = [runtime.start("ADD", pod)]
    if moment == "in the tunnel":
        eventually(pod.redirects)
    processes += [runtime.start("ADD", pod, **more) for _ in range(2)]
    time.sleep(0.2)
    assert not any(process.poll() for process in processes)
    node.tunnel.hold(False)
    answers = [runtime.finish(process) for process in processes]
    assert [status for status, _ in answers] == [0, 0, 0], answers
    assert pod.is_in() and len(runtime.attachments()) == (2 if more else 1)
    if more:
        runtime.delete(pod, interface="net1")
        assert pod.is_in()
    runtime.delete(pod)
    pod.exit()


@pytest.mark.parametrize("end", ["refused", "killed", "out of time"])
def test_adds_of_one_sandbox_of_which_the_first_fails(node, runtime, end):
    """The runtime tries again; nothing is left, and none has succeeded whose rules another took away."""
    node.join()
    pod = node.pod(starts=True)
    node.tunnel.hold(True)
    if end == "refused":
        node.tunnel.refuse[pod.uid] = "no room"
    first = runtime.start("ADD", pod, config={"timeoutSeconds": 20})
    eventually(pod.redirects)
    followers = [runtime.start("ADD", pod, config={"timeoutSeconds": 1 if end == "out of time" else 5}) for _ in range(2)]
    time.sleep(0.2)
    if end == "killed":
        first.kill()
        first.wait()
    elif end == "refused":
        node.tunnel.hold(False)
    for process in followers:
        status, error = runtime.finish(process)
        assert status == 1 and error["code"] == 11 and "another ADD of the same sandbox" in error["msg"], error
    if end != "killed":
        status, error = runtime.finish(first)
        assert status == 1 and error["code"] == (102 if end == "refused" else 11), error
    assert not pod.traces() and not runtime.attachments()
    node.tunnel.hold(False)
    node.tunnel.refuse.clear()
    runtime.add(pod)
    assert pod.is_in()


def test_the_label_goes_while_adds_of_one_sandbox_wait(node, runtime):
    """The first was decided by it; for the others, when it is their turn, the pod is outside, and stays as the first made it until it
    is released like any pod that runs."""
    node.join()
    pod = node.pod(starts=True)
    node.tunnel.hold(True)
    processes = [runtime.start("ADD", pod)]
    eventually(pod.redirects)
    processes += [runtime.start("ADD", pod) for _ in range(3)]
    time.sleep(0.2)
    node.leave()
    time.sleep(0.2)
    node.tunnel.hold(False)
    assert [runtime.finish(process)[0] for process in processes] == [0] * 4
    pod.exit()
    node.join()
    pod.enter()
    runtime.delete(pod)
    pod.exit()


def test_an_add_of_a_newer_sandbox_ends_the_older_ones(node, runtime):
    """The kubelet gave the first up and made the pod's sandbox anew while its plugin was still waiting."""
    node.join()
    old = node.pod(starts=True, name="cart")
    node.tunnel.hold(True)
    first = [runtime.start("ADD", old, container="old") for _ in range(2)]
    eventually(old.redirects)
    new = node.pod(show=False, starts=True, name="cart")
    new.uid = old.uid
    second = runtime.start("ADD", new, container="new")
    for process in first:
        status, error = runtime.finish(process)
        assert status == 1 and error["code"] == 11 and "another sandbox" in error["msg"], error
    assert not old.traces()
    node.tunnel.hold(False)
    assert runtime.finish(second)[0] == 0
    assert new.is_in() and len(runtime.attachments()) == 1


def test_a_sandbox_made_anew(node, runtime):
    """The same uid in another namespace with another address; the old one's DEL comes late."""
    node.join()
    old = node.pod(starts=True, name="cart")
    runtime.add(old, container="old")
    old_identity = node.tunnel.workloads[old.uid].identity
    new = node.pod(show=False, starts=True, name="cart")
    new.uid = old.uid
    old.hide()
    new.show()
    runtime.add(new, container="new")
    assert node.tunnel.workloads[new.uid].identity != old_identity
    assert node.probes() == {new.address, new.address6}
    runtime.delete(old, container="old")
    assert new.is_in() and not old.has_table() and node.probes() == {new.address, new.address6}
    runtime.delete(new, container="new")
    new.exit()


def test_an_old_sandboxes_answer_is_not_the_new_ones(node, runtime):
    """The first ADD was killed after its Add had gone out; what the tunnel says to that is no acceptance of the second."""
    node.join()
    old = node.pod(starts=True, name="cart")
    node.tunnel.delay = 0.5
    process = runtime.start("ADD", old, container="old")
    node.tunnel.wait(lambda: ("add", old.uid) in node.tunnel.requests)
    process.kill()
    process.wait()
    new = node.pod(show=False, starts=True, name="cart")
    new.uid = old.uid
    process = runtime.start("ADD", new, container="new")
    node.tunnel.wait(lambda: [event for event in node.tunnel.events if event["event"] == "add"])
    node.tunnel.refuse[new.uid] = "no room"
    status, error = runtime.finish(process)
    assert status == 1 and "no room" in error["msg"], (status, error)
    assert not new.traces()


def test_an_address_of_a_pod_whose_end_is_not_known(node, runtime):
    """It was found running, so that no DEL tells of its end; what the source still shows of it takes its address back from nobody."""
    node.join()
    node.label("office")
    old = node.pod().enter()
    ips, addresses = [f"{old.address}/16", f"{old.address6}/64"], {old.address, old.address6}

    def snapshots():
        return [event["event"] for event in node.tunnel.events].count("ready")

    def look_at_the_old_one():
        before = snapshots()
        node.tunnel.disconnect()
        node.tunnel.wait(lambda: snapshots() > before)
        eventually(lambda: old.view()["tunnel"]["acknowledged"])
        time.sleep(0.1)

    outside = node.pod(starts=True, namespace="office")
    runtime.add(outside, ips=ips)
    eventually(lambda: not node.probes() & addresses)
    look_at_the_old_one()
    assert not node.probes() & addresses
    new = node.pod(starts=True)
    runtime.add(new, ips=ips)
    assert node.probes() >= addresses
    look_at_the_old_one()
    old.hide()
    eventually(lambda: old.uid not in node.tunnel.workloads)
    time.sleep(0.1)
    assert node.probes() >= addresses
    runtime.delete(new)
    eventually(lambda: not node.probes() & addresses)


def test_a_second_interface(node, runtime):
    node.join()
    pod = node.pod(starts=True)
    runtime.add(pod)
    handles = pod.handles()
    runtime.add(pod, interface="net1", ips=["192.0.2.7/24"])
    assert pod.is_in() and [kind for kind, _ in node.tunnel.requests].count("add") == 1
    assert node.probes() == {pod.address, pod.address6, "192.0.2.7"}
    runtime.delete(pod, interface="net1")
    assert pod.is_in() and handles
    # Its address may be another pod's next.
    eventually(lambda: node.probes() == {pod.address, pod.address6})
    node.kill()
    node.start()
    pod.enter()
    assert node.probes() == {pod.address, pod.address6}
    runtime.delete(pod)
    pod.exit()


def test_gc(node, runtime):
    node.join()
    pods = [node.pod(starts=True) for _ in range(3)]
    for pod in pods:
        runtime.add(pod)
    assert runtime.call("GC", None, config={})[0] == 0
    assert all(pod.is_in() for pod in pods)
    valid = [{"containerID": runtime.container(pod), "ifname": "eth0"} for pod in pods[:2]]
    assert runtime.call("GC", None, config={"cni.dev/valid-attachments": valid})[0] == 0
    pods[2].exit()
    assert all(pod.is_in() for pod in pods[:2]) and len(runtime.attachments()) == 2


def test_the_agent_is_down(node, runtime):
    """What is in the mesh is refused at once, what is outside starts, and everything comes up when it is back."""
    node.join()
    node.label("office")
    eventually(lambda: "office" in node.outside())
    inside, outside = node.pod(starts=True), node.pod(starts=True, namespace="office")
    system, unknown = node.pod(starts=True, namespace="kube-system"), node.pod(starts=True, namespace="nobody-knows")
    node.kill()
    began = time.monotonic()
    status, error = runtime.call("ADD", inside)
    assert time.monotonic() - began < 1
    assert status == 1 and error["code"] == 11 and "is not running on this node" in error["msg"]
    status, error = runtime.call("ADD", unknown)
    assert status == 1 and error["code"] == 11
    runtime.add(outside)
    runtime.add(system)
    assert not outside.traces()
    assert runtime.call("ADD", outside, config={"whenAway": "closed"}, container="again")[0] == 1
    node.start()
    runtime.add(inside)
    assert inside.is_in()


def test_a_pod_that_started_outside_although_it_was_labelled_meanwhile(node, runtime):
    """outside.json can be stale: such pods are enrolled first of all when the agent is back, and counted."""
    others = [node.pod(namespace="office") for _ in range(8)]
    pods = [node.pod(starts=True) for _ in range(2)]
    node.label("office")
    eventually(lambda: {"shop", "office"} <= node.outside())
    node.kill()
    node.join()
    node.join("office")
    for pod in pods:
        runtime.add(pod)
        assert not pod.traces()
        pod.starts = False
        pod.show()
    before = len(node.tunnel.requests)
    node.start()
    for pod in (*pods, *others):
        pod.enter()
    # Those that run since before, too: nobody knows when the label came.
    assert node.get("/status")["counters"]["stalePodsOutside"] == 10
    assert {uid for kind, uid in node.tunnel.requests[before:] if kind == "add"} == {pod.uid for pod in (*pods, *others)}


def test_a_pod_deleted_while_the_agent_was_down(node, runtime):
    node.join()
    pod, other = node.pod(starts=True), node.pod(starts=True)
    runtime.add(pod)
    runtime.add(other)
    node.kill()
    runtime.delete(pod)
    pod.hide()
    assert not pod.traces()
    node.start()
    pod.exit()
    eventually(lambda: node.enrolled() == {other.uid})
    assert other.is_in()


def test_a_stopped_plugin_harms_nobody(node, runtime):
    node.join()
    slow, other = node.pod(starts=True), node.pod(starts=True)
    node.tunnel.hold(True)
    process = runtime.start("ADD", slow)
    eventually(slow.redirects)
    process.send_signal(signal.SIGSTOP)
    node.tunnel.hold(False)
    runtime.add(other)
    assert other.is_in()
    process.send_signal(signal.SIGCONT)
    assert runtime.finish(process)[0] == 0
    slow.enter()


@pytest.mark.parametrize("stage", ["applies", "in the tunnel"])
@pytest.mark.parametrize("end", ["killed", "goes on"])
def test_a_del_while_the_add_is_under_way(node, runtime, stage, end):
    """A runtime whose time was up: it calls DEL, and the plugin of the ADD may still be there. Whatever comes first, nothing of the
    pod is left in the kernel, on the host, in the tunnel, or in the files, and the next ADD is like any."""
    node.join()
    pod = node.pod(starts=True)
    node.tunnel.hold(True)
    if stage == "applies":
        # Decided, and not reported: the rules are to come.
        plugin = connect(node)
        assert ask(plugin, pod)["type"] == "decision"
    else:
        process = runtime.start("ADD", pod, config={"timeoutSeconds": 2})
        eventually(pod.redirects)
    if stage == "in the tunnel" and end == "killed":
        process.kill()
        process.wait()
    elif end == "killed":
        plugin.close()
    deleting = runtime.start("DEL", pod)
    assert runtime.finish(deleting)[0] == 0
    node.tunnel.hold(False)
    if end == "goes on" and stage == "applies":
        # It reports what it did before the DEL: it is not there any more.
        plugin.send(json.dumps({"type": "report", "version": 1, "minimumVersion": 1}).encode())
        answer = json.loads(plugin.recv(65536))
        assert answer["type"] == "result" and answer["code"] != 0, answer
        plugin.close()
    elif end == "goes on":
        status, answer = runtime.finish(process)
        assert status == 1 and answer["code"] in (11, 101), answer
    eventually(lambda: not pod.traces() and not node.probes() and pod.uid not in node.tunnel.workloads,
               what=lambda: (pod.traces(), node.probes(), list(node.tunnel.workloads), node.log()[-3000:]))
    assert not runtime.attachments()
    runtime.add(pod)
    assert pod.is_in()
    runtime.delete(pod)
    pod.exit()


@pytest.mark.parametrize("when", ["the sandbox is gone by then", "the sandbox goes later"])
def test_a_pod_that_goes_without_a_del(node, runtime, when):
    """The primary CNI had just rewritten the chain without us: what was remembered of the sandbox does not stay for ever."""
    node.join()
    pod, other = node.pod(starts=True), node.pod(starts=True)
    runtime.add(pod)
    runtime.add(other)
    if when == "the sandbox is gone by then":
        pod.close()
        node.pods_made.remove(pod)
        pod.hide()
    else:
        pod.hide()
        pod.exit()
        assert len(runtime.attachments()) == 2
        time.sleep(6)
        assert len(runtime.attachments()) == 2, "its DEL may come still"
        pod.close()
        node.pods_made.remove(pod)
    eventually(lambda: runtime.attachments() == [f"{runtime.container(other)}:eth0.json"], 40, what=node.log)
    runtime.check(other)
    assert other.is_in()
