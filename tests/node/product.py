"""The product on a node, as a person installs it: the chart by helm, the image of two static programs, and beside it the double of the
node tunnel."""
import json
import os
import re

from .api import ApiError
from .images import layer_of_tree, write_image
from .waiting import wait_until

DEPLOY = os.path.join(os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))), "deploy")
CHART, CONTAINERFILE = os.path.join(DEPLOY, "helm/ambient-cni"), os.path.join(DEPLOY, "Containerfile")
NAMESPACE, DAEMON_SET, RELEASE = "istio-system", "istio-cni-node", "istio-cni"
REPOSITORY = "localhost/ambient-cni"
TUNNEL_SOCKET = "/var/run/ztunnel/ztunnel.sock"
RUN_DIR = "/var/run/ambient-cni"


class Events:
    """What the double of the tunnel wrote, from a place in its log on."""

    def __init__(self, program):
        self.program = program
        self.at = os.path.getsize(program.log)

    def all(self, **wanted):
        with open(self.program.log, encoding="utf-8") as file:
            file.seek(self.at)
            events = [json.loads(line) for line in file if line.startswith("{") and line.endswith("\n")]
        return [event for event in events if all(event.get(key) == value for key, value in wanted.items())]

    def wait(self, seconds=30, **wanted):
        return wait_until(lambda: self.all(**wanted), seconds, f"the tunnel tells {wanted}", explain=lambda: self.program.tail(40))


class Product:
    def __init__(self, cluster, build):
        self.cluster, self.machine, self.api = cluster, cluster.machine, cluster.api
        self.static = os.path.join(build, "static")
        self.values = {"agentImage": {"repository": REPOSITORY, "tag": "1"}, "pullPolicy": "Never",
                       "config": {"releaseDrainSeconds": 10}}

    # --- image and chart

    def import_image(self, tag):
        """The image of `make image`: the tree of files that its build stage leaves (deploy/build.sh), and what deploy/Containerfile says."""
        path = os.path.join(self.machine.state, f"ambient-cni-{tag}.tar")
        config = {}
        with open(CONTAINERFILE, encoding="utf-8") as file:
            last_stage = file.read().rpartition("\nFROM ")[2]
        assert last_stage.startswith("scratch\n"), "the image has a base that this one lacks"
        for word, value in re.findall("^(ENV|ENTRYPOINT|CMD) (.*)$", last_stage, re.MULTILINE):
            config[{"ENV": "Env", "ENTRYPOINT": "Entrypoint", "CMD": "Cmd"}[word]] = [value] if word == "ENV" else json.loads(value)
        write_image(path, f"{REPOSITORY}:{tag}", layer_of_tree(os.path.join(self.static, "root")), config)
        self.cluster.import_image(path)

    def helm(self, *arguments, stdin=None):
        return self.machine.run(self.cluster.components.helm(), "--kubeconfig=/etc/kubernetes/admin.conf", f"--namespace={NAMESPACE}",
                                *arguments, stdin=stdin, timeout=180)

    def install(self, tag="1", **values):
        """Installs or upgrades."""
        values = {**self.values, "agentImage": {"repository": REPOSITORY, "tag": tag}, **values}
        self.helm("upgrade", "--install", "--create-namespace", RELEASE, CHART, "--values=-", stdin=json.dumps(values))

    def uninstall(self):
        self.helm("uninstall", RELEASE, "--wait", "--timeout=120s")

    def start(self):
        self.import_image("1")
        self.install()
        self.start_tunnel()
        self.wait_ready()

    # --- the agent

    def agents(self):
        """The agent's pods that are not on their way out."""
        pods = self.api.request("GET", self.api.path("Pod", NAMESPACE, query={"labelSelector": "k8s-app=istio-cni-node"}))["items"]
        return [pod for pod in pods if "deletionTimestamp" not in pod["metadata"]]

    def is_installed(self):
        return self.api.find("DaemonSet", NAMESPACE, DAEMON_SET) is not None

    def restarts(self):
        return sum(status["restartCount"] for pod in self.agents() for status in pod["status"].get("containerStatuses", []))

    def agent(self):
        agents = self.agents()
        assert len(agents) == 1, [pod["metadata"]["name"] for pod in agents]
        return agents[0]["metadata"]["name"]

    def is_ready(self):
        try:
            daemon_set, agents = self.api.get("DaemonSet", NAMESPACE, DAEMON_SET), self.agents()
        except (OSError, ApiError):
            return False
        status = daemon_set.get("status", {})
        return (status.get("observedGeneration") == daemon_set["metadata"]["generation"] and status.get("numberReady") == 1
                and status.get("updatedNumberScheduled") == 1 and len(agents) == 1)

    def wait_ready(self, seconds=90):
        wait_until(self.is_ready, seconds, "the agent is ready", explain=self.explain)

    def log(self, previous=False):
        try:
            return self.api.log(NAMESPACE, self.agent(), "install-cni", previous)
        except (OSError, ApiError, AssertionError) as error:
            return f"(no log: {error})"

    def explain(self):
        return (self.cluster.kubectl("describe", "pod", "-n", NAMESPACE, check=False) + self.log()
                + (self.cluster.kubectl("logs", "-n", NAMESPACE, f"ds/{DAEMON_SET}", "--previous", check=False)))

    def command(self, *arguments, check=True):
        """ambient-installer's command line in the agent's pod; without `check`, whatever its exit status says."""
        return self.cluster.kubectl("exec", "-n", NAMESPACE, self.agent(), "--", "ambient-installer", *arguments, check=check)

    def stop(self):
        """No agent on this node, while the DaemonSet stands: as when its pod can't start."""
        self.api.patch("DaemonSet", NAMESPACE, DAEMON_SET,
                       {"spec": {"template": {"spec": {"nodeSelector": {"kubernetes.io/os": "linux", "nowhere": "true"}}}}})
        wait_until(lambda: not self.agents(), 60, "the agent stops", explain=self.explain)

    def resume(self):
        self.api.patch("DaemonSet", NAMESPACE, DAEMON_SET, {"spec": {"template": {"spec": {"nodeSelector": {"nowhere": None}}}}})
        self.wait_ready()

    def restart(self):
        """Its pod is deleted, and the DaemonSet makes another."""
        name = self.agent()
        self.api.delete("Pod", NAMESPACE, name)
        wait_until(lambda: self.api.find("Pod", NAMESPACE, name) is None, 60, f"{name} is gone", explain=self.explain)
        self.wait_ready()

    # --- the tunnel

    def start_tunnel(self):
        url = f"https://{'[' + self.cluster.address + ']' if ':' in self.cluster.address else self.cluster.address}:6443"
        os.makedirs(self.machine.path("/var/run/ztunnel"), exist_ok=True)
        self.machine.start("tunnel", "/usr/bin/python3", os.path.join(os.path.dirname(os.path.abspath(__file__)), "tunnel_double.py"),
                           TUNNEL_SOCKET, url, os.path.join(self.machine.state, "pki/ca.crt"), "admin", self.cluster.address)

    @property
    def tunnel(self):
        return self.machine.programs["tunnel"]

    def events(self):
        return Events(self.tunnel)

    def check_tunnel(self):
        assert self.tunnel.is_running(), f"the agent broke the protocol:\n{self.tunnel.tail(30)}"

    # --- what stands in a pod

    def netns_of(self, uid):
        """By a process of the pod, not by anything that the product keeps; None when no container runs."""
        needle = f"pod{uid}"
        for process in self.machine.run("sh", "-c", f"grep -l {needle} /proc/[0-9]*/cgroup 2>/dev/null; true").split():
            return f"/proc/{process.split('/')[2]}/ns/net"
        return None

    def tables(self, uid):
        netns = self.netns_of(uid)
        assert netns, f"no process of {uid}"
        return self.machine.run("nsenter", f"--net={netns}", "nft", "list", "ruleset")

    def is_redirected(self, uid):
        return "redirect" in self.tables(uid)

    def is_probed(self, address):
        """Does it stand in a set on the host?"""
        return re.search(rf"(?<![\w.:]){re.escape(address)}(?![\w.:])", self.machine.run("nft", "list", "ruleset")) is not None
