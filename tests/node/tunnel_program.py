"""A program that is the node tunnel, as Istio's DaemonSet runs ztunnel: uid 0, gid 1337, three capabilities, and its settings in the
environment. No control plane is here: its workloads come from a file (LOCAL_XDS_PATH) and its certificates from itself (FAKE_CA), as
ztunnel's LOCAL.md says. Who has a control plane names it: variables of SETTINGS that are set where the tests run win.

Istio's ztunnel reads the file once, so that pods must have their addresses before it starts."""
import json
import os
import shutil

from .cluster import NODE
from .waiting import wait_until

SETTINGS = ("XDS_ADDRESS", "XDS_ROOT_CA", "CA_ADDRESS", "CA_ROOT_CA", "FAKE_CA", "LOCAL_XDS_PATH", "CLUSTER_ID", "NETWORK", "IPV6_ENABLED",
            "ISTIO_META_DNS_CAPTURE", "ZTUNNEL_WORKER_THREADS", "RUST_LOG")
RIGHTS = ("setpriv", "--regid=1337", "--clear-groups", "--inh-caps=-all", "--bounding-set=-all,+net_admin,+sys_admin,+net_raw", "--")


class TunnelProgram:
    def __init__(self, node, path, socket):
        self.node, self.machine = node, node.machine
        self.program = os.path.join(self.machine.state, "ztunnel")
        shutil.copy(path, self.program)
        os.chmod(self.program, 0o755)
        # Its group may read the way to it.
        os.chmod(self.machine.state, 0o755)
        self.workloads = os.path.join(self.machine.state, "workloads.yaml")
        self.environment = {"INPOD_UDS": socket, "INPOD_ENABLED": "true", "PROXY_MODE": "shared", "NODE_NAME": NODE, "CLUSTER_ID": "Kubernetes",
                            "XDS_ADDRESS": "", "FAKE_CA": "true", "LOCAL_XDS_PATH": self.workloads,
                            **{name: os.environ[name] for name in SETTINGS if name in os.environ}}

    def know(self, *workspaces):
        """Pods of these namespaces are reached by HBONE. JSON is YAML, too."""
        found = []
        for workspace in workspaces:
            for item in workspace.api.list("Pod", workspace.name):
                metadata, spec, status = item["metadata"], item["spec"], item["status"]
                found.append({"uid": f"Kubernetes//Pod/{metadata['namespace']}/{metadata['name']}", "name": metadata["name"],
                              "namespace": metadata["namespace"], "serviceAccount": spec["serviceAccountName"],
                              "workloadIps": [entry["ip"] for entry in status["podIPs"]], "protocol": "HBONE", "node": NODE,
                              "network": "", "services": {}})
        with open(self.workloads, "w", encoding="utf-8") as file:
            json.dump({"workloads": found, "services": [], "policies": []}, file, indent=1)

    def start(self):
        program = self.machine.start("ztunnel", *RIGHTS, self.program, "proxy", "ztunnel", environment=self.environment)

        def is_connected():
            assert program.is_running(), f"the tunnel ended:\n{program.tail(40)}"
            status = json.loads(self.node.product.command("status", "-o", "json", check=False) or "{}")
            return any(connection["snapshotAccepted"] for connection in status.get("agent", {}).get("tunnel", {}).get("connections", []))
        wait_until(is_connected, 60, "the tunnel is connected, and has accepted the snapshot", explain=lambda: program.tail(40))

    def stop(self):
        self.machine.programs["ztunnel"].stop()
