"""A container runtime's part: calls of the real plugin for the pods of a node."""
import json
import os
import subprocess

from .node import PLUGIN, die_with_parent


class Runtime:
    def __init__(self, node):
        self.node = node
        self.config = {"cniVersion": "1.1.0", "name": "podnet", "type": "ambient-cni", "enrollment": "installer",
                       "runDir": str(node.run_dir), "timeoutSeconds": 5}

    @staticmethod
    def container(pod):
        return f"sandbox-{pod.number}"

    def start(self, verb, pod, container=None, interface="eth0", ips=None, config=None):
        environment = {"PATH": os.environ["PATH"], "CNI_COMMAND": verb, "CNI_IFNAME": interface, "CNI_PATH": "/opt/cni/bin"}
        environment.update({key: value for key, value in os.environ.items() if key.endswith("SAN_OPTIONS")})
        whole = {**self.config, **(config or {})}
        if pod:
            environment.update(
                CNI_CONTAINERID=container or self.container(pod), CNI_NETNS=pod.path,
                CNI_ARGS=f"IgnoreUnknown=1;K8S_POD_NAMESPACE={pod.namespace};K8S_POD_NAME={pod.name};"
                         f"K8S_POD_INFRA_CONTAINER_ID={container or self.container(pod)};K8S_POD_UID={pod.uid}")
            addresses = ips or [f"{pod.address}/16", f"{pod.address6}/64"]
            whole["prevResult"] = {"cniVersion": "1.1.0", "interfaces": [{"name": interface, "sandbox": pod.path}],
                                   "ips": [{"address": address, "interface": 0} for address in addresses]}
        process = subprocess.Popen([str(PLUGIN)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env=environment, preexec_fn=die_with_parent)
        process.stdin.write(json.dumps(whole).encode())
        process.stdin.close()
        process.stdin = None
        return process

    @staticmethod
    def finish(process):
        """(exit status, what was printed)."""
        out, errors = process.communicate(timeout=30)
        try:
            return process.returncode, json.loads(out) if out else None
        except ValueError as error:
            raise AssertionError((process.returncode, out, errors)) from error

    def call(self, verb, pod, **more):
        return self.finish(self.start(verb, pod, **more))

    def add(self, pod, **more):
        status, answer = self.call("ADD", pod, **more)
        assert status == 0, (answer, self.node.log()[-4000:])
        return answer

    def check(self, pod, **more):
        status, answer = self.call("CHECK", pod, **more)
        assert status == 0, answer

    def delete(self, pod, **more):
        status, answer = self.call("DEL", pod, **more)
        assert status == 0, answer

    def remembered(self, pod, interface="eth0"):
        """What the agent remembers of the pod's attachment."""
        name = f"{self.container(pod)}:{interface}.json"
        return json.loads((self.node.run_dir / "attachments" / name).read_text())

    def marks(self):
        """Namespaces that an attachment stands for (lib/attachment_mark.c)."""
        folder = self.node.run_dir / "namespaces"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []

    def attachments(self):
        folder = self.node.run_dir / "attachments"
        return sorted(path.name for path in folder.iterdir()) if folder.exists() else []
