"""The owner of a pod, with rights on its own objects: docs/security.md."""
from agent.cluster import ClusterNode


def test_an_annotation_names_no_namespace(tmp_path):
    """The folder's annotation for it counts in a folder alone, which is the administrator's: here it would lead to a neighbour."""
    node = ClusterNode(tmp_path)
    try:
        neighbour, liar = node.pod(), node.pod(show=False)
        liar.annotations["ambient-cni.io/netns"] = f"/proc/{neighbour.holder.pid}/ns/net"
        liar.show(**{"istio.io/dataplane-mode": "ambient"})
        node.enabled([liar])
        assert not neighbour.traces() and neighbour.uid not in node.tunnel.workloads
    finally:
        node.close()
