"""What a reading of the agent's core found: each case was wrong once."""
import json
import socket
import subprocess
import time

import pytest

from .cni import Runtime
from .node import INSTALLER, eventually


def connect(node):
    """To the agent's socket, as a plugin does."""
    plugin = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    plugin.settimeout(10)
    plugin.connect(str(node.run_dir / "installer.sock"))
    return plugin


def ask(plugin, pod, interface="eth0"):
    """The question of an ADD; returns the answer."""
    attachment = {"network": "podnet", "containerID": Runtime.container(pod), "interface": interface, "netnsPath": pod.path,
                  "podNamespace": pod.namespace, "podName": pod.name, "podUID": pod.uid, "addresses": [pod.address]}
    with open(pod.path, "rb") as netns:
        message = {"type": "add", "version": 1, "minimumVersion": 1, "attachment": attachment}
        socket.send_fds(plugin, [json.dumps(message).encode()], [netns.fileno()])
    return json.loads(plugin.recv(65536))


def test_a_successor_of_the_name_on_another_node_is_left_alone(cluster):
    """An ADD whose pod is gone; a pod of its name lives elsewhere by now and is none of ours, above all not its annotation."""
    runtime = Runtime(cluster)
    cluster.join()
    pod = cluster.pod(show=False, starts=True)
    successor = pod.object()
    successor["metadata"].update(uid="11111111-0000-4000-8000-000000000000",
                                 annotations={"ambient.istio.io/redirection": "enabled"})
    successor["spec"]["nodeName"] = "elsewhere"
    cluster.api.put("pods", successor)
    status, error = runtime.call("ADD", pod)
    assert status == 1 and error["code"] == 11 and "only another pod of this name" in error["msg"], error
    time.sleep(0.3)
    assert pod.annotation() == "enabled" and not pod.patches()
    assert pod.key not in cluster.pods()


def test_a_pod_that_is_kept_and_gone_is_deleted(cluster):
    """While the server is away the tunnel is told to keep a pod whose namespace is not found; then it turns out to be gone."""
    pod, other = cluster.pod(), cluster.pod()
    cluster.join()
    cluster.enabled()
    eventually(lambda: len(cluster.enrolled()) == 2)
    cluster.kill()
    cluster.stop_api()
    for path in (cluster.proc / str(pod.holder.pid)).rglob("cgroup"):
        path.unlink()
    cluster.start(wait=False)
    cluster.log_has("the tunnel is told of the 2 pods that are remembered", 15)
    cluster.tunnel.wait(lambda: ("keep", pod.uid) in cluster.tunnel.requests)
    assert pod.uid in cluster.tunnel.workloads
    cluster.api.delete_pod(pod.namespace, pod.name)
    cluster.start_api()
    cluster.tunnel.wait(lambda: pod.uid not in cluster.tunnel.workloads)
    cluster.enabled([other])


def test_a_pod_that_is_not_found_at_once_is_kept(cluster):
    """The agent comes back and does not find a pod's namespace yet: the tunnel goes on with it, and so do its peers."""
    pod = cluster.pod()
    cluster.join()
    cluster.enabled()
    eventually(lambda: len(cluster.enrolled()) == 1)
    cluster.kill()
    cgroup = cluster.proc / str(pod.holder.pid) / "cgroup"
    text = cgroup.read_text()
    cgroup.write_text("0::/elsewhere\n")
    cluster.start()
    cluster.tunnel.wait(lambda: ("keep", pod.uid) in cluster.tunnel.requests)
    time.sleep(0.3)
    assert pod.uid in cluster.tunnel.workloads
    assert pod.annotation() == "enabled" and len(pod.patches()) == 1
    cgroup.write_text(text)
    cluster.enabled()
    assert not [kind for kind, uid in cluster.tunnel.requests if kind == "delete"]


def test_a_static_pod_survives_a_restart(node):
    """Its runtime knows it by config.hash, its mirror pod has another uid."""
    runtime = Runtime(node)
    node.join()
    pod = node.pod(show=False, starts=True)
    uid, pod.uid = pod.uid, "0123456789abcdef0123456789abcdef"
    pod.annotations["kubernetes.io/config.hash"] = pod.uid
    mirror = pod.object()
    mirror["metadata"]["uid"] = uid
    node.write(f"pod-{pod.number}.json", mirror)
    eventually(lambda: pod.key in node.pods())
    runtime.add(pod)
    assert uid in node.tunnel.workloads and pod.redirects()
    eventually(lambda: node.enrolled() == {uid})
    handles = pod.handles()
    node.kill()
    node.start()
    eventually(lambda: (pod.view() or {}).get("state") == "enabled", what=node.log)
    time.sleep(0.3)
    assert pod.handles() == handles and set(node.tunnel.workloads) == {uid}
    runtime.check(pod)
    runtime.delete(pod)
    eventually(lambda: not node.tunnel.workloads and not node.probes())


def mirror_of(pod, uid):
    mirror = pod.object()
    mirror["metadata"]["uid"] = uid
    return mirror


@pytest.mark.parametrize("moment", ["at once", "later"])
def test_a_static_pods_mirror_that_is_deleted_comes_again(node, moment):
    """kubectl delete pod on a mirror ends nothing: the pod runs on, and the kubelet makes another mirror. Its redirection stays as
    it is, and the tunnel takes the new uid before it lets go of the old one."""
    runtime = Runtime(node)
    node.join()
    pod = node.pod(show=False, starts=True)
    first, second, pod.uid = pod.uid, "00000000-0000-4000-8000-00000000beef", "0123456789abcdef0123456789abcdef"
    pod.annotations["kubernetes.io/config.hash"] = pod.uid
    node.write(f"pod-{pod.number}.json", mirror_of(pod, first))
    eventually(lambda: pod.key in node.pods())
    runtime.add(pod)
    handles = pod.handles()
    if moment == "later":
        pod.hide()
        time.sleep(1)
        assert pod.redirects() and first in node.tunnel.workloads
    node.write(f"pod-{pod.number}.json", mirror_of(pod, second))
    node.tunnel.wait(lambda: list(node.tunnel.workloads) == [second])
    assert [request for request in node.tunnel.requests if request[0] in ("add", "delete")] == [
        ("add", first), ("add", second), ("delete", first)]
    eventually(lambda: pod.view()["state"] == "enabled" and pod.view()["uid"] == second)
    assert pod.handles() == handles and pod.is_probed()
    runtime.check(pod)
    # It is the new one's: a restart knows it, and it goes with its DEL.
    eventually(lambda: node.enrolled() == {second})
    node.kill()
    node.start()
    eventually(lambda: (pod.view() or {}).get("state") == "enabled", what=node.log)
    assert pod.handles() == handles
    runtime.delete(pod)
    eventually(lambda: not node.tunnel.workloads and not node.probes())


def test_a_static_pods_mirror_that_is_gone_for_good(node):
    node.join()
    pod = node.pod(show=False)
    pod.annotations["kubernetes.io/config.hash"] = "0123456789abcdef0123456789abcdef"
    pod.show().enter()
    pod.hide()
    time.sleep(0.5)
    assert pod.redirects()
    pod.exit()


def test_a_pod_that_goes_while_its_add_is_under_way_and_the_list_is_made_anew(new_cluster):
    """No watch says that it is gone: without a look it would be there for ever."""
    cluster = new_cluster()
    runtime = Runtime(cluster)
    cluster.join()
    pod, other = cluster.pod(starts=True), cluster.pod(starts=True)
    eventually(lambda: len(cluster.pods()) == 2)
    cluster.tunnel.hold(True)
    processes = [runtime.start("ADD", each, config={"timeoutSeconds": 20}) for each in (pod, other)]
    eventually(lambda: pod.redirects() and other.redirects())
    cluster.stop_api()
    pod.hide()
    cluster.api.compact()
    before = len(cluster.api.requests)
    cluster.start_api()
    eventually(lambda: any("/pods?" in path and "resourceVersionMatch" in path and status == 200
                           for _, path, status in cluster.api.requests[before:]), what=lambda: cluster.api.requests[before:])
    time.sleep(0.5)
    cluster.tunnel.hold(False)
    for process in processes:
        runtime.finish(process)
    eventually(lambda: pod.key not in cluster.pods(), what=cluster.log)
    assert other.key in cluster.pods() and other.uid in cluster.tunnel.workloads
    pod.exit()


def test_a_second_interface_that_fails_takes_nothing_away(node):
    """The sandbox is in the mesh by its first ADD: it stays so until that one's DEL."""
    runtime = Runtime(node)
    node.join()
    pod = node.pod(starts=True)
    runtime.add(pod)
    for _ in range(2):
        with connect(node) as plugin:
            assert ask(plugin, pod, "net1")["type"] == "decision"
        time.sleep(0.1)
        assert pod.is_in()
        node.leave()
        pod.exit()
        node.join()
        pod.enter()


def test_the_server_hangs_during_an_add(new_cluster):
    """It takes connections and never answers: a pod of a namespace that is outside starts all the same."""
    cluster = new_cluster()
    runtime = Runtime(cluster)
    cluster.label("office")
    cluster.join()
    eventually(lambda: "office" in cluster.outside() and "shop" not in cluster.outside())
    cluster.kill()
    cluster.stop_api()
    cluster.api._placeholder.listen()
    cluster.start(wait=False)
    pod, inside = cluster.pod(show=False, starts=True, namespace="office"), cluster.pod(show=False, starts=True)
    cluster.log_has("ambient-installer")

    def answers():
        try:
            return connect(cluster).close() is None
        except OSError:
            return False

    eventually(answers)
    processes = [runtime.start("ADD", pod), runtime.start("ADD", inside)]
    assert runtime.finish(processes[0])[0] == 0, cluster.log()
    status, error = runtime.finish(processes[1])
    assert status == 1 and error["code"] == 11, error
    assert "the source knows" not in error["msg"] and not pod.traces()
    cluster.start_api()


def test_an_add_that_asks_a_superseded_agent(node):
    """Its connection was taken before the successor came; the question comes after."""
    with connect(node) as plugin, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as successor:
        time.sleep(0.1)
        path = node.run_dir / "installer.sock"
        successor.bind(str(path) + ".new")
        successor.listen()
        path.with_name("installer.sock.new").rename(path)
        node.log_has("a successor")
        node.join()
        # Nothing is answered: the plugin is to make its connection again, to the successor.
        with pytest.raises(json.JSONDecodeError):
            ask(plugin, node.pod(starts=True))
    assert node.agent.poll() is None


def test_the_remembered_path_is_a_plain_file_by_now(cluster):
    """A mount that went leaves the file it lay on: the pod is found among processes then."""
    runtime = Runtime(cluster)
    pod = cluster.pod(starts=True)
    runtime.add(pod)
    # Of a pod outside it is written after the answer.
    path, = eventually(lambda: list((cluster.run_dir / "attachments").glob("*.json")))
    cluster.kill()
    plain = cluster.folder / "cni-plain"
    plain.touch()
    attachment = json.loads(path.read_text())
    assert attachment["netnsPath"] == pod.path
    path.write_text(json.dumps({**attachment, "netnsPath": str(plain)}))
    pod.starts = False
    pod.show()
    cluster.start()
    cluster.join()
    cluster.enabled()


def test_two_pods_of_one_namespace(node):
    """The second is refused, by name, and can take nothing from the first."""
    node.join()
    first, second = node.pod(), node.pod(show=False)
    first.enter()
    handles = first.handles()
    second.annotations["ambient-cni.io/netns"] = first.path
    second.show()
    eventually(lambda: f"is that of pod {first.key}" in (second.view() or {}).get("lastError", ""))
    second.show(**{"istio.io/dataplane-mode": "none"})
    eventually(lambda: second.state() == "none")
    assert first.is_in() and first.handles() == handles and second.uid not in node.tunnel.workloads


def test_a_pod_without_an_address(node):
    """Nothing is to be exempt on the host then: nothing is waited for."""
    node.join()
    pod = node.pod(show=False)
    pod.status.update(podIP=None, podIPs=[])
    pod.show()
    eventually(lambda: pod.redirects() and pod.uid in node.tunnel.workloads)
    assert not node.probes()


def test_a_namespaces_labels_are_kept_as_far_as_they_decide(node):
    pod = node.pod()
    node.label("shop", **{"istio.io/dataplane-mode": "ambient", "kubernetes.io/metadata.name": "shop", "team": "a"})
    pod.enter()
    assert pod.view()["seen"]["namespaceLabels"] == {"istio.io/dataplane-mode": "ambient"}


def test_a_changed_setting_during_an_add(node):
    """The ADD goes on with what was decided; the change follows when the pod is in."""
    runtime = Runtime(node)
    node.join()
    pod = node.pod(starts=True)
    with connect(node) as plugin:
        decision = ask(plugin, pod)
        pod.annotations["ambient.istio.io/dns-capture"] = "false"
        pod.show()
        eventually(lambda: "dns-capture" in json.dumps((pod.view() or {}).get("seen", {})))
        subprocess.run([str(INSTALLER.parent / "tests" / "redirect_tool"), "apply", "--netns", pod.path,
                        "--redirect", json.dumps(decision["redirect"])], check=True)
        plugin.send(json.dumps({"type": "report", "version": 1, "minimumVersion": 1}).encode())
        answer = json.loads(plugin.recv(65536))
        assert answer["type"] == "result" and answer["code"] == 0, answer
        eventually(lambda: pod.redirects() and "15053" not in pod.netns.run("nft", "list", "table", "inet", "ambient-cni"))
    runtime.delete(pod)


def test_an_annotation_that_somebody_puts_on_a_released_pod_goes(cluster):
    pod = cluster.pod()
    for _ in range(2):
        cluster.join()
        cluster.enabled()
        cluster.leave()
        pod.exit()
        eventually(lambda: pod.annotation() is None)
        for _ in range(2):
            pod.annotations["ambient.istio.io/redirection"] = "enabled"
            pod.show()
            del pod.annotations["ambient.istio.io/redirection"]
            eventually(lambda: pod.annotation() is None, what=cluster.log)
