"""A node whose source is an API server: the strict double of tests/peers, over TLS, that listens in the node's namespace. Pods
are found as on a real node, among processes whose cgroup names their uid (the node's /proc is a folder of the test's own)."""
import pathlib
import shutil

from peers.api_server import ApiServer

from .node import Node, Pod, eventually

DAEMON_SET = "istio-cni-node"
SYSTEM = "istio-system"


class ClusterPod(Pod):
    def __init__(self, node, number, **options):
        super().__init__(node, number, **options)
        folder = node.proc / str(self.holder.pid)
        (folder / "ns").mkdir(parents=True)
        (folder / "cgroup").write_text(f"0::/kubepods/besteffort/pod{self.uid}/{number:064x}\n")
        shutil.copy(f"/proc/{self.holder.pid}/stat", folder / "stat")
        (folder / "ns" / "net").symlink_to(self.path)

    def object(self):
        pod = super().object()
        pod["metadata"]["annotations"] = dict(self.annotations)
        pod["spec"].update(nodeName="node", containers=[{"name": "main", "image": "x"}])
        return pod

    def show(self, **labels):
        self.labels.update(labels)
        pod = self.object()
        # At once: an annotation that the agent sets in between would be lost, and no real writer does that.
        with self.node.api.changed:
            if shown := self.node.api.get("pods", self.namespace, self.name):
                pod["metadata"]["annotations"] = {**shown["metadata"]["annotations"], **self.annotations}
            self.node.api.put("pods", pod)
        return self

    def hide(self):
        self.node.api.delete_pod(self.namespace, self.name)

    def annotation(self):
        return self.node.api.pod_annotation(self.namespace, self.name)

    def is_enabled(self):
        return self.annotation() == "enabled" and self.is_in()

    def patches(self):
        """Values of the annotation as patches set them, in their order."""
        return [list(body["metadata"]["annotations"].values())[0] for _, _, name, body in self.node.api.patches if name == self.name]


class ClusterNode(Node):
    pod_class = ClusterPod

    def __init__(self, folder, **options):
        self.proc = pathlib.Path(folder) / "proc"
        self.proc.mkdir()
        self.api = None
        super().__init__(folder, **options)

    def prepare(self):
        with self.host:
            self.api = ApiServer(self.folder / "server")
        self.api.put_node("node")
        self.api.put_daemon_set(SYSTEM, DAEMON_SET)
        self.kubeconfig = self.api.write_kubeconfig(self.folder / "kubeconfig")

    def source_settings(self):
        return ["source=kubernetes", f"kubeconfig={self.kubeconfig}", f"host.procDir={self.proc}"]

    def label(self, namespace, **labels):
        self.api.put_namespace(namespace, labels)

    def stop_api(self):
        self.api.stop()

    def start_api(self):
        with self.host:
            self.api.start()

    def enabled(self, pods=None):
        for pod in pods or self.pods_made:
            eventually(pod.is_enabled, what=lambda: f"{pod.key}: annotation {pod.annotation()}, patches {pod.patches()}, in "
                       f"{pod.is_in()}\n{self.log()[-6000:]}")

    def close(self):
        super().close()
        self.api.stop()
        self.api.check()
