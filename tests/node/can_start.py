"""Can this machine run a node at all? A node without the product, and one pod on it; says why not. For CI: what the place can't do
is no fault of the product's."""
import sys
import traceback

from .cluster import Cluster
from .components import Components, Missing
from .pods import Workspace, container


def main():
    try:
        cluster = Cluster(Components(), containerd=1)
    except Missing as missing:
        return str(missing)
    except Exception:  # pylint: disable=broad-exception-caught
        return f"a node does not start here:\n{traceback.format_exc()}"
    try:
        workspace = Workspace(cluster)
        workspace.create("plain", container("idle", "workload", "pause"))
        workspace.wait_ready("plain", seconds=120)
        return None
    except Exception:  # pylint: disable=broad-exception-caught
        return f"no pod starts on a node here:\n{traceback.format_exc()}"
    finally:
        cluster.close()


if __name__ == "__main__":
    sys.exit(main())
