"""Pods as tests write them, and what they wait for."""
import contextlib
import itertools
import json

from .api import ApiError
from .images import TEST_IMAGE
from .waiting import wait_until

REDIRECTION = "ambient.istio.io/redirection"
MODE = "istio.io/dataplane-mode"

_numbers = itertools.count(1)


def container(name, *command, **more):
    return {"name": name, "image": TEST_IMAGE, "imagePullPolicy": "Never", "command": list(command), **more}


def server(*ports, name="server", **more):
    """Ready as soon as it answers."""
    probe = {"httpGet": {"port": ports[0]}, "periodSeconds": 1, "timeoutSeconds": 5}
    return container(name, "workload", "serve", *map(str, ports), **{"readinessProbe": probe, **more})


def client(address, port, linger=0, name="client", **more):
    return container(name, "workload", "traffic", str(linger), address, str(port), **more)


def pod(name, namespace, *containers, labels=None, annotations=None, init=(), grace=0, **spec):
    """Pods of tests end at once unless they say otherwise."""
    return {"apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": name, "namespace": namespace, "labels": labels or {}, "annotations": annotations or {}},
            "spec": {"containers": list(containers), "initContainers": list(init), "terminationGracePeriodSeconds": grace,
                     "automountServiceAccountToken": False, "restartPolicy": "Always", **spec}}


class Traffic:
    """What a client container has said of its traffic: see workload.c."""

    def __init__(self, text):
        lines = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
        assert lines, f"the client said nothing:\n{text}"
        self.last = lines[-1]
        self.is_over = self.last["at"] == "end"

    @property
    def lost(self):
        return self.last["kept"]["lost"] + self.last["opened"]["lost"]

    def __repr__(self):
        return json.dumps(self.last)


class Workspace:
    """A namespace of one test, and the pods in it."""

    def __init__(self, cluster, prefix="case", labels=None):
        self.cluster, self.api = cluster, cluster.api
        self.name = f"{prefix}-{next(_numbers)}"
        self.api.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.name, "labels": labels or {}}})
        wait_until(lambda: self.api.find("ServiceAccount", self.name, "default"), 30, f"{self.name} has a service account")

    def close(self):
        """Pods at once; the namespace itself may take its time."""
        for item in self.api.list("Pod", self.name):
            self.api.delete("Pod", self.name, item["metadata"]["name"], grace=0)
        self.api.delete("Namespace", name=self.name)

    def label(self, mode):
        """`mode`: "ambient", or None to take the label off."""
        self.api.patch("Namespace", None, self.name, {"metadata": {"labels": {MODE: mode}}})

    def label_pod(self, name, mode):
        self.api.patch("Pod", self.name, name, {"metadata": {"labels": {MODE: mode}}})

    def create(self, name, *containers, **more):
        return self.api.create(pod(name, self.name, *containers, **more))

    def create_pair(self):
        """The pods server and client, and the client's traffic to the server is on."""
        self.create("server", server(8080))
        self.wait_ready("server")
        self.create("client", client(self.address("server"), 8080))
        self.wait_ready("client")
        self.wait_traffic("client")

    def get(self, name):
        return self.api.get("Pod", self.name, name)

    def find(self, name):
        return self.api.find("Pod", self.name, name)

    def uid(self, name):
        return self.get(name)["metadata"]["uid"]

    def address(self, name, family=None):
        family = family or self.cluster.family
        return next(entry["ip"] for entry in self.get(name)["status"]["podIPs"] if (":" in entry["ip"]) == (family == 6))

    def redirection(self, name):
        return self.get(name)["metadata"].get("annotations", {}).get(REDIRECTION)

    def log(self, name, container):
        return self.api.log(self.name, name, container)

    def traffic(self, name, container="client"):
        return Traffic(self.log(name, container))

    def explain(self, name=None):
        arguments = ("pod", name) if name else ("pod",)
        return (self.cluster.kubectl("describe", *arguments, "-n", self.name, check=False)
                + self.cluster.kubectl("get", "pod", "-A", "-o", "wide", check=False))

    def restarts(self, name):
        return sum(status["restartCount"] for status in self.get(name)["status"].get("containerStatuses", []))

    def is_ready(self, name):
        with contextlib.suppress(ApiError):
            return any(condition["type"] == "Ready" and condition["status"] == "True"
                       for condition in self.get(name)["status"].get("conditions", []))
        return False

    def wait_ready(self, *names, seconds=60):
        for name in names:
            wait_until(lambda name=name: self.is_ready(name), seconds, f"{self.name}/{name} is ready", explain=lambda: self.explain())

    def wait_phase(self, name, phase, seconds=60):
        wait_until(lambda: self.get(name)["status"].get("phase") == phase, seconds, f"{self.name}/{name} is {phase}",
                   explain=lambda: self.explain(name))

    def wait_redirection(self, name, value, seconds=30):
        wait_until(lambda: self.redirection(name) == value, seconds,
                   f"{self.name}/{name} has the annotation {REDIRECTION}={value}", explain=lambda: self.explain(name))

    def wait_gone(self, *names, seconds=60):
        for name in names:
            wait_until(lambda name=name: self.find(name) is None, seconds, f"{self.name}/{name} is gone",
                       explain=lambda name=name: self.explain(name))

    def wait_traffic(self, name, more=25, container="client", seconds=40):
        """Both kinds of traffic go on: each has `more` answers more than now."""
        def answered():
            try:
                last = self.traffic(name, container).last
            except (AssertionError, ApiError):
                return 0
            return min(last["kept"]["answered"], last["opened"]["answered"])
        start = answered()
        wait_until(lambda: answered() >= start + more, seconds, f"{self.name}/{name} has traffic",
                   explain=lambda: str(self.traffic(name, container)) + self.explain(name))
