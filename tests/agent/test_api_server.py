"""The whole agent against the API server's double: annotations in their order, and every way in which the server is away."""
import json
import shutil
import signal
import time

import pytest

from .cluster import DAEMON_SET, SYSTEM
from .cni import Runtime
from .netlink import Changes
from .node import PLUGIN, eventually


def events_of(node, kind, pod):
    return [event["time"] for event in node.tunnel.events if event["event"] == kind and event.get("uid") == pod.uid]


def test_enabled_only_after_the_tunnel_has_accepted(cluster):
    pod = cluster.pod()
    cluster.tunnel.refuse[pod.uid] = "no room"
    cluster.join()
    cluster.tunnel.wait(lambda: events_of(cluster, "add", pod))
    time.sleep(0.3)
    assert not pod.patches() and not pod.redirects() and pod.has_table()
    del cluster.tunnel.refuse[pod.uid]
    cluster.enabled()
    assert pod.patches() == ["enabled"]
    # The redirects go first, then the annotation, then, after the drain, the tunnel's Del.
    with_patch = []

    def look():
        if pod.patches()[-1] is None and not with_patch:
            with_patch.append((pod.redirects(), pod.has_table(), events_of(cluster, "delete", pod)))
        return with_patch

    cluster.leave()
    eventually(look)
    assert with_patch == [(False, True, [])]
    pod.exit()
    assert pod.patches() == ["enabled", None] and pod.annotation() is None


def test_the_redirects_go_before_the_annotation(new_cluster):
    cluster = new_cluster(drain=30)
    pod = cluster.pod()
    cluster.join()
    cluster.enabled()
    cluster.api.fail("PATCH", 500, times=10**6)
    cluster.leave()
    eventually(lambda: not pod.redirects())
    # While the annotation stands peers send HBONE: the drain does not begin, the listeners stay.
    time.sleep(0.5)
    assert pod.annotation() == "enabled" and pod.has_table() and pod.uid in cluster.tunnel.workloads
    cluster.api.faults.clear()
    began = time.monotonic()
    pod.exit()
    assert time.monotonic() - began > 3, "peers go on with HBONE until istiod has told them"


def test_an_add_that_is_refused_again_makes_it_pending(cluster):
    pod = cluster.pod()
    cluster.join()
    cluster.enabled()
    cluster.tunnel.refuse[pod.uid] = "no room"
    cluster.tunnel.disconnect()
    eventually(lambda: pod.annotation() == "pending", what=cluster.log)
    assert pod.redirects()
    del cluster.tunnel.refuse[pod.uid]
    cluster.enabled()


def test_enabled_stays_while_the_tunnel_is_away(cluster):
    pod = cluster.pod()
    cluster.join()
    cluster.enabled()
    cluster.tunnel.stop()
    time.sleep(0.3)
    assert pod.annotation() == "enabled" and pod.redirects()
    cluster.stop()
    cluster.start()
    time.sleep(0.3)
    assert pod.annotation() == "enabled" and pod.redirects() and pod.patches() == ["enabled"]
    cluster.connect()
    cluster.enabled()
    assert pod.patches() == ["enabled"]


def test_after_a_reboot_the_annotation_is_not_believed(cluster):
    """enabled on a pod without rules, no tunnel yet: traffic would be sent to nobody."""
    cluster.tunnel.stop()
    cluster.join()
    pod = cluster.pod(show=False)
    pod.annotations["ambient.istio.io/redirection"] = "enabled"
    pod.show()
    eventually(lambda: pod.annotation() is None, what=cluster.log)
    pod.annotations.clear()
    cluster.connect()
    cluster.enabled()
    assert pod.patches() == [None, "enabled"]


def test_a_pod_that_is_not_selected_loses_an_annotation_of_an_earlier_life(cluster):
    pod = cluster.pod(show=False)
    pod.annotations["ambient.istio.io/redirection"] = "enabled"
    pod.show()
    eventually(lambda: pod.annotation() is None, what=cluster.log)
    assert not pod.has_table()


def change_annotation(cluster, pod, value):
    cluster.api.change_pod(pod.namespace, pod.name, lambda shown: shown["metadata"].update(
        annotations={"ambient.istio.io/redirection": value} if value else {}))


def patched_anew(cluster, pod):
    """What somebody else made of the first patch is patched once, and that stays."""
    cluster.join()
    eventually(lambda: pod.patches() == ["enabled", "enabled"], what=cluster.log)
    cluster.enabled()
    time.sleep(0.3)
    assert pod.patches() == ["enabled", "enabled"] and pod.annotation() == "enabled"


@pytest.mark.parametrize("change", [None, "pending"])
def test_an_annotation_that_is_changed_before_its_patch_is_answered(cluster, change):
    """The watch shows the patch and the change of somebody else, then comes the patch's answer, which is the older."""
    pod = cluster.pod()

    def somebody_else():
        change_annotation(cluster, pod, change)
        time.sleep(0.3)
    cluster.api.after_patch = somebody_else
    patched_anew(cluster, pod)


@pytest.mark.parametrize("change", [None, "pending"])
def test_an_annotation_that_is_changed_while_the_watch_is_broken(cluster, change):
    """No event shows the patch: the list that follows the break has the change of somebody else already, and comes before the
    patch's answer."""
    pod = cluster.pod()
    eventually(cluster.api.has_told)
    cluster.api.fail(r"GET /api/v1/pods\?", 503, times=10**6)
    cluster.api.order_watchers("expire", "pods")

    def somebody_else():
        change_annotation(cluster, pod, change)
        cluster.api.faults.clear()
        cluster.api.wait(cluster.api.has_told)
        time.sleep(0.3)
    cluster.api.after_patch = somebody_else
    patched_anew(cluster, pod)


def test_patches_meet_conflicts_and_deleted_pods(cluster):
    pods = [cluster.pod() for _ in range(3)]
    cluster.api.patch_conflicts = 2
    pods[2].hide()
    cluster.join()
    cluster.enabled(pods[:2])
    pods[0].hide()
    pods[0].exit()
    assert all(body["metadata"]["uid"] for _, _, _, body in cluster.api.patches)


@pytest.mark.parametrize("way, fault", [
    *(("in", fault) for fault in ((409, 3), (422, 3), (429, 2), (500, 3), (503, 3), (403, 3), (401, 2), (404, 3), (0, 3), ("close", 3),
                                  ("truncate", 2))),
    *(("out", fault) for fault in ((409, 3), (404, 3), (503, 3)))], ids=str)
def test_patches_that_are_refused_are_made_again(cluster, way, fault):
    """Whatever a server, or something on the way to it, says: in the end the annotation tells the truth, and nobody was hurried."""
    status, times = fault
    pod = cluster.pod()
    if way == "out":
        cluster.join()
        cluster.enabled()
    cluster.api.fail(r"PATCH .*/status", status, times=times, retry_after=1 if status == 429 else None)
    before = len(cluster.api.requests)
    (cluster.join if way == "in" else cluster.leave)()
    eventually(lambda: pod.annotation() == ("enabled" if way == "in" else None), what=lambda: cluster.log()[-4000:])
    assert pod.redirects() == (way == "in")
    patches = [request for request in cluster.api.requests[before:] if request[0] == "PATCH"]
    assert len(patches) <= times + 2, patches
    eventually(pod.is_enabled if way == "in" else pod.is_out)


def test_a_server_that_knows_no_status_of_pods_is_not_hurried(cluster):
    """Each patch meets 404, and the pod is there: asked again, ever more seldom."""
    cluster.api.fail(r"PATCH .*/status", 404, times=1000)
    pod = cluster.pod()
    cluster.join()
    pod.enter()
    time.sleep(2)
    assert 2 <= len([request for request in cluster.api.requests if request[0] == "PATCH"]) <= 10


def test_a_successor_of_the_same_name_is_not_patched_late(cluster):
    """The patch of the old one is under way when it is replaced: the uid in it saves the new one."""
    old = cluster.pod(name="cart")
    cluster.api.delay = 0.3
    cluster.join()
    cluster.tunnel.wait(lambda: old.uid in cluster.tunnel.workloads, 10)
    old.hide()
    new = cluster.pod(name="cart")
    cluster.api.delay = 0
    old.exit()
    cluster.enabled([new])
    assert {body["metadata"]["uid"] for _, _, _, body in cluster.api.patches} <= {old.uid, new.uid}


def test_the_api_is_away_at_start(new_cluster):
    """Nobody is cut off: the tunnel hears nothing at first, then of the pods that are remembered."""
    cluster = new_cluster()
    pods = [cluster.pod() for _ in range(2)]
    cluster.join()
    cluster.enabled()
    cluster.stop()
    cluster.stop_api()
    cluster.start(wait=False)
    cluster.tunnel.wait(lambda: cluster.tunnel.is_connected)
    before = len(cluster.tunnel.requests)
    time.sleep(2)
    assert len(cluster.tunnel.requests) == before
    cluster.tunnel.wait(lambda: cluster.tunnel.is_ready, 10)
    assert sorted(cluster.tunnel.requests[before:-1]) == [("add", pod.uid) for pod in pods]
    assert all(pod.is_in() for pod in pods)
    assert "can't be listed" in cluster.log()
    # Drift is repaired all the same.
    pods[0].netns.run("nft", "delete", "table", "inet", "ambient-cni")
    eventually(pods[0].redirects)
    # It is back, and one pod is gone meanwhile, another has no label any more.
    pods[1].labels["istio.io/dataplane-mode"] = "none"
    cluster.start_api()
    pods[1].show()
    pods[1].exit()
    cluster.enabled(pods[:1])


def test_a_pod_that_went_while_no_agent_ran_and_namespaces_that_are_listed_late(cluster):
    """Its containers run on: what is remembered of it is not forgotten before its namespace was looked for."""
    pod, other = cluster.pod(), cluster.pod()
    cluster.join()
    cluster.enabled()
    eventually(lambda: cluster.enrolled() == {pod.uid, other.uid})
    cluster.kill()
    pod.hide()
    cluster.api.fail(r"GET /api/v1/namespaces\?", 503, times=2)
    cluster.start()
    pod.exit()
    assert other.is_in()


@pytest.mark.parametrize("end", ["is not selected any more", "is gone"])
def test_a_first_look_at_the_nodes_processes_that_fails(cluster, end):
    """Of a pod that left while no agent ran: it is looked for again."""
    pod, other = cluster.pod(), cluster.pod()
    cluster.join()
    cluster.enabled()
    eventually(lambda: cluster.enrolled() == {pod.uid, other.uid})
    cluster.kill()
    if end == "is gone":
        pod.hide()
    else:
        pod.show(**{"istio.io/dataplane-mode": "none"})
    aside = cluster.proc.rename(cluster.proc.with_suffix(".aside"))
    cluster.start()
    time.sleep(0.2)
    assert pod.has_table()
    aside.rename(cluster.proc)
    pod.exit()
    other.enter()
    eventually(lambda: cluster.enrolled() == {other.uid})


def test_a_pod_that_is_changed_while_it_is_read(cluster):
    """The watch has shown the change before the answer comes, which is the older."""
    runtime = Runtime(cluster)
    cluster.join()
    other = cluster.pod()
    cluster.enabled()
    pod = cluster.pod(show=False, starts=True)
    older = json.loads(json.dumps(pod.object()))
    older["metadata"]["resourceVersion"] = "900"

    def read():
        pod.show(**{"istio.io/dataplane-mode": "none"})
        eventually(lambda: pod.state() == "none")
        return older
    cluster.api.instead_of_read = read
    runtime.add(pod)
    assert not cluster.api.instead_of_read
    time.sleep(0.3)
    assert not pod.has_table() and pod.state() == "none" and other.is_in()
    runtime.delete(pod)


def test_no_snapshot_before_anything_is_known(new_cluster):
    """Nothing remembered, no API: an empty snapshot would cut every pod off."""
    cluster = new_cluster(start=False, tunnel=False)
    cluster.stop_api()
    cluster.start(wait=False)
    cluster.connect()
    time.sleep(6)
    assert cluster.tunnel.requests == [] and not cluster.tunnel.is_ready
    cluster.start_api()
    cluster.tunnel.wait(lambda: cluster.tunnel.is_ready, 15)


def test_a_stop_while_our_daemon_set_stands_leaves_everything(cluster):
    pod = cluster.pod()
    cluster.join()
    cluster.enabled()
    handles, host = pod.handles(), cluster.host_rules()
    cluster.stop()
    assert pod.handles() == handles and cluster.host_rules() == host and pod.annotation() == "enabled"
    cluster.start()
    cluster.enabled()
    assert pod.handles() == handles and cluster.host_rules() == host and pod.patches() == ["enabled"]


def uninstalled(cluster, pods, seconds):
    cluster.agent.send_signal(signal.SIGTERM)
    assert cluster.agent.wait(seconds) == 0, cluster.log()
    cluster.agent = None
    for pod in pods:
        assert pod.is_out() and pod.annotation() is None, (pod.traces(), pod.annotation(), cluster.log()[-3000:])
    assert "table" not in cluster.host_rules()
    assert not (cluster.run_dir / "enrolled.json").exists() and not (cluster.run_dir / "outside.json").exists()


def test_without_our_daemon_set_a_stop_uninstalls(cluster):
    pods = [cluster.pod() for _ in range(3)]
    cluster.join()
    cluster.enabled()
    cluster.api.delete("daemonsets", SYSTEM, DAEMON_SET)
    uninstalled(cluster, pods, 15)


def test_pods_whose_annotation_can_not_be_removed_stay(new_cluster):
    """RBAC is gone with the release: after 20 s that means uninstalled, and whose annotation stays must stay enrolled."""
    cluster = new_cluster()
    pod = cluster.pod()
    cluster.join()
    cluster.enabled()
    cluster.api.forbidden = ["PATCH", "daemonsets"]
    cluster.agent.send_signal(signal.SIGTERM)
    assert cluster.agent.wait(60) == 0, cluster.log()
    cluster.agent = None
    assert pod.redirects() and pod.annotation() == "enabled" and pod.is_probed()
    assert pod.name in cluster.log() and "stays in the mesh" in cluster.log()


def test_new_pods_while_the_api_is_away(cluster):
    """What is known of their namespaces decides, as it would in the plugin; a pod that runs is not touched."""
    cluster.label("office")
    cluster.join()
    runtime = Runtime(cluster)
    running = cluster.pod()
    cluster.enabled()
    eventually(lambda: "office" in cluster.outside())
    cluster.stop()
    cluster.stop_api()
    cluster.start(wait=False)
    cluster.log_has("pods: ")
    outside, inside = cluster.pod(show=False, starts=True, namespace="office"), cluster.pod(show=False, starts=True)
    eventually(lambda: runtime.call("ADD", outside)[0] == 0)
    assert not outside.traces()
    status, error = runtime.call("ADD", inside)
    assert status == 1 and error["code"] == 11 and "not known to be outside" in error["msg"], error
    assert not inside.traces() and running.redirects()
    cluster.start_api()
    inside.show()
    eventually(lambda: runtime.call("ADD", inside)[0] == 0)
    assert inside.is_in()


def test_when_away_closed_lets_nobody_start_unseen(new_cluster):
    cluster = new_cluster(settings=["whenAway=closed"])
    cluster.label("office")
    runtime = Runtime(cluster)
    eventually(lambda: "office" in cluster.outside())
    cluster.stop()
    cluster.stop_api()
    cluster.start(wait=False)
    cluster.log_has("pods: ")
    pod = cluster.pod(show=False, starts=True, namespace="office")
    status, error = runtime.call("ADD", pod)
    assert status == 1 and error["code"] == 11, error
    cluster.start_api()
    pod.show()
    eventually(lambda: runtime.call("ADD", pod)[0] == 0)


def test_a_pod_that_the_watch_has_not_shown_yet_is_read_once(cluster):
    cluster.join()
    runtime = Runtime(cluster)
    witness = cluster.pod()
    cluster.enabled()
    # The watch of pods is silent from now on: the pod is only known by asking for it.
    cluster.api.order_watchers("silence", "pods")
    pod = cluster.pod(starts=True)
    runtime.add(pod)
    assert pod.is_in() and witness.is_in()
    assert [path for method, path, _ in cluster.api.requests if method == "GET" and path.endswith(f"/pods/{pod.name}")]
    # The annotation is nothing that the plugin waits for, but it comes.
    eventually(lambda: pod.annotation() == "enabled")


def test_a_new_pod_is_enabled_after_its_add(cluster):
    cluster.join()
    runtime = Runtime(cluster)
    pod = cluster.pod(starts=True)
    cluster.api.fail("PATCH", 500, times=3)
    began = time.monotonic()
    runtime.add(pod)
    assert time.monotonic() - began < 3 and pod.is_in()
    eventually(lambda: pod.annotation() == "enabled")
    runtime.delete(pod)
    pod.exit()


def test_the_taint_of_a_new_node_goes_when_the_agent_is_ready(new_cluster):
    """Pods that need the mesh are kept away from a node until there is somebody who puts them in."""
    cluster = new_cluster(start=False, tunnel=False, settings=["removeTaint=cni.istio.io/not-ready"])
    taints = [{"key": "cni.istio.io/not-ready", "effect": "NoSchedule"}, {"key": "other", "effect": "NoSchedule"}]
    cluster.api.put_node("node", taints=taints)
    cluster.api.fail(r"GET /api/v1/pods\?", 503, times=3)
    cluster.start()
    eventually(lambda: cluster.api.get("nodes", None, "node")["spec"]["taints"] == taints[1:], what=cluster.log)
    # Not before it was ready, and without a tunnel, which is no part of readiness.
    cluster.log_has("bears no taint")
    asked = [(method, path.partition("?")[0], status) for method, path, status in cluster.api.requests]
    assert asked.index(("PATCH", "/api/v1/nodes/node", 200)) > asked.index(("GET", "/api/v1/pods", 200)) > asked.index(
        ("GET", "/api/v1/pods", 503))


def test_a_stop_while_the_api_is_away(cluster):
    """It can't tell whether our DaemonSet stands: everything stays, and the kubelet, which waits, need not kill us."""
    pod = cluster.pod()
    cluster.join()
    cluster.enabled()
    cluster.stop_api()
    began = time.monotonic()
    cluster.stop()
    assert time.monotonic() - began < 15
    assert pod.redirects() and pod.uid in cluster.tunnel.workloads
    cluster.start_api()
    cluster.start()
    cluster.enabled()


def test_an_uninstallation_that_takes_its_time(new_cluster, tmp_path):
    """The keeper of plugin and configuration is gone while pods are still being released: nobody asks it any more."""
    for folder in ("bin", "net.d", "source"):
        (tmp_path / folder).mkdir()
    shutil.copy(PLUGIN, tmp_path / "source/ambient-cni")
    (tmp_path / "net.d/10-bridge.conflist").write_text(json.dumps({"cniVersion": "1.0.0", "name": "podnet",
                                                                   "plugins": [{"type": "bridge"}]}))
    cluster = new_cluster(settings=["host.install=true", f"host.binDir={tmp_path}/bin", f"host.confDir={tmp_path}/net.d",
                                    f"host.binSource={tmp_path}/source"])
    pod = cluster.pod()
    cluster.join()
    cluster.enabled()
    eventually(lambda: (tmp_path / "bin/ambient-cni").exists() and cluster.get("/status")["host"].get("ready"), what=cluster.log)
    cluster.api.delete("daemonsets", SYSTEM, DAEMON_SET)
    cluster.api.fail(r"PATCH .*/status", 503, times=3)
    cluster.agent.send_signal(signal.SIGTERM)
    eventually(lambda: cluster.get("/status")["host"]["install"] is False, what=cluster.log)
    assert "ambient-cni" not in (tmp_path / "net.d/10-bridge.conflist").read_text()
    assert cluster.agent.wait(30) == 0, cluster.log()
    cluster.agent = None
    pod.exit()
    assert pod.annotation() is None


@pytest.mark.parametrize("order", ["DEL first", "DEL late", "no DEL", "no DEL of one that was found", "no DEL, agent away",
                                   "no DEL of one that was found, agent away"])
def test_a_sandbox_made_anew_without_an_add(cluster, order):
    """The primary CNI had just rewritten the chain without us: the new sandbox is found like any pod that runs."""
    runtime = Runtime(cluster)
    cluster.join()
    old = cluster.pod(starts=True, name="cart")
    if "found" not in order:
        runtime.add(old)
    old.starts = False
    old.show()
    cluster.enabled([old])
    if "agent away" in order:
        eventually(lambda: cluster.enrolled() == {old.uid})
        cluster.kill()
    shutil.rmtree(cluster.proc / str(old.holder.pid))
    if order == "DEL first":
        runtime.delete(old)
    new = cluster.pod(show=False, name="cart")
    new.uid = old.uid
    (cluster.proc / str(new.holder.pid) / "cgroup").write_text(f"0::/kubepods/besteffort/pod{new.uid}/{new.number:064x}\n")
    new.show()
    if order == "DEL late":
        eventually(lambda: cluster.api.get("pods", "shop", "cart")["status"]["podIP"] == new.address)
        time.sleep(0.3)
        runtime.delete(old)
    if "agent away" in order:
        cluster.start()
    new.enter()
    cluster.enabled([new])
    assert cluster.probes() == {new.address, new.address6}


@pytest.mark.parametrize("is_reported", [True, False])
def test_a_late_del_comes_before_the_first_list(cluster, is_reported):
    """A new sandbox that no ADD told of, as above, while no agent runs; the agent hears of the old one's end before the API server
    tells it of anything. Where the kubelet has not told the new addresses yet, nothing is looked for by the old ones."""
    runtime = Runtime(cluster)
    cluster.join()
    old = cluster.pod(starts=True, name="cart")
    old.start_by_add(runtime)
    cluster.enabled([old])
    eventually(lambda: cluster.enrolled() == {old.uid})
    cluster.kill()
    cluster.stop_api()
    new = cluster.pod(show=False, name="cart")
    new.uid = old.uid
    (cluster.proc / str(new.holder.pid) / "cgroup").write_text(f"0::/kubepods/besteffort/pod{new.uid}/{new.number:064x}\n")
    if is_reported:
        new.show()
    cluster.start(wait=False)
    cluster.log_has("cannot watch pods")
    eventually(cluster.serves_plugins)
    runtime.delete(old)
    cluster.log_has("the pod's sandbox is removed")
    shutil.rmtree(cluster.proc / str(old.holder.pid))
    cluster.start_api()
    cluster.log_has("listed ")
    if not is_reported:
        time.sleep(1)
        assert "cannot find the pod's network namespace" not in cluster.log()
        new.show()
    new.enter()
    cluster.enabled([new])
    assert cluster.probes() == {new.address, new.address6}


def test_what_is_reported_of_an_older_sandbox_does_not_count(cluster):
    """The kubelet reports a new sandbox's addresses some time after its ADD; till then whatever changes in the object comes with
    the old ones. Even where the old sandbox's namespace lives on."""
    runtime = Runtime(cluster)
    cluster.join()
    old = cluster.pod(starts=True, name="cart")
    old.start_by_add(runtime)
    cluster.enabled([old])
    new = cluster.pod(show=False, name="cart")
    new.uid = old.uid
    (cluster.proc / str(new.holder.pid) / "cgroup").write_text(f"0::/kubepods/besteffort/pod{new.uid}/{new.number:064x}\n")
    runtime.add(new)
    old.show(seen="late")
    time.sleep(0.5)
    assert cluster.probes() == {new.address, new.address6} and new.redirects()
    new.show(seen="now")
    time.sleep(0.3)
    assert new.is_in() and "which no ADD told of" not in cluster.log()


def test_a_pod_of_the_predecessors_last_moment_is_probed_all_the_time(cluster):
    """The successor has read what is remembered when its predecessor answers one more ADD; the kubelet has not told the address yet.
    Nothing of the pod is taken for a leftover, not even for a moment."""
    runtime = Runtime(cluster)
    cluster.join()
    pod = cluster.pod(starts=True)
    runtime.add(pod)
    cluster.tunnel.stop()
    cluster.kill()
    cluster.stop_api()
    aside = cluster.folder / "aside"
    (cluster.run_dir / "attachments").rename(aside)
    (cluster.run_dir / "enrolled.json").unlink(missing_ok=True)
    cluster.start(wait=False)
    cluster.log_has("cannot watch pods")
    shutil.rmtree(cluster.run_dir / "attachments", ignore_errors=True)
    aside.rename(cluster.run_dir / "attachments")
    with Changes(cluster.host) as changes:
        cluster.start_api()
        cluster.log_has("listed ")
        time.sleep(0.5)
    assert not changes.times and pod.is_probed()
    cluster.connect()
    pod.enter()


def test_a_pod_that_lost_its_table_is_remembered_until_it_is_out(cluster):
    """Table and label went while no agent ran, and the next agent ends before it could take the rest away."""
    cluster.join()
    pod = cluster.pod()
    cluster.enabled()
    eventually(lambda: cluster.enrolled() == {pod.uid})
    cluster.kill()
    pod.netns.nft("delete table inet ambient-cni")
    cluster.leave()
    cluster.api.fail("PATCH", 500, times=10**6)
    cluster.start()
    time.sleep(1.5)  # what is remembered is saved by then
    cluster.kill()
    cluster.api.faults.clear()
    assert "lookup 100" in pod.traces()
    cluster.start()
    pod.exit()


def test_a_sandbox_without_an_add_after_an_add_that_failed(cluster):
    """The tunnel refused the pod, the runtime tries again, and by then the primary CNI has rewritten the chain without us."""
    runtime = Runtime(cluster)
    cluster.join()
    pod = cluster.pod(starts=True)
    cluster.tunnel.refuse[pod.uid] = "busy"
    status, answer = runtime.call("ADD", pod)
    assert status == 1 and "busy" in answer["msg"]
    runtime.delete(pod)
    del cluster.tunnel.refuse[pod.uid]
    pod.starts = False
    pod.show()
    cluster.enabled([pod])
