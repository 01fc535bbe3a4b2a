"""The agent's end and start, whatever happened between them: what stands is adopted, what is left over goes."""
import json
import os
import shutil
import socket
import threading
import time

import pytest

from .cni import Runtime
from .netlink import Changes
from .node import PLUGIN, eventually


@pytest.fixture
def pods(node):
    pods = [node.pod() for _ in range(3)]
    node.join()
    for pod in pods:
        pod.enter()
    # It is written down a moment later.
    eventually(lambda: node.enrolled() == {pod.uid for pod in pods})
    return pods


def test_rules_are_adopted_not_rewritten(node, pods):
    host = node.host_rules()
    node.stop()
    with Changes(node.host, *(pod.netns for pod in pods)) as changes:
        node.start()
        node.tunnel.wait(lambda: node.tunnel.is_ready)
        for pod in pods:
            pod.enter()
        time.sleep(0.2)
    assert not changes.times and node.host_rules() == host
    assert "somebody changed" not in node.log()


@pytest.mark.parametrize("kind", ["ADD", "found"])
def test_a_pod_that_lost_its_table_and_its_place_in_the_mesh(node, kind):
    """Both while no agent ran: what is left of the redirection goes too."""
    runtime = Runtime(node)
    node.join()
    pod = node.pod(starts=kind == "ADD")
    if kind == "ADD":
        pod.start_by_add(runtime)
    pod.enter()
    eventually(lambda: node.enrolled() == {pod.uid})
    node.kill()
    pod.netns.nft("delete table inet ambient-cni")
    assert "lookup 100" in pod.traces()
    pod.show(**{"istio.io/dataplane-mode": "none"})
    node.start()
    pod.exit()


@pytest.mark.parametrize("loss", ["enrolled.json is corrupt", "attachments are corrupt", "everything is lost"])
def test_state_that_is_lost_is_made_anew(node, loss):
    runtime = Runtime(node)
    node.join()
    new, running = node.pod(starts=True), node.pod()
    runtime.add(new)
    running.enter()
    handles = [pod.handles() for pod in (new, running)]
    eventually(lambda: node.enrolled() == {new.uid, running.uid})
    node.kill()
    # By now the kubelet has reported its address; where its namespace is, is in its attachment or (here) in the folder.
    new.starts = False
    new.show()
    if loss == "enrolled.json is corrupt":
        (node.run_dir / "enrolled.json").write_text('{"version":1,"pods":[{"uid":')
    elif loss == "attachments are corrupt":
        for path in (node.run_dir / "attachments").iterdir():
            path.write_text("{")
    else:
        shutil.rmtree(node.run_dir)
    node.start()
    for pod in (new, running):
        pod.enter()
    assert [pod.handles() for pod in (new, running)] == handles
    eventually(lambda: node.enrolled() == {new.uid, running.uid})
    if loss == "enrolled.json is corrupt":
        assert (node.run_dir / "enrolled.json.corrupt").exists()
    runtime.delete(new)
    node.leave()
    running.exit()
    new.exit()


def test_what_is_left_on_the_host_goes_where_no_pod_is_known(node):
    node.join()
    pod = node.pod()
    pod.enter()
    node.kill()
    shutil.rmtree(node.run_dir)
    pod.hide()
    node.start()
    eventually(lambda: not node.probes(), what=node.log)


def test_a_file_of_a_later_version_is_no_reason_to_fail(node, pods):
    eventually(lambda: len(node.enrolled()) == 3)
    node.stop()
    path = node.run_dir / "enrolled.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "version": 99}))
    node.start()
    for pod in pods:
        pod.enter()


def test_in_the_middle_of_a_drain(new_node):
    node = new_node(drain=4)
    pod = node.pod()
    node.join()
    pod.enter()
    node.leave()
    eventually(lambda: not pod.redirects())
    node.kill()
    requests = len(node.tunnel.requests)
    node.start()
    node.tunnel.wait(lambda: node.tunnel.is_ready)
    # What is carried goes on: the tunnel is told that the pod belongs.
    assert ("add", pod.uid) in node.tunnel.requests[requests:] or ("keep", pod.uid) in node.tunnel.requests[requests:]
    assert pod.has_table() and not pod.redirects()
    pod.exit()


def test_labels_that_changed_meanwhile(node, pods):
    staying, leaving, gone = pods
    coming = node.pod(namespace="office")
    node.label("office")
    node.kill()
    leaving.show(**{"istio.io/dataplane-mode": "none"})
    gone.hide()
    node.join("office")
    node.start()
    staying.enter()
    coming.enter()
    leaving.exit()
    # It runs still: only its object is gone. Nothing of ours may stay in it.
    gone.exit()
    eventually(lambda: node.enrolled() == {staying.uid, coming.uid})


def test_what_a_killed_writer_of_marks_left_goes_at_the_next_start(node):
    left = node.run_dir / "namespaces.77.new"
    left.mkdir()
    os.utime(left, (0, 0))
    node.stop()
    assert left.exists()
    node.start()
    assert not left.exists()


def test_a_namespace_that_is_gone_is_let_go(node, pods):
    """A pod deleted while the agent was down, its namespace with it."""
    pods[0].hide()
    node.kill()
    pods[0].holder.kill()
    pods[0].holder.wait()
    pods[0].netns.close()
    node.start()
    for pod in pods[1:]:
        pod.enter()
    eventually(lambda: node.probes() == {address for pod in pods[1:] for address in (pod.address, pod.address6)})
    node.tunnel.wait(lambda: pods[0].uid not in node.tunnel.workloads)
    node.pods_made.remove(pods[0])


def test_after_a_reboot(node, pods):
    """No rules anywhere, all state of the run directory gone with the tmpfs, new namespaces, a new tunnel."""
    node.kill()
    node.tunnel.kill()
    shutil.rmtree(node.run_dir)
    node.host.run("nft", "flush", "ruleset")
    for pod in pods:
        pod.netns.run("sh", "-c", "nft flush ruleset; ip rule del pref 32764; ip -6 rule del pref 32764;"
                      "ip route flush table 100; ip -6 route flush table 100")
        assert not pod.traces()
    node.start()
    for pod in pods:
        pod.enter()


def test_many_restarts_leak_nothing(node, pods):
    for _ in range(5):
        node.kill()
        node.start()
        for pod in pods:
            pod.enter()
    # In each pod's namespace only this run's sockets are left.
    node.leave()
    for pod in pods:
        pod.exit()
    eventually(lambda: node.enrolled() == set())


def test_a_successor_starts_before_its_predecessor_is_gone(node, pods):
    """An upgrade that surges: sockets, state and rules change hands, and nothing is rewritten or taken away."""
    runtime = Runtime(node)
    host = node.host_rules()
    predecessor = node.agent
    with Changes(node.host, *(pod.netns for pod in pods)) as changes:
        node.start()
        for pod in pods:
            pod.enter()
        new = node.pod(starts=True)
        runtime.add(new)
        predecessor.terminate()
        assert predecessor.wait(10) == 0, node.log()
        time.sleep(0.3)
    assert new.is_in() and all(pod.is_in() for pod in pods)
    in_pods = [times for number, times in changes.by_namespace.items() if number > 0]
    assert not any(in_pods), in_pods
    assert host in node.host_rules() or node.host_rules() != ""
    # The sockets are the successor's: it serves and repairs.
    runtime.check(new)
    pods[0].netns.run("nft", "delete", "table", "inet", "ambient-cni")
    eventually(pods[0].redirects)
    node.leave()
    for pod in (*pods, new):
        pod.exit()


def test_an_add_in_the_middle_of_a_change_of_hands(node):
    node.join()
    runtime = Runtime(node)
    pod = node.pod(starts=True)
    node.tunnel.hold(True)
    process = runtime.start("ADD", pod)
    eventually(pod.redirects)
    predecessor = node.agent
    node.start()
    node.tunnel.hold(False)
    # It is handed on: no pod's start fails because of an upgrade.
    status, answer = runtime.finish(process)
    assert status == 0, (answer, node.log()[-4000:])
    assert pod.is_in()
    predecessor.terminate()
    predecessor.wait(10)
    assert pod.is_in()


def test_the_runtimes_paths_are_found_where_the_agent_sees_them(node):
    """The runtime says /var/run/netns/NAME; the agent's container has the host's folder elsewhere (host.netnsDir)."""
    node.join()
    runtime = Runtime(node)
    pod, other = node.pod(starts=True), node.pod(starts=True)
    runtime.add(pod)
    runtime.add(other)
    handles = pod.handles()
    node.kill()
    (node.folder / "cni-of-pod").symlink_to(pod.path)
    for path in (node.run_dir / "attachments").iterdir():
        attachment = json.loads(path.read_text())
        if attachment["netnsPath"] == pod.path:
            path.write_text(json.dumps({**attachment, "netnsPath": "/var/run/netns/cni-of-pod"}))
    node.start()
    pod.enter()
    assert pod.handles() == handles
    node.leave()
    pod.exit()
    other.exit()


def test_an_add_that_the_predecessor_answered_after_its_state_was_read(node):
    """The successor has read attachments and the kubelet has not told the pod's address yet, when the predecessor brings one more
    pod in. The tunnel, which then comes over, must be told of it before the snapshot's end: else it closes the listeners that the
    pod's first packets are redirected to."""
    runtime = Runtime(node)
    node.join()
    pod = node.pod(starts=True)
    runtime.add(pod)
    handles = pod.handles()
    node.tunnel.stop()
    node.kill()
    aside = node.folder / "aside"
    (node.run_dir / "attachments").rename(aside)
    # Saved a moment after the answer: it may not be there yet.
    (node.run_dir / "enrolled.json").unlink(missing_ok=True)
    node.start()
    eventually(lambda: pod.key in node.pods())
    shutil.rmtree(node.run_dir / "attachments", ignore_errors=True)
    aside.rename(node.run_dir / "attachments")
    node.connect()
    node.tunnel.wait(lambda: node.tunnel.is_ready)
    requests = [kind for kind, uid in node.tunnel.requests if uid == pod.uid or "snapshot" in kind]
    assert requests[:1] == ["add"], node.tunnel.requests
    pod.enter()
    assert pod.handles() == handles
    runtime.check(pod)
    runtime.delete(pod)
    pod.exit()


def test_a_successor_that_ends_at_once_leaves_no_deaf_agent(node, pods):
    """The predecessor has given its sockets away: it begins anew."""
    predecessor = node.agent
    node.start()
    assert predecessor.poll() is None
    node.kill()
    node.agent = predecessor
    node.log_has("the successor that took over is gone", 20)
    eventually(lambda: node.log().rpartition("begins anew")[2].count("listed "))
    for pod in pods:
        pod.enter()
    runtime = Runtime(node)
    runtime.add(node.pod(starts=True))


@pytest.mark.parametrize("stopped", ["the older", "the younger"])
def test_two_agents_that_start_at_once(node, pods, stopped):
    """Whichever of them is the successor, and whichever is told to stop: the other one serves from then on."""
    runtime = Runtime(node)
    said = "a successor serves plugins now"
    for number in range(4):
        node.kill()
        before = node.log().count(said)
        node.start(wait=False)
        older = node.agent
        time.sleep((0, 0.002, 0.01, 0.3)[number])
        node.start(wait=False)
        younger = node.agent
        eventually(lambda before=before: node.log().count(said) > before, 10, what=node.log)
        ended, node.agent = (older, younger) if stopped == "the older" else (younger, older)
        ended.terminate()
        assert ended.wait(10) == 0, node.log()[-3000:]
        began = time.monotonic()
        eventually(node.serves_plugins, 10, what=lambda: node.log()[-3000:])
        # The bound of docs/operate.md, and a busy machine's part.
        assert time.monotonic() - began < 2.5
        assert node.agent.poll() is None
    pod = node.pod(starts=True)
    runtime.add(pod)
    for each in (*pods, pod):
        each.enter()
    node.stop()


def test_an_agent_that_begins_anew_can_be_stopped_at_once(node, pods):
    """A signal that comes while it does is not lost."""
    for number in range(6):
        predecessor = node.agent
        node.start()
        node.stop()
        node.agent = predecessor
        time.sleep(0.15 + 0.03 * number)
        predecessor.terminate()
        assert predecessor.wait(5) == 0, node.log()[-3000:]
        node.start()
    for pod in pods:
        pod.enter()


def test_attachments_of_sandboxes_that_went_without_a_del_go(node):
    """A runtime that lost a sandbox calls no DEL, and containerd no GC. Those of pods that are there stay, whatever became of their
    namespace, and so do those of namespaces that are there."""
    runtime = Runtime(node)
    node.join()
    lost, kept, hidden = (node.pod(starts=True) for _ in range(3))
    for pod in (lost, kept, hidden):
        runtime.add(pod)
    node.kill()
    lost.hide()
    hidden.hide()
    for pod in (lost, kept):
        pod.holder.kill()
        pod.holder.wait()
    node.start()
    eventually(lambda: len(runtime.attachments()) == 2, what=node.log)
    assert {name.partition(":")[0] for name in runtime.attachments()} == {runtime.container(kept), runtime.container(hidden)}


def test_a_tunnel_socket_that_somebody_took_and_left(node, pods):
    """Another node agent (istio-cni's) listens at the tunnel's socket and is ended: ours does not stay deaf either."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as other:
        node.tunnel_path.unlink()
        other.bind(str(node.tunnel_path))
        other.listen()
        node.log_has("a successor has taken over")
        time.sleep(2.5)
        assert node.agent.poll() is None
    node.log_has("the successor that took over is gone", 20)
    node.tunnel.wait(lambda: node.tunnel.is_connected)
    for pod in pods:
        pod.enter()
    assert node.agent.poll() is None


def test_upgrades_while_pods_start(node):
    """Successors that start before their predecessors end, under ADDs: each succeeds, and from its success on the tunnel knows the
    pod at every moment."""
    runtime = Runtime(node)
    node.join()
    waiting = [node.pod(starts=True) for _ in range(24)]
    inside, missing, is_over = set(), [], threading.Event()

    def start():
        while waiting:
            pod = waiting.pop()
            status, answer = runtime.call("ADD", pod)
            if status != 0:
                missing.append((pod.key, answer))
            inside.add(pod.uid)
            time.sleep(0.05)

    def look():
        while not is_over.is_set():
            known = set(inside)
            missing.extend(known - set(node.tunnel.workloads))
            time.sleep(0.001)
    watcher, starters = threading.Thread(target=look), [threading.Thread(target=start) for _ in range(2)]
    for thread in (watcher, *starters):
        thread.start()
    for _ in range(3):
        time.sleep(0.4)
        predecessor = node.agent
        node.start(wait=False)
        time.sleep(0.2)
        predecessor.terminate()
        assert predecessor.wait(10) == 0
    for thread in starters:
        thread.join()
    node.log_has("listed ")
    node.tunnel.wait(lambda: node.tunnel.is_ready)
    time.sleep(0.3)
    is_over.set()
    watcher.join()
    assert not missing, (missing[:4], node.log()[-6000:])
    assert len(inside) == 24 and all(pod.is_in() for pod in node.pods_made)


def test_a_successor_with_another_plugin_is_not_fought(new_node, tmp_path):
    """The predecessor keeps its own version of the binary in place no more, nor its settings in the configuration."""
    for folder in ("bin", "net.d", "old", "new"):
        (tmp_path / folder).mkdir()
    (tmp_path / "net.d/10-bridge.conflist").write_text(json.dumps({"cniVersion": "1.0.0", "name": "podnet",
                                                                   "plugins": [{"type": "bridge"}]}))
    for version in ("old", "new"):
        shutil.copy(PLUGIN, tmp_path / version / "ambient-cni")
    with open(tmp_path / "new/ambient-cni", "ab") as file:
        file.write(b"newer")
    host = ["host.install=true", f"host.binDir={tmp_path}/bin", f"host.confDir={tmp_path}/net.d"]
    node = new_node(settings=[*host, f"host.binSource={tmp_path}/old"])
    installed = tmp_path / "bin/ambient-cni"
    eventually(lambda: installed.exists() and installed.read_bytes() == (tmp_path / "old/ambient-cni").read_bytes())
    eventually(lambda: node.get("/status")["host"].get("ready"), what=node.log)
    predecessor = node.agent
    node.settings = ["releaseDrainSeconds=1", *host, f"host.binSource={tmp_path}/new", "whenAway=closed"]
    node.start()
    eventually(lambda: node.get("/status")["host"].get("ready"), what=node.log)
    newer = (tmp_path / "new/ambient-cni").read_bytes()
    written = (installed.stat().st_ino, (tmp_path / "net.d/10-bridge.conflist").stat().st_ino)
    assert installed.read_bytes() == newer and predecessor.poll() is None
    end = time.monotonic() + 2
    while time.monotonic() < end:
        assert (installed.stat().st_ino, (tmp_path / "net.d/10-bridge.conflist").stat().st_ino) == written, node.log()[-3000:]
        time.sleep(0.01)
    assert json.loads((tmp_path / "net.d/10-bridge.conflist").read_text())["plugins"][-1]["whenAway"] == "closed"
    predecessor.terminate()
    assert predecessor.wait(10) == 0
    assert installed.read_bytes() == newer


def test_pods_that_the_predecessor_had_not_delivered_yet(node):
    """An agent hands over while the tunnel has not answered: for a pod that runs, whose guard stands, and a new one, whose rules do;
    another is only labelled in that moment. The successor's snapshot names them with their namespaces, and no redirect of a pod that
    runs stands before the tunnel has accepted it."""
    runtime = Runtime(node)
    node.join()
    delivered = node.pod().enter()
    node.tunnel.hold(True)
    running = node.pod()
    eventually(running.has_table)
    new = node.pod(starts=True)
    process = runtime.start("ADD", new)
    eventually(new.redirects)
    labelled = node.pod(show=False)
    predecessor = node.agent
    node.start()
    labelled.show()
    eventually(labelled.has_table)
    assert not running.redirects() and not labelled.redirects() and process.poll() is None
    handles = delivered.handles()
    node.tunnel.hold(False)
    assert runtime.finish(process)[0] == 0, node.log()
    for pod in node.pods_made:
        pod.enter()
    node.tunnel.wait(lambda: node.tunnel.is_ready)
    kinds = [event["event"] for event in node.tunnel.events]
    since = len(kinds) - kinds[::-1].index("connected")
    snapshot = node.tunnel.events[since:kinds.index("snapshot-sent", since)]
    assert {delivered.uid, running.uid} <= {event["uid"] for event in snapshot if event["event"] == "add"}, snapshot
    # The new one may be remembered, and its namespace is the plugin's at that moment: then it is kept until its Add comes.
    assert {event["uid"] for event in snapshot if event["event"] == "keep"} <= {new.uid}, snapshot
    assert "delete" not in kinds[since:] and delivered.handles() == handles, node.tunnel.events[since:]
    predecessor.terminate()
    assert predecessor.wait(10) == 0
    time.sleep(0.2)
    assert all(pod.is_in() for pod in node.pods_made)


def test_a_pod_that_went_while_no_agent_ran_and_whose_end_is_told_later(node):
    """Nothing of it is held, and its release changes nothing in the kernel: what is remembered goes all the same."""
    node.join()
    pod = node.pod().enter()
    eventually(lambda: pod.uid in node.enrolled())
    node.kill()
    node.pods_made.remove(pod)
    pod.close()
    node.start()
    node.tunnel.wait(lambda: node.tunnel.is_ready)
    time.sleep(0.3)
    pod.hide()
    eventually(lambda: pod.uid not in node.enrolled() and not node.probes())
