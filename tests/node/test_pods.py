"""The lives of pods: labels of their own, jobs, graceful ends, sandboxes made anew, roll-outs."""
import json
import os
import time

from .machine import ADDRESS
from .pods import MODE, client, container, pod, server
from .waiting import wait_until

AMBIENT = {MODE: "ambient"}


def test_a_pods_own_label_wins(node, make_workspace):
    mesh, plain = make_workspace(node, AMBIENT), make_workspace(node)
    mesh.create("out", server(8080), labels={MODE: "none"})
    plain.create("in", server(8080), labels={MODE: "ambient"})
    mesh.create("usual", server(8080))
    mesh.create("host", container("idle", "workload", "pause"), hostNetwork=True)
    mesh.create("sidecar", server(8080), annotations={"sidecar.istio.io/status": "{}"})
    for workspace, name in ((mesh, "out"), (plain, "in"), (mesh, "usual"), (mesh, "host"), (mesh, "sidecar")):
        workspace.wait_ready(name)
    assert mesh.redirection("usual") == "enabled" and plain.redirection("in") == "enabled"
    for name in ("out", "host", "sidecar"):
        assert mesh.redirection(name) is None
    assert "ambient" not in node.product.tables(mesh.uid("out"))
    assert "ambient" not in node.product.tables(mesh.uid("sidecar"))
    # And while they run.
    mesh.label_pod("out", None)
    mesh.wait_redirection("out", "enabled")
    assert node.product.is_redirected(mesh.uid("out"))
    mesh.label_pod("out", "none")
    mesh.wait_redirection("out", None)
    plain.label_pod("in", None)
    plain.wait_redirection("in", None)
    for workspace, name in ((mesh, "out"), (plain, "in")):
        wait_until(lambda uid=workspace.uid(name): not node.product.is_redirected(uid), 15, f"{name} is released")
        assert workspace.restarts(name) == 0


def test_a_jobs_pod_ends(node, make_workspace):
    port = node.serve_outside()
    workspace, events = make_workspace(node, AMBIENT), node.product.events()
    template = pod("job", workspace.name, container("once", "workload", "first", ADDRESS[4], str(port)), restartPolicy="Never")
    node.api.create({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job", "namespace": workspace.name},
                     "spec": {"backoffLimit": 0, "template": {"spec": template["spec"]}}})
    wait_until(lambda: node.api.get("Job", workspace.name, "job").get("status", {}).get("succeeded") == 1, 60, "the job succeeds",
               explain=workspace.explain)
    done, = node.api.list("Pod", workspace.name)
    uid, address = done["metadata"]["uid"], done["status"]["podIP"]
    assert workspace.log(done["metadata"]["name"], "once").strip() == f"pong 1 from {address}"
    assert len(events.all(event="outbound", uid=uid)) == 1
    # It still stands in the API, and is out of the mesh.
    events.wait(event="stopped", uid=uid)
    wait_until(lambda: not node.product.is_probed(address), 15, f"{address} leaves the set of probe addresses")
    workspace.wait_redirection(done["metadata"]["name"], None)


def test_the_last_packets_of_a_pod_pass_the_tunnel(node, make_workspace):
    workspace = make_workspace(node, AMBIENT)
    workspace.create("server", server(8080))
    workspace.wait_ready("server")
    workspace.create("client", client(workspace.address("server"), 8080, linger=4), grace=30)
    workspace.wait_ready("client")
    workspace.wait_traffic("client")
    uid, address = workspace.uid("client"), workspace.address("client")
    follow = node.machine.start("follow", node.cluster.components.kubernetes("kubectl"), "--kubeconfig=/etc/kubernetes/admin.conf", "logs",
                                "--follow", "--tail=1", "--namespace", workspace.name, "client")
    events = node.product.events()
    node.api.delete("Pod", workspace.name, "client")
    time.sleep(2)
    late = node.product.events()
    workspace.wait_gone("client")
    del node.machine.programs["follow"]
    follow.outer.wait(10)
    with open(follow.log, encoding="utf-8") as file:
        said = [line for line in file if '"at"' in line]
    assert '"end"' in said[-1] and said[-1].count('"lost": 0') == 2, said
    # Two seconds after SIGTERM it was still carried.
    assert late.all(event="outbound", uid=uid, onward="tunnel")
    events.wait(event="stopped", uid=uid)
    assert [event["event"] for event in events.all(uid=uid)][-2:] == ["stopped", "delete"]
    wait_until(lambda: not node.product.is_probed(address), 15, f"{address} leaves the set of probe addresses")


def test_a_sandbox_is_made_anew(node, make_workspace):
    port = node.serve_outside()
    workspace = make_workspace(node, AMBIENT)
    workspace.create("pod", server(8080), init=[container("init", "workload", "first", ADDRESS[4], str(port))])
    workspace.wait_ready("pod")
    uid, address, netns = workspace.uid("pod"), workspace.address("pod"), node.product.netns_of(workspace.uid("pod"))
    assert netns
    events = node.product.events()
    sandbox, = sandboxes(node, uid)
    node.cluster.ctr("tasks", "kill", "--signal", "SIGKILL", sandbox)
    wait_until(lambda: workspace.address("pod") != address and workspace.is_ready("pod"), 60, "the pod has a new sandbox",
               explain=workspace.explain)
    assert workspace.uid("pod") == uid
    workspace.wait_redirection("pod", "enabled")
    assert node.product.is_redirected(uid)
    # The init container ran again, and its first packet was captured again.
    assert workspace.log("pod", "init").strip() == f"pong 1 from {workspace.address('pod')}"
    assert events.all(event="outbound", uid=uid)
    assert events.all(event="started", uid=uid)
    wait_until(lambda: not node.product.is_probed(address), 15, f"{address} leaves the set of probe addresses")
    assert node.product.is_probed(workspace.address("pod"))


def sandboxes(node, uid):
    """The container ids of a pod's sandboxes, by their labels."""
    labels = f'labels."io.kubernetes.pod.uid"=={uid},labels."io.cri-containerd.kind"==sandbox'
    return set(node.cluster.ctr("containers", "ls", "--quiet", labels).split())


def test_a_deployment_rolls(node, make_workspace):
    workspace, events = make_workspace(node, AMBIENT), node.product.events()
    template = pod("web", workspace.name, server(8080))["spec"]
    node.api.create({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": workspace.name},
                     "spec": {"replicas": 3, "selector": {"matchLabels": {"app": "web"}},
                              "template": {"metadata": {"labels": {"app": "web"}}, "spec": template}}})

    def is_rolled_out():
        deployment = node.api.get("Deployment", workspace.name, "web")
        status = deployment.get("status", {})
        return (status.get("observedGeneration") == deployment["metadata"]["generation"] and status.get("readyReplicas") == 3
                and status.get("updatedReplicas") == 3 and status.get("replicas") == 3)

    def pods():
        return {item["metadata"]["uid"]: item for item in node.api.list("Pod", workspace.name)
                if "deletionTimestamp" not in item["metadata"]}

    wait_until(is_rolled_out, 60, "the deployment is there", explain=workspace.explain)
    before = pods()
    node.api.patch("Deployment", workspace.name, "web", {"spec": {"template": {"metadata": {"annotations": {"round": "2"}}}}})
    wait_until(lambda: is_rolled_out() and not set(pods()) & set(before), 90, "the deployment has rolled", explain=workspace.explain)
    after = pods()
    assert len(after) == 3
    for item in after.values():
        workspace.wait_redirection(item["metadata"]["name"], "enabled")
    again = {item["status"]["podIP"] for item in after.values()}
    for uid, item in before.items():
        events.wait(event="stopped", uid=uid)
        wait_until(lambda address=item["status"]["podIP"]: not node.product.is_probed(address) or address in again, 15,
                   f"{item['metadata']['name']} leaves the set of probe addresses")


def test_a_connection_of_the_tunnel_is_drained(node, make_workspace):
    """Opened inside the mesh, it goes on when the pods are released, for releaseDrainSeconds (10 here); new ones go direct at once."""
    workspace = make_workspace(node, AMBIENT)
    workspace.create_pair()
    uids = [workspace.uid(name) for name in ("client", "server")]
    begin, events = time.monotonic(), node.product.events()
    workspace.label(None)
    for name in ("client", "server"):
        workspace.wait_redirection(name, None)
    direct = node.product.events()
    while time.monotonic() < begin + 8:
        assert workspace.traffic("client").lost == 0
        time.sleep(0.5)
    assert not direct.all(event="outbound", uid=uids[0])
    for uid in uids:
        events.wait(event="stopped", uid=uid)
    workspace.wait_traffic("client")
    traffic = workspace.traffic("client").last
    assert traffic["opened"]["lost"] == 0 and traffic["kept"]["lost"] <= 1, traffic
    assert not node.product.is_redirected(uids[0]) and not node.product.is_redirected(uids[1])


def test_a_static_pod(node, make_workspace):
    """The kubelet starts it by itself, under a uid of its own; the API server hears of it later, as a mirror with another uid."""
    port = node.serve_outside()
    workspace, events = make_workspace(node, AMBIENT), node.product.events()
    item = pod("static", workspace.name, server(8080), init=[container("init", "workload", "first", ADDRESS[4], str(port))])
    path = "/etc/kubernetes/manifests/static.json"
    node.machine.write(path, json.dumps(item))
    try:
        name = "static-node1"
        wait_until(lambda: workspace.find(name), 60, "the mirror of the static pod is there", explain=node.cluster.tails)
        workspace.wait_ready(name, seconds=90)
        workspace.wait_redirection(name, "enabled")
        assert workspace.log(name, "init").strip() == f"pong 1 from {workspace.address(name)}"
        assert events.all(event="outbound", uid=workspace.uid(name))
        uid = workspace.uid(name)
    finally:
        os.unlink(node.machine.path(path))
    workspace.wait_gone(name)
    events.wait(event="stopped", uid=uid)


def test_labels_that_flap(node, make_workspace):
    """The last word counts, and nothing is lost on the way."""
    workspace = make_workspace(node)
    workspace.create_pair()
    for pause in (0, 0, 0.05, 0.1, 0.2, 0.5, 1, 2, 0, 3):
        workspace.label("ambient")
        time.sleep(pause)
        workspace.label(None)
        time.sleep(pause / 2)
    workspace.label("ambient")
    for name in ("server", "client"):
        workspace.wait_redirection(name, "enabled")
        assert node.product.is_redirected(workspace.uid(name))
    workspace.wait_traffic("client")
    workspace.label(None)
    for name in ("server", "client"):
        workspace.wait_redirection(name, None)
        wait_until(lambda uid=workspace.uid(name): "ambient" not in node.product.tables(uid), 30, f"{name} is released")
    workspace.wait_traffic("client")
    assert workspace.traffic("client").lost == 0, f"{workspace.traffic('client')}\n{node.product.log()}"
    assert workspace.restarts("client") == workspace.restarts("server") == 0
