"""A strict double of the Kubernetes API server, over TLS, for tests.

It holds pods, namespaces, nodes, daemon sets and Events; lists them in pages or as a stream, watches with bookmarks, patches.
It fails the test when the client breaks the protocol: `violations` must be empty at the end (`check()`). Faults are switched on
by methods and attributes, while it runs. One thread for each connection.

    with ApiServer(tmp_path) as server:
        server.put_namespace("shop", labels={"istio.io/dataplane-mode": "ambient"})
        server.put_pod("shop", "cart", node="a")
        server.write_kubeconfig(tmp_path / "kubeconfig")
"""
import base64
import collections
import contextlib
import copy
import datetime
import errno
import http.server
import ipaddress
import json
import pathlib
import re
import socket
import socketserver
import ssl
import struct
import threading
import time
import urllib.parse
import uuid

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

CONNECTIONS_MAX = 16
REDIRECTION = "ambient.istio.io/redirection"


class Authority:
    """A certificate authority with short-lived keys."""

    def __init__(self, name="test-ca"):
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._sign(self.name, self.key, [
            (x509.BasicConstraints(ca=True, path_length=None), True)])

    def _sign(self, subject, key, extensions):
        now = datetime.datetime.utcnow()
        builder = (x509.CertificateBuilder().subject_name(subject).issuer_name(self.name).public_key(key.public_key())
                   .serial_number(x509.random_serial_number()).not_valid_before(now - datetime.timedelta(hours=1))
                   .not_valid_after(now + datetime.timedelta(days=2)))
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, common_name, names=(), addresses=()):
        """(certificate, key) in PEM."""
        key = ec.generate_private_key(ec.SECP256R1())
        alternatives = [x509.DNSName(name) for name in names]
        alternatives += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        extensions = [(x509.SubjectAlternativeName(alternatives), False)] if alternatives else []
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
        return (self._sign(subject, key, extensions).public_bytes(serialization.Encoding.PEM),
                key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()))

    @property
    def pem(self):
        return self.certificate.public_bytes(serialization.Encoding.PEM)


class Resource:
    def __init__(self, prefix, plural, kind, api_version, namespaced):
        self.prefix, self.plural, self.kind, self.api_version, self.namespaced = prefix, plural, kind, api_version, namespaced


RESOURCES = [
    Resource("/api/v1", "pods", "Pod", "v1", True),
    Resource("/api/v1", "namespaces", "Namespace", "v1", False),
    Resource("/api/v1", "nodes", "Node", "v1", False),
    Resource("/api/v1", "events", "Event", "v1", True),
    Resource("/apis/apps/v1", "daemonsets", "DaemonSet", "apps/v1", True),
]


class Watcher:
    """A running watch, as tests see it."""

    def __init__(self, resource, query):
        self.resource, self.query = resource, query
        self.told = 0  # entries of the history
        self.order = None  # "end", "close", "reset", "truncate", "expire", "silence", or bytes to send as they are


class Fault:
    def __init__(self, pattern, status, times, retry_after, message, body):
        self.pattern, self.status, self.times = re.compile(pattern), status, times
        self.retry_after, self.message, self.body = retry_after, message, body


class ApiServer:
    def __init__(self, folder, names=("localhost",), addresses=("127.0.0.1", "::1")):
        self.folder = pathlib.Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.changed = threading.Condition(threading.RLock())
        self.version = 1000
        self.objects = {resource.plural: {} for resource in RESOURCES}
        self.history = []       # (version, type, resource, object)
        self.oldest = 0         # versions before this are gone
        self.continued = {}     # token: (version, rest of the list)

        self.violations = []
        self.requests = []      # (method, path with query, status)
        self.patches = []       # (resource, namespace, name, body)
        self.watchers = []
        self.connections = set()
        self.connections_peak = 0
        self.handshakes = self.resumed = 0

        # Switches.
        self.streaming_lists = True
        self.etcd_is_old = False        # below 3.4.25: a streaming list begins, and its only event is an ERROR
        self.pages_from_cache = False   # as the real one: resourceVersion=0 is answered whole
        self.bookmark_seconds = 0.5
        self.delay = 0                  # seconds before every answer but watches' events
        self.tokens = {"token-1"}
        self.forbidden = []             # patterns of "METHOD PATH"
        self.faults = []
        self.gone_as_event = True       # a watch from too old a version: an ERROR event, else a 410
        self.after_patch = None         # called once, when the next patch is done and not yet answered
        self.instead_of_read = None     # called once, when the next object is read; what it returns is the answer
        self.patch_conflicts = 0        # so many patches meet a concurrent change
        self.wrong_uid_status = 409
        self.prefix = ""                # of every path, as behind a proxy
        self.for_people = None          # path: answer, for commands with a person's rights; None: only the agent asks
        self.refused_rights = set()     # "patch pods/status", for who asks what is allowed

        self.authority = Authority()
        self._names, self._addresses = names, addresses
        self._context = None
        self.use_certificate("good")
        self._listener = self._placeholder = None
        self.port = 0
        self.start()

    # ---- Running.

    def start(self):
        server = self

        class Listener(socketserver.ThreadingTCPServer):
            allow_reuse_address = True
            daemon_threads = True
            request_queue_size = 128

            def handle_error(self, request, client_address):
                pass  # a client that went away

        class Bound(Handler):
            api = server

        if self._placeholder:
            self._placeholder.close()
            self._placeholder = None
        # A client that dials in this moment may hold the port as its own end, until it is refused.
        for attempt in range(100):
            try:
                self._listener = Listener(("127.0.0.1", self.port), Bound)
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE or attempt == 99:
                    raise
                time.sleep(0.05)
        self.port = self._listener.server_address[1]
        threading.Thread(target=self._listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self):
        """Nobody listens any more, and every connection is cut."""
        if not self._listener:
            return
        self._listener.shutdown()
        self._listener.server_close()
        self._listener = None
        # The port stays ours: a client must be refused, and not meet somebody else, or itself.
        self._placeholder = socket.socket()
        self._placeholder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._placeholder.bind(("127.0.0.1", self.port))
        self.cut_connections()

    def cut_connections(self):
        with self.changed:
            connections = list(self.connections)
        for connection in connections:
            cut(connection)

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.stop()
        if self._placeholder:
            self._placeholder.close()

    def check(self):
        assert not self.violations, "\n".join(self.violations)

    def violation(self, text):
        self.violations.append(text)

    # ---- Credentials.

    def use_certificate(self, kind):
        """For new connections: "good", "wrong-name", or "unknown-ca"."""
        authority = Authority("another-ca") if kind == "unknown-ca" else self.authority
        names = ("elsewhere.example",) if kind == "wrong-name" else self._names
        addresses = ("192.0.2.1",) if kind == "wrong-name" else self._addresses
        self._load(*authority.issue("apiserver", names, addresses))

    def rotate_authority(self):
        """A new CA signs the server's certificate; credentials that were written before do not know it."""
        self.authority = Authority("test-ca-2")
        self.use_certificate("good")

    def _load(self, certificate, key):
        (self.folder / "server.crt").write_bytes(certificate)
        (self.folder / "server.key").write_bytes(key)
        (self.folder / "clients.crt").write_bytes(self.authority.pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server.crt", self.folder / "server.key")
        context.load_verify_locations(self.folder / "clients.crt")
        context.verify_mode = ssl.CERT_OPTIONAL
        context.set_alpn_protocols(["http/1.1"])
        self._context = context

    def write_service_account(self, folder, token="token-1"):
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in (("token", token.encode()), ("ca.crt", self.authority.pem)):
            (folder / (name + ".new")).write_bytes(content)
            (folder / (name + ".new")).rename(folder / name)
        return folder

    def write_kubeconfig(self, path, token="token-1", host="127.0.0.1", user=None, cluster=None):
        """`user` and `cluster` replace or (value None) take away keys."""
        def changed(values, changes):
            return {key: value for key, value in {**values, **(changes or {})}.items() if value is not None}
        config = {
            "apiVersion": "v1", "kind": "Config", "current-context": "here",
            "contexts": [{"name": "here", "context": {"cluster": "test", "user": "agent"}}],
            "clusters": [{"name": "test", "cluster": changed({
                "server": f"https://{host}:{self.port}",
                "certificate-authority-data": base64.b64encode(self.authority.pem).decode()}, cluster)}],
            "users": [{"name": "agent", "user": changed({"token": token}, user)}]}
        path = pathlib.Path(path)
        path.with_name(path.name + ".new").write_text(json.dumps(config, indent=1))
        path.with_name(path.name + ".new").rename(path)
        return path

    # ---- Objects.

    def _store(self, resource, kind_of_event, key, value):
        with self.changed:
            self.version += 1
            value["metadata"]["resourceVersion"] = str(self.version)
            if kind_of_event == "DELETED":
                self.objects[resource].pop(key, None)
            else:
                self.objects[resource][key] = value
            self.history.append((self.version, kind_of_event, resource, value))
            self.changed.notify_all()
        return value

    def put(self, resource, value):
        """Adds or replaces an object as it is; its uid stays unless it brings one."""
        value = copy.deepcopy(value)
        metadata = value.setdefault("metadata", {})
        key = (metadata.get("namespace"), metadata["name"])
        with self.changed:
            old = self.objects[resource].get(key)
            metadata.setdefault("uid", old["metadata"]["uid"] if old else str(uuid.uuid4()))
            metadata.setdefault("creationTimestamp", "2026-01-01T00:00:00Z")
            return self._store(resource, "MODIFIED" if old else "ADDED", key, value)

    def get(self, resource, namespace, name):
        with self.changed:
            return copy.deepcopy(self.objects[resource].get((namespace, name)))

    def delete(self, resource, namespace, name):
        with self.changed:
            value = copy.deepcopy(self.objects[resource][(namespace, name)])
            self._store(resource, "DELETED", (namespace, name), value)

    def put_pod(self, namespace, name, node="a", labels=None, annotations=None, addresses=("10.0.0.1",), phase="Running", **metadata):
        spec = {"nodeName": node, "containers": [{"name": "main", "image": "x"}], "serviceAccountName": "default"}
        status = {"phase": phase, "podIP": addresses[0] if addresses else None,
                  "podIPs": [{"ip": address} for address in addresses]}
        return self.put("pods", {"apiVersion": "v1", "kind": "Pod", "spec": spec, "status": status, "metadata": {
            "name": name, "namespace": namespace, "labels": labels or {}, "annotations": annotations or {}, **metadata}})

    def change_pod(self, namespace, name, change):
        """`change` is called with the pod and changes it."""
        with self.changed:
            pod = self.get("pods", namespace, name)
            change(pod)
            return self.put("pods", pod)

    def delete_pod(self, namespace, name):
        self.delete("pods", namespace, name)

    def pod_annotation(self, namespace, name, key=REDIRECTION):
        pod = self.get("pods", namespace, name)
        return pod and (pod["metadata"].get("annotations") or {}).get(key)

    def put_namespace(self, name, labels=None):
        return self.put("namespaces", {"apiVersion": "v1", "kind": "Namespace", "spec": {"finalizers": ["kubernetes"]},
                                       "status": {"phase": "Active"}, "metadata": {"name": name, "labels": labels or {}}})

    def delete_namespace(self, name):
        self.delete("namespaces", None, name)

    def put_node(self, name, taints=()):
        return self.put("nodes", {"apiVersion": "v1", "kind": "Node", "spec": {"taints": list(taints)} if taints else {},
                                  "metadata": {"name": name}})

    def put_daemon_set(self, namespace, name, **metadata):
        return self.put("daemonsets", {"apiVersion": "apps/v1", "kind": "DaemonSet", "spec": {}, "metadata": {
            "name": name, "namespace": namespace, **metadata}})

    @property
    def events(self):
        with self.changed:
            return list(self.objects["events"].values())

    def has_told(self):
        """Every change has been sent to watches of pods and of namespaces that run."""
        with self.changed:
            return {"pods", "namespaces"} <= {watcher.resource for watcher in self.watchers
                                              if watcher.told == len(self.history) and watcher.order != "silence"}

    # ---- Faults.

    def fail(self, pattern, status, times=1, retry_after=None, message="injected fault", body=None):
        """The next `times` requests whose "METHOD PATH?QUERY" matches are answered so. Status 0: the connection is reset;
        "close": it is closed; "truncate": half an answer; "hang": no answer. `body` replaces the Status object."""
        with self.changed:
            self.faults.append(Fault(pattern, status, times, retry_after, message, body))

    def _fault_for(self, text):
        with self.changed:
            for fault in self.faults:
                if fault.times > 0 and fault.pattern.search(text):
                    fault.times -= 1
                    return fault
        return None

    def order_watchers(self, order, resource=None):
        """To every watch that runs: "end" (as the server's time limit does), "close", "reset", "truncate" (in the middle of an
        event), "expire" (ERROR 410), "silence" (nothing any more, the connection stays), or bytes that are sent as a chunk."""
        with self.changed:
            told = [watcher for watcher in self.watchers if resource in (None, watcher.resource) and watcher.order != "silence"]
            for watcher in told:
                watcher.order = order
            self.changed.notify_all()
        return len(told)

    def compact(self):
        """Everything before now is gone: a watch from an older version, or the rest of a paged list, gets 410."""
        with self.changed:
            self.oldest = self.version
            self.continued.clear()

    def wait(self, condition, seconds=10):
        """Until `condition()` is true; it is looked at after every change."""
        end = time.monotonic() + seconds
        with self.changed:
            while not condition():
                left = end - time.monotonic()
                assert left > 0, "timed out waiting for the API client"
                self.changed.wait(min(left, 0.05))


def reset(connection):
    """Ends a connection with a TCP reset, from its own thread: TLS keeps the descriptor's number beyond this."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    socket.socket.close(connection)


def cut(connection):
    """Ends a connection without TLS's farewell, from any thread."""
    try:
        socket.socket.shutdown(connection, socket.SHUT_RDWR)
    except OSError:
        pass


class Hangup(Exception):
    """The connection ends here."""


def merge(target, patch):
    """RFC 7386."""
    for key, value in patch.items():
        if value is None:
            target.pop(key, None)
        elif isinstance(value, dict):
            if not isinstance(target.get(key), dict):
                target[key] = {}
            merge(target[key], value)
        else:
            target[key] = value


def apply_json_patch(target, patch):
    """test and remove of RFC 6902; False: a test failed."""
    for operation in patch:
        *parents, last = [part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:]]
        at = target
        try:
            for part in parents:
                at = at[int(part)] if isinstance(at, list) else at[part]
            index = int(last) if isinstance(at, list) else last
            found = at[index]
        except (KeyError, IndexError):
            return False
        if operation["op"] == "test":
            if found != operation["value"]:
                return False
        elif operation["op"] == "remove":
            del at[index]
        else:
            raise ValueError(operation["op"])
    return True


class Handler(http.server.BaseHTTPRequestHandler):
    api = None
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = 0

    def setup(self):
        api = self.api
        self.plain = self.request
        self.request.settimeout(60)
        self.request = api._context.wrap_socket(self.request, server_side=True)
        super().setup()
        with api.changed:
            api.handshakes += 1
            api.resumed += bool(self.request.session_reused)
            api.connections.add(self.request)
            api.connections_peak = max(api.connections_peak, len(api.connections))
            if len(api.connections) > CONNECTIONS_MAX:
                api.violation(f"{len(api.connections)} connections at a time")

    def finish(self):
        with self.api.changed:
            self.api.connections.discard(self.request)
        try:
            super().finish()
        except (OSError, ValueError):
            pass

    def handle_one_request(self):
        try:
            super().handle_one_request()
        except Hangup:
            self.close_connection = True
        except (OSError, ValueError):
            self.close_connection = True

    def log_message(self, *arguments):
        pass

    # ---- Answers.

    def send(self, status, body, headers=()):
        text = json.dumps(body).encode() if not isinstance(body, bytes) else body
        head = [f"HTTP/1.1 {status} X", "Content-Type: application/json", f"Content-Length: {len(text)}"]
        head += [f"{name}: {value}" for name, value in headers]
        self.note(status)
        self.wfile.write("\r\n".join(head).encode() + b"\r\n\r\n" + text)

    def note(self, status):
        with self.api.changed:
            self.api.requests.append((self.command, self.path, status))
            self.api.changed.notify_all()

    def refuse(self, status, message, reason="", headers=(), body=None):
        self.send(status, body if body is not None else {
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason,
            "code": status}, headers)

    def chunk(self, data):
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def violation(self, text):
        self.api.violation(f"{self.command} {self.path}: {text}")

    # ---- Requests.

    def do(self):
        api = self.api
        length = int(self.headers.get("Content-Length", 0))
        body = self.rfile.read(length) if length else b""
        if not self.headers.get("Host", "").endswith(f":{api.port}"):
            self.violation(f"Host: {self.headers.get('Host')}")
        if "User-Agent" not in self.headers:
            self.violation("no User-Agent")
        if api.delay:
            time.sleep(api.delay)
        text = f"{self.command} {self.path}"
        fault = api._fault_for(text)
        if fault:
            self.commit(fault)
            return
        if not self.is_authenticated():
            self.refuse(401, "Unauthorized", "Unauthorized")
            return
        if any(re.search(pattern, text) for pattern in api.forbidden):
            self.refuse(403, f'forbidden: User "agent" cannot {self.command} {self.path}', "Forbidden")
            return
        url = urllib.parse.urlsplit(self.path)
        query = dict(urllib.parse.parse_qsl(url.query, keep_blank_values=True, strict_parsing=True) if url.query else [])
        if api.for_people is not None:
            self.answer_a_person(url.path, body)
            return
        place = url.path.startswith(api.prefix + "/") and self.find(url.path[len(api.prefix):])
        if not place:
            self.violation("no such path")
            self.refuse(404, "the server could not find the requested resource", "NotFound")
            return
        resource, namespace, name, subresource = place
        if self.command == "GET" and name:
            self.get_one(resource, namespace, name)
        elif self.command == "GET" and namespace and set(query) == {"labelSelector"}:
            self.list_selected(resource, namespace, query["labelSelector"])
        elif self.command == "DELETE" and resource.plural == "daemonsets" and name:
            self.delete_in_foreground(resource, namespace, name, body)
        elif self.command == "GET" and query.get("watch"):
            self.watch(resource, query)
        elif self.command == "GET":
            self.list(resource, query)
        elif self.command == "PATCH" and name:
            self.patch(resource, namespace, name, subresource, body)
        elif self.command == "POST" and resource.plural == "events" and not name:
            self.create_event(namespace, body)
        else:
            self.violation("no such operation")
            self.refuse(405, "method not allowed", "MethodNotAllowed")

    def answer_a_person(self, path, body):
        if self.command == "POST" and path == "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews":
            review = json.loads(body)
            asked = review["spec"]["resourceAttributes"]
            subresource = f"/{asked['subresource']}" if asked.get("subresource") else ""
            review["status"] = {"allowed": f"{asked['verb']} {asked['resource']}{subresource}" not in self.api.refused_rights}
            self.send(201, review)
        elif self.command == "GET" and path in self.api.for_people:
            self.send(200, self.api.for_people[path])
        elif self.command == "GET":
            self.refuse(404, f"the server could not find the requested resource {path}", "NotFound")
        else:
            self.violation("a person's command changes something")
            self.refuse(405, "method not allowed", "MethodNotAllowed")

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = do

    def commit(self, fault):
        if fault.status in (0, "reset"):
            self.note(0)
            reset(self.request)
            raise Hangup
        if fault.status == "close":
            self.note(0)
            raise Hangup
        if fault.status == "truncate":
            self.note(0)
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 5000\r\n\r\n{\"kind\":")
            raise Hangup
        if fault.status == "hang":
            self.note(0)
            self.hang()
        headers = [("Retry-After", fault.retry_after)] if fault.retry_after is not None else []
        self.refuse(fault.status, fault.message, headers=headers, body=fault.body)

    def hang(self):
        """Nothing more is said, until the client goes."""
        with contextlib.suppress(OSError):
            self.request.settimeout(30)
            self.request.recv(1)
        raise Hangup

    def is_authenticated(self):
        if self.request.getpeercert():
            return True
        authorization = self.headers.get("Authorization")
        if authorization is None:
            self.violation("neither a token nor a client certificate")
            return False
        return authorization.startswith("Bearer ") and authorization[len("Bearer "):] in self.api.tokens

    @staticmethod
    def find(path):
        for resource in RESOURCES:
            for pattern in ((rf"{resource.prefix}/namespaces/([^/]+)/{resource.plural}(?:/([^/]+))?(/status)?$",
                             rf"{resource.prefix}/(){resource.plural}$") if resource.namespaced else
                            (rf"{resource.prefix}/(){resource.plural}(?:/([^/]+))?(/status)?$",)):
                match = re.match(pattern, path)
                if match:
                    groups = [urllib.parse.unquote(group) if group else None for group in match.groups()] + [None, None]
                    return resource, groups[0], groups[1], groups[2]
        return None

    def get_one(self, resource, namespace, name):
        with self.api.changed:
            instead, self.api.instead_of_read = self.api.instead_of_read, None
        found = instead() if instead else self.api.get(resource.plural, namespace, name)
        if found:
            self.send(200, found)
        else:
            self.refuse(404, f'{resource.plural} "{name}" not found', "NotFound")

    def is_metadata_only(self, resource, is_list):
        accept = self.headers.get("Accept", "")
        wanted = f"application/json;as=PartialObjectMetadata{'List' if is_list else ''};g=meta.k8s.io;v=v1"
        if resource.plural == "namespaces" and accept != wanted:
            self.violation(f"Accept: {accept}, expected {wanted}")
        return accept == wanted

    @staticmethod
    def partial(value):
        return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": value["metadata"]}

    def check_query(self, query, allowed, resource):
        unknown = set(query) - set(allowed)
        if unknown:
            self.violation(f"unknown parameters {sorted(unknown)}")
        if resource.plural == "pods" and not query.get("fieldSelector", "").startswith("spec.nodeName="):
            self.violation("pods of the whole cluster are asked for")
        if resource.plural == "namespaces" and "fieldSelector" in query:
            self.violation("a field selector for namespaces")

    @staticmethod
    def selects(query, value):
        selector = query.get("fieldSelector")
        return not selector or value.get("spec", {}).get("nodeName") == selector.split("=", 1)[1]

    # ---- Lists.

    def list(self, resource, query):
        api = self.api
        self.check_query(query, ("limit", "continue", "resourceVersion", "fieldSelector", "timeoutSeconds"), resource)
        metadata_only = self.is_metadata_only(resource, True)
        with api.changed:
            token = query.get("continue")
            if token:
                if "resourceVersion" in query:
                    self.violation("continue and resourceVersion exclude each other")
                if token not in api.continued:
                    self.refuse(410, "The provided continue parameter is too old", "Expired")
                    return
                version, rest = api.continued[token]
            else:
                version = api.version
                rest = [value for _, value in sorted(api.objects[resource.plural].items(), key=lambda item: str(item[0]))
                        if self.selects(query, value)]
            limit = int(query.get("limit", 0))
            # From its cache the real server gives everything, whatever the limit.
            if query.get("resourceVersion") == "0" and not api.pages_from_cache:
                limit = 0
            page, rest = (rest[:limit], rest[limit:]) if limit else (rest, [])
            metadata = {"resourceVersion": str(version)}
            if rest:
                metadata["continue"] = "next/" + uuid.uuid4().hex + "=="
                metadata["remainingItemCount"] = len(rest)
                api.continued[metadata["continue"]] = (version, rest)
        items = [dict(self.partial(value) if metadata_only else value) for value in page]
        if not metadata_only:
            for item in items:
                item.pop("kind", None)
                item.pop("apiVersion", None)
        text = json.dumps({"kind": "PartialObjectMetadataList" if metadata_only else resource.kind + "List",
                           "apiVersion": "meta.k8s.io/v1" if metadata_only else resource.api_version,
                           "metadata": metadata, "items": items}).encode() + b"\n"
        # The real server sends a list as one chunk.
        self.note(200)
        self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
        self.chunk(text)
        self.wfile.write(b"0\r\n\r\n")

    def list_selected(self, resource, namespace, selector):
        """What a person's command asks for once: the objects of one namespace that have a label."""
        key, _, value = selector.partition("=")
        with self.api.changed:
            items = [item for item in self.api.objects[resource.plural].values()
                     if item["metadata"].get("namespace") == namespace and item["metadata"].get("labels", {}).get(key) == value]
        self.send(200, {"kind": resource.kind + "List", "apiVersion": resource.api_version, "metadata": {}, "items": items})

    # ---- Deleting.

    def delete_in_foreground(self, resource, namespace, name, body):
        """The object stays, marked, until somebody takes it out (ApiServer.delete), as the garbage collector does in the end."""
        if json.loads(body or b"{}").get("propagationPolicy") != "Foreground":
            self.violation("not deleted in the foreground: nobody would see when its pods are gone")
        found = self.api.get(resource.plural, namespace, name)
        if not found:
            self.refuse(404, f'{resource.plural} "{name}" not found', "NotFound")
            return
        found["metadata"].setdefault("deletionTimestamp", "2026-11-24T00:00:00Z")
        found["metadata"].setdefault("finalizers", ["foregroundDeletion"])
        self.api.put(resource.plural, found)
        self.send(200, found)

    # ---- Watches.

    def watch(self, resource, query):
        api = self.api
        self.check_query(query, ("watch", "allowWatchBookmarks", "sendInitialEvents", "resourceVersionMatch", "resourceVersion",
                                 "fieldSelector", "timeoutSeconds"), resource)
        metadata_only = self.is_metadata_only(resource, False)
        if query.get("allowWatchBookmarks") != "true":
            self.violation("a watch without bookmarks")
        if not 0 < int(query.get("timeoutSeconds", 0)) <= 3600:
            self.violation("a watch without a sensible timeoutSeconds")
        is_list = query.get("sendInitialEvents") == "true"
        if is_list:
            if query.get("resourceVersionMatch") != "NotOlderThan":
                self.violation("sendInitialEvents without resourceVersionMatch=NotOlderThan")
            if not api.streaming_lists:
                self.refuse(422, 'ListOptions.meta.k8s.io "" is invalid: sendInitialEvents: Forbidden: sendInitialEvents is '
                                 'forbidden for watch unless the WatchList feature gate is enabled', "Invalid")
                return
        elif not query.get("resourceVersion", "").isdigit() or query["resourceVersion"] == "0":
            self.violation("a watch from nowhere")
        watcher = Watcher(resource.plural, query)
        with api.changed:
            if is_list:
                version = api.version
                initial = [("ADDED", value) for value in api.objects[resource.plural].values() if self.selects(query, value)]
                if api.etcd_is_old:
                    initial = [("ERROR", {"kind": "Status", "status": "Failure", "code": 500, "message":
                                          "a watch stream was requested by the client but the required storage feature "
                                          "RequestWatchProgress is disabled"})]
            else:
                version = int(query["resourceVersion"])
                initial = []
                if version < api.oldest:
                    message = f"too old resource version: {version} ({api.oldest})"
                    if not api.gone_as_event:
                        self.refuse(410, message, "Expired")
                        return
                    initial = [("ERROR", {"kind": "Status", "status": "Failure", "message": message, "reason": "Expired",
                                          "code": 410})]
            at = len(api.history)
            while at > 0 and api.history[at - 1][0] > version:
                at -= 1
            api.watchers.append(watcher)
        self.note(200)
        try:
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
            for kind, value in initial:
                self.event(kind, self.partial(value) if metadata_only and kind != "ERROR" else value)
            if initial and initial[0][0] == "ERROR":
                self.wfile.write(b"0\r\n\r\n")
                return
            if is_list:
                self.bookmark(resource, metadata_only, version, {"k8s.io/initial-events-end": "true"})
                watcher.told = at
            self.follow(watcher, resource, query, metadata_only, at, version)
        finally:
            with api.changed:
                api.watchers.remove(watcher)

    def event(self, kind, value):
        self.chunk(json.dumps({"type": kind, "object": value}).encode() + b"\n")

    def bookmark(self, resource, metadata_only, version, annotations=None):
        value = {"kind": resource.kind, "apiVersion": resource.api_version, "metadata": {
            "resourceVersion": str(version), "creationTimestamp": None}}
        if annotations:
            value["metadata"]["annotations"] = annotations
        if not metadata_only and resource.plural == "pods":
            value.update({"spec": {"containers": None}, "status": {}})
        self.event("BOOKMARK", self.partial(value) if metadata_only else value)

    def follow(self, watcher, resource, query, metadata_only, at, version):
        api = self.api
        end = time.monotonic() + int(query["timeoutSeconds"])
        next_bookmark = time.monotonic() + api.bookmark_seconds
        while True:
            with api.changed:
                while True:
                    now = time.monotonic()
                    entries, at = api.history[at:], len(api.history)
                    order, watcher.order = watcher.order, "silence" if watcher.order == "silence" else None
                    if entries or order or now >= end or now >= next_bookmark:
                        break
                    api.changed.wait(min(end, next_bookmark) - now)
            if order == "silence":
                self.hang()
            if order == "reset":
                reset(self.request)
                raise Hangup
            if order == "close":
                raise Hangup
            for entry_version, kind, plural, value in entries:
                version = entry_version
                if plural == resource.plural and self.selects(query, value):
                    self.event(kind, self.partial(value) if metadata_only else value)
            watcher.told = at
            if isinstance(order, bytes):
                self.chunk(order)
            elif order == "expire":
                self.event("ERROR", {"kind": "Status", "status": "Failure", "reason": "Expired", "code": 410,
                                     "message": "too old resource version"})
                order = "end"
            elif order == "truncate":
                text = json.dumps({"type": "ADDED", "object": {"metadata": {"name": "half"}}}).encode()[:30]
                self.chunk(text)
                order = "end"
            if order == "end" or now >= end:
                self.wfile.write(b"0\r\n\r\n")
                return
            if now >= next_bookmark:
                self.bookmark(resource, metadata_only, version)
                next_bookmark = now + api.bookmark_seconds

    # ---- Writes.

    def patch(self, resource, namespace, name, subresource, body):
        api = self.api
        try:
            patch = json.loads(body)
        except ValueError:
            self.violation("the body is no JSON")
            self.refuse(400, "invalid JSON", "BadRequest")
            return
        content_type = self.headers.get("Content-Type")
        with api.changed:
            api.patches.append((resource.plural, namespace, name, patch))
            found = api.get(resource.plural, namespace, name)
            if not found:
                self.refuse(404, f'{resource.plural} "{name}" not found', "NotFound")
                return
            if resource.plural == "pods":
                self.check_pod_patch(patch, content_type, subresource)
                if patch["metadata"].get("uid") != found["metadata"]["uid"]:
                    self.refuse(api.wrong_uid_status, f"Precondition failed: UID in precondition: {patch['metadata'].get('uid')}, "
                                                      f"UID in object meta: {found['metadata']['uid']}", "Conflict")
                    return
                if api.patch_conflicts > 0:
                    api.patch_conflicts -= 1
                    self.refuse(409, f'Operation cannot be fulfilled on pods "{name}": the object has been modified', "Conflict")
                    return
                changed = copy.deepcopy(found)
                merge(changed, patch)
            elif resource.plural == "nodes":
                if content_type != "application/json-patch+json" or subresource:
                    self.violation(f"a node is patched with {content_type}")
                if not any(operation["op"] == "test" for operation in patch):
                    self.violation("a list is patched without a test")
                changed = copy.deepcopy(found)
                if not apply_json_patch(changed, patch):
                    self.refuse(422, "the server rejected our request due to an error in our request", "Invalid")
                    return
            else:
                self.violation("nobody may patch this")
                self.refuse(403, "forbidden", "Forbidden")
                return
            # A patch that changes nothing makes no new version and no event.
            stored = api.put(resource.plural, changed) if changed != found else found
        with api.changed:
            after, api.after_patch = api.after_patch, None
        if after:
            after()
        self.send(200, stored)

    def check_pod_patch(self, patch, content_type, subresource):
        if content_type != "application/merge-patch+json":
            self.violation(f"Content-Type {content_type}")
        if subresource != "/status":
            self.violation("the pod itself is patched, not its status: that needs more rights")
        metadata = patch.get("metadata", {})
        if set(patch) != {"metadata"} or set(metadata) != {"uid", "annotations"} or len(metadata["annotations"]) != 1:
            self.violation(f"the patch changes more than one annotation: {patch}")

    def create_event(self, namespace, body):
        event = json.loads(body)
        metadata = event.get("metadata", {})
        about = event.get("involvedObject", {})
        for condition, text in (
                (metadata.get("namespace") == namespace, "the Event's namespace is not the path's"),
                (metadata.get("name") or metadata.get("generateName"), "the Event has no name"),
                (about.get("namespace", "default") == namespace, "the Event is not in the namespace of what it is about"),
                (event.get("type") in ("Normal", "Warning"), "the Event's type"),
                (re.fullmatch(r"[A-Z][A-Za-z]*", event.get("reason", "")), "the Event's reason"),
                (len(event.get("message", "").encode()) <= 1024, "the Event's message is too long"),
                (re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", event.get("lastTimestamp", "")), "the Event's time")):
            if not condition:
                self.violation(text)
        self.send(201, self.api.put("events", event))
