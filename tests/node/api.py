"""The API server as tests use it: JSON over TLS with a bearer token, nothing else."""
import http.client
import json
import ssl
import urllib.parse

RESOURCES = {
    "Namespace": ("/api/v1", "namespaces"), "Pod": ("/api/v1", "pods"), "Node": ("/api/v1", "nodes"),
    "Service": ("/api/v1", "services"), "ServiceAccount": ("/api/v1", "serviceaccounts"), "Event": ("/api/v1", "events"),
    "ConfigMap": ("/api/v1", "configmaps"), "ReplicaSet": ("/apis/apps/v1", "replicasets"),
    "Deployment": ("/apis/apps/v1", "deployments"), "DaemonSet": ("/apis/apps/v1", "daemonsets"),
    "Job": ("/apis/batch/v1", "jobs"), "NetworkPolicy": ("/apis/networking.k8s.io/v1", "networkpolicies"),
}
PATCHES = {"merge": "application/merge-patch+json", "json": "application/json-patch+json",
           "strategic": "application/strategic-merge-patch+json"}


class ApiError(Exception):
    def __init__(self, method, path, status, text):
        super().__init__(f"{method} {path}: {status}: {text[:500]}")
        self.status = status


class Api:
    def __init__(self, host, port, token, authority=None, connect=None):
        """`connect`: makes the TCP connection, where it must be made in another network."""
        self.host, self.port, self.token = host, port, token
        self.connect = connect
        self.context = ssl.create_default_context(cafile=authority)

    def request(self, method, path, body=None, content_type="application/json"):
        connection = http.client.HTTPSConnection(self.host, self.port, timeout=30, context=self.context)
        if self.connect:
            connection._create_connection = self.connect
        try:
            connection.request(method, path, None if body is None else json.dumps(body),
                               {"Authorization": f"Bearer {self.token}", "Content-Type": content_type})
            answer = connection.getresponse()
            text = answer.read().decode("utf-8", "replace")
        finally:
            connection.close()
        if answer.status >= 400:
            raise ApiError(method, path, answer.status, text)
        return json.loads(text) if answer.getheader("Content-Type", "").startswith("application/json") else text

    @staticmethod
    def path(kind, namespace=None, name=None, query=None):
        group, plural = RESOURCES[kind]
        path = group + (f"/namespaces/{namespace}" if namespace else "") + f"/{plural}" + (f"/{name}" if name else "")
        return path + ("?" + urllib.parse.urlencode(query) if query else "")

    def get(self, kind, namespace=None, name=None):
        return self.request("GET", self.path(kind, namespace, name))

    def find(self, kind, namespace=None, name=None):
        """The object, or None."""
        try:
            return self.get(kind, namespace, name)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def list(self, kind, namespace=None, **query):
        return self.request("GET", self.path(kind, namespace, query=query))["items"]

    def create(self, item, namespace=None):
        namespace = namespace or item["metadata"].get("namespace")
        return self.request("POST", self.path(item["kind"], namespace), item)

    def patch(self, kind, namespace, name, change, how="merge"):
        return self.request("PATCH", self.path(kind, namespace, name), change, PATCHES[how])

    def delete(self, kind, namespace=None, name=None, grace=None):
        query = {} if grace is None else {"gracePeriodSeconds": grace}
        try:
            return self.request("DELETE", self.path(kind, namespace, name, query))
        except ApiError as error:
            if error.status != 404:
                raise
            return None

    def log(self, namespace, pod, container, previous=False):
        query = {"container": container, **({"previous": "true"} if previous else {})}
        return self.request("GET", self.path("Pod", namespace, pod + "/log", query))
