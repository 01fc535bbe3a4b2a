"""The double of the tunnel as a program of its own, in the place of a ztunnel: its settings come from the environment under ztunnel's
names, and its workloads from the file that LOCAL_XDS_PATH names (JSON)."""
import json
import os
import sys
import threading

import tunnel_double


class File:
    """What a ztunnel without a control plane knows."""

    def __init__(self, path):
        with open(path, encoding="utf-8") as file:
            workloads = json.load(file)["workloads"]
        self.addresses = {address for workload in workloads if workload["protocol"] == "HBONE" for address in workload["workloadIps"]}
        self.unproven = []


def main():
    wrong = [f"{name} is {os.environ.get(name)!r}" for name, value in (
        ("XDS_ADDRESS", ""), ("FAKE_CA", "true"), ("PROXY_MODE", "shared")) if os.environ.get(name) != value]
    wrong += [f"{name} is not set" for name in ("NODE_NAME", "CLUSTER_ID") if not os.environ.get(name)]
    if (os.getuid(), os.getgid()) != (0, 1337):
        wrong.append(f"uid and gid are {os.getuid()} and {os.getgid()}")
    if wrong:
        sys.exit("; ".join(wrong))
    tunnel_double.Tunnel(os.environ["INPOD_UDS"], File(os.environ["LOCAL_XDS_PATH"]), "").start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
