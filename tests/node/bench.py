"""`make bench-node`: pods created at once, from creation to Running, without the product on the node, with it for pods outside the mesh,
and with it for pods of the mesh. Rounds alternate, since a shared machine is never the same for long; the difference is our cost."""
import argparse
import os
import statistics
import time

from .cluster import Cluster
from .components import Components
from .pods import MODE, Workspace, container
from .product import Product


def measure(cluster, count, labels):
    """Seconds from the first creation to each pod's Running, and to the deletion of all."""
    workspace = Workspace(cluster, "bench", labels)
    start, running, created = time.monotonic(), {}, {}
    try:
        for number in range(count):
            name = f"pod-{number}"
            created[name] = time.monotonic()
            workspace.create(name, container("idle", "workload", "pause"))
        while len(running) < count:
            now = time.monotonic()
            for item in cluster.api.list("Pod", workspace.name, resourceVersion="0"):
                name = item["metadata"]["name"]
                if name not in running and item["status"].get("phase") == "Running":
                    running[name] = now - created[name]
            if now - start > 600:
                raise AssertionError(f"{count - len(running)} pods do not run:\n{workspace.explain()[:5000]}")
            time.sleep(0.1)
        last = time.monotonic() - start
        begin = time.monotonic()
        for name in running:
            cluster.api.delete("Pod", workspace.name, name, grace=0)
        netns = "ls /run/netns | wc -l"
        while int(cluster.machine.run("sh", "-c", netns)) > cluster.pods_of_others:
            if time.monotonic() - begin > 300:
                raise AssertionError("the pods do not go")
            time.sleep(0.2)
        return list(running.values()), last, time.monotonic() - begin
    finally:
        workspace.close()


def report(name, rounds):
    times = [value for values, _, _ in rounds for value in values]
    print(f"{name:24} {statistics.median(times):8.2f} {sorted(times)[int(len(times) * 0.95)]:8.2f} "
          f"{statistics.median(last for _, last, _ in rounds):8.2f} {statistics.median(gone for _, _, gone in rounds):8.2f}"
          f"   {len(rounds)} x {len(rounds[0][0])}", flush=True)


def main():
    parser = argparse.ArgumentParser(prog="make bench-node")
    parser.add_argument("--pods", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    cases = {"without ambient-cni": [], "outside the mesh": [], "in the mesh": []}
    cluster = Cluster(Components(), containerd=1)
    try:
        product = Product(cluster, os.path.abspath(os.environ["AMBIENT_BUILD"]))
        product.import_image("1")
        cluster.pods_of_others = 0
        measure(cluster, 10, None)  # warms up
        for _ in range(arguments.rounds):
            cases["without ambient-cni"].append(measure(cluster, arguments.pods, None))
            product.install()
            if "tunnel" not in cluster.machine.programs:
                product.start_tunnel()
            product.wait_ready()
            cluster.pods_of_others = 1
            cases["outside the mesh"].append(measure(cluster, arguments.pods, None))
            cases["in the mesh"].append(measure(cluster, arguments.pods, {MODE: "ambient"}))
            product.uninstall()
            cluster.pods_of_others = 0
        print("seconds from creation to Running; to the last of all; until all are deleted")
        print(f"{'':24} {'median':>8} {'p95':>8} {'last':>8} {'deleted':>8}")
        for name, rounds in cases.items():
            report(name, rounds)
        product.check_tunnel()
    finally:
        cluster.close()


if __name__ == "__main__":
    main()
