"""An API server for people's commands (kubectl, helm): it tells its resources, holds objects, and lists, changes and deletes them as the
commands ask. What it does not know it refuses, and remembers as a fault."""
import base64
import contextlib
import copy
import gzip
import http.server
import json
import re
import socketserver
import threading
import urllib.parse
import uuid

RESOURCES = {
    "v1": {"pods": "Pod", "namespaces": "Namespace", "nodes": "Node", "events": "Event", "serviceaccounts": "ServiceAccount",
           "configmaps": "ConfigMap", "secrets": "Secret"},
    "apps/v1": {"daemonsets": "DaemonSet"},
    "batch/v1": {"jobs": "Job"},
    "rbac.authorization.k8s.io/v1": {"clusterroles": "ClusterRole", "clusterrolebindings": "ClusterRoleBinding", "roles": "Role",
                                     "rolebindings": "RoleBinding"},
}
OF_CLUSTER = {"namespaces", "nodes", "clusterroles", "clusterrolebindings"}
SHORT = {"daemonsets": ["ds"], "namespaces": ["ns"], "pods": ["po"]}
VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]


def value_at(item, path):
    for part in path.split("."):
        item = item.get(part, {}) if isinstance(item, dict) else {}
    return item or ""


def is_selected(item, query):
    labels = item["metadata"].get("labels", {})
    for term in filter(None, query.get("labelSelector", "").split(",")):
        key, sign, value = re.fullmatch(r"([^!=]+)(!=|==?)(.*)", term).groups()
        if (labels.get(key) == value) != (sign != "!="):
            return False
    for term in filter(None, query.get("fieldSelector", "").split(",")):
        path, _, value = term.partition("=")
        if value_at(item, path) != value:
            return False
    return True


def merge(target, patch):
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            merge(target.setdefault(key, {}), value)
        else:
            target[key] = value


class PeopleApi:
    def __init__(self):
        self.objects, self.requests, self.faults = {}, [], []
        api = self

        class Bound(Handler):
            pass

        class Listener(socketserver.ThreadingMixIn, http.server.HTTPServer):
            daemon_threads = True

            def handle_error(self, request, client_address):
                pass

        Bound.api = api
        self.listener = Listener(("127.0.0.1", 0), Bound)
        threading.Thread(target=self.listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self):
        self.listener.shutdown()
        self.listener.server_close()

    def write_kubeconfig(self, path):
        server = f"http://127.0.0.1:{self.listener.server_address[1]}"
        path.write_text(json.dumps({
            "apiVersion": "v1", "kind": "Config", "current-context": "here", "users": [{"name": "me", "user": {}}],
            "clusters": [{"name": "here", "cluster": {"server": server}}],
            "contexts": [{"name": "here", "context": {"cluster": "here", "user": "me"}}]}))
        return path

    def put(self, version, plural, name, namespace=None, labels=None, annotations=None, **more):
        metadata = {"name": name, "uid": str(uuid.uuid4()), "resourceVersion": "1", "creationTimestamp": "2026-01-01T00:00:00Z",
                    "labels": labels or {}, "annotations": annotations or {}}
        if namespace:
            metadata["namespace"] = namespace
        self.objects[plural, namespace, name] = {"apiVersion": version, "kind": RESOURCES[version][plural], "metadata": metadata, **more}

    def put_release(self, name, namespace, values, manifest=""):
        """As helm keeps it."""
        release = {"name": name, "namespace": namespace, "version": 1, "config": values, "manifest": manifest,
                   "info": {"status": "deployed", "first_deployed": "2026-01-01T00:00:00Z", "last_deployed": "2026-01-01T00:00:00Z"},
                   "chart": {"metadata": {"name": "cni", "version": "1.0.0", "apiVersion": "v2"}}}
        text = base64.b64encode(gzip.compress(json.dumps(release).encode()))
        self.put("v1", "secrets", f"sh.helm.release.v1.{name}.v1", namespace, type="helm.sh/release.v1",
                 labels={"owner": "helm", "name": name, "status": "deployed", "version": "1"},
                 data={"release": base64.b64encode(text).decode()})

    def get(self, plural, namespace, name):
        return self.objects.get((plural, namespace, name))

    def changes(self):
        """(method, path) of what changed anything, or asked to."""
        return [(method, path.partition("?")[0]) for method, path in self.requests if method != "GET"]


class Handler(http.server.BaseHTTPRequestHandler):
    api = None
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def send(self, status, body, kind="application/json"):
        text = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def refuse(self, status, message, reason):
        self.send(status, {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason,
                           "code": status})

    def discover(self, path):
        groups = [version for version in RESOURCES if "/" in version]
        if path == "/version":
            return {"major": "1", "minor": "34", "gitVersion": "v1.34.0"}
        if path == "/api":
            return {"kind": "APIVersions", "versions": ["v1"]}
        if path == "/apis":
            named = [{"groupVersion": version, "version": version.partition("/")[2]} for version in groups]
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [
                {"name": version["groupVersion"].partition("/")[0], "versions": [version], "preferredVersion": version} for version in named]}
        version = re.fullmatch(r"/apis?/(.*)", path)
        if version and version.group(1) in RESOURCES:
            return {"kind": "APIResourceList", "groupVersion": version.group(1), "resources": [
                {"name": plural, "singularName": kind.lower(), "namespaced": plural not in OF_CLUSTER, "kind": kind, "verbs": VERBS,
                 "shortNames": SHORT.get(plural, [])} for plural, kind in RESOURCES[version.group(1)].items()]}
        return None

    def do(self):
        api = self.api
        api.requests.append((self.command, self.path))
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query))
        found = self.discover(url.path) if self.command == "GET" else None
        if found:
            self.send(200, found)
            return
        place = re.fullmatch(r"/(?:api/(v1)|apis/([^/]+/v1))(?:/namespaces/([^/]+)(?=/.))?/([a-z]+)(?:/([^/]+))?(?:/(.*))?", url.path)
        version = place and (place.group(1) or place.group(2))
        if not place or place.group(4) not in RESOURCES.get(version, {}):
            if not url.path.startswith(("/openapi", "/swagger")):
                api.faults.append(f"{self.command} {self.path}")
            self.refuse(404, "the server could not find the requested resource", "NotFound")
            return
        self.answer(version, *place.groups()[2:], query, body)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do

    def answer(self, version, namespace, plural, name, more, query, body):
        api = self.api
        if more == "log":
            self.send(200, f"a line of {name}\n", "text/plain")
        elif more == "proxy/readyz":
            self.send(200, "ready\n", "text/plain")
        elif more in ("exec", "portforward"):
            # That the right thing is asked of the right pod is all that can be seen here.
            self.refuse(403, f"{more} {urllib.parse.urlsplit(self.path).query}", "Forbidden")
        elif more or (self.command == "POST" and name):
            api.faults.append(f"{self.command} {self.path}")
            self.refuse(405, "method not allowed", "MethodNotAllowed")
        elif self.command == "POST":
            made = json.loads(body)
            made["metadata"].update(uid=str(uuid.uuid4()), resourceVersion="1", **({"namespace": namespace} if namespace else {}))
            api.objects[plural, namespace, made["metadata"]["name"]] = made
            self.send(201, made)
        elif name:
            self.answer_one(namespace, plural, name, body)
        else:
            self.list(version, namespace, plural, query)

    def answer_one(self, namespace, plural, name, body):
        api = self.api
        found = api.get(plural, namespace, name)
        if not found:
            self.refuse(404, f'{plural} "{name}" not found', "NotFound")
            return
        if self.command == "PATCH":
            found = copy.deepcopy(found)
            merge(found, json.loads(body))
        elif self.command == "PUT":
            found = json.loads(body)
        if self.command == "DELETE":
            del api.objects[plural, namespace, name]
        else:
            api.objects[plural, namespace, name] = found
        self.send(200, found)

    def list(self, version, namespace, plural, query):
        items = [item for (kind, place, _), item in sorted(self.api.objects.items(), key=str)
                 if kind == plural and namespace in (None, place) and is_selected(item, query)]
        if query.get("watch") not in ("true", "1"):
            self.send(200, {"kind": RESOURCES[version][plural] + "List", "apiVersion": version, "metadata": {"resourceVersion": "1"},
                            "items": items})
            return
        # Nothing changes any more: what was there has been listed.
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Connection", "close")
        self.end_headers()
        self.close_connection = True
        with contextlib.suppress(OSError):
            self.connection.settimeout(20)
            self.connection.recv(1)
