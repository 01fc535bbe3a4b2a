"""Pods with a probe of each kind, for readiness and for liveness, where one that fails shows for ever: in the time at which the pod became
ready, and in a restart."""
from .pods import container


def _probes(**check):
    probe = {"periodSeconds": 1, "timeoutSeconds": 10, "failureThreshold": 1, **check}
    return {"readinessProbe": probe, "livenessProbe": {**probe, "initialDelaySeconds": 3},
            "startupProbe": {**probe, "failureThreshold": 60}}  # slow to start is no failure here


CONTAINERS = {
    "http": container("c", "workload", "serve", "8080", **_probes(httpGet={"port": 8080})),
    "tcp": container("c", "workload", "serve", "8080", **_probes(tcpSocket={"port": 8080})),
    "grpc": container("c", "agnhost", "grpc-health-checking", **_probes(grpc={"port": 5000})),
    "exec": container("c", "workload", "serve", "8080", **_probes(exec={"command": ["workload", "first", "127.0.0.1", "8080"]})),
}


class Probed:
    def __init__(self, workspace):
        self.workspace = workspace
        for kind, one in CONTAINERS.items():
            workspace.create(kind, one)
        workspace.wait_ready(*CONTAINERS)
        self.since = self._since()

    def _since(self):
        return {kind: [(condition["status"], condition["lastTransitionTime"])
                       for condition in self.workspace.get(kind)["status"]["conditions"] if condition["type"] == "Ready"]
                for kind in CONTAINERS}

    def check(self):
        assert self._since() == self.since, self.workspace.explain()
        assert {kind: self.workspace.restarts(kind) for kind in CONTAINERS} == {kind: 0 for kind in CONTAINERS}
