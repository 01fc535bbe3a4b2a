"""A registry that takes what a client pushes (OCI distribution): blobs and manifests, whose digests must be those of their bytes."""
import hashlib
import http.server
import re
import socketserver
import threading
import urllib.parse
import uuid


class Registry:
    def __init__(self):
        self.blobs, self.manifests, self.uploads = {}, {}, {}
        registry = self

        class Bound(Handler):
            pass

        class Listener(socketserver.ThreadingMixIn, http.server.HTTPServer):
            daemon_threads = True

        Bound.registry = registry
        self.listener = Listener(("127.0.0.1", 0), Bound)
        self.name = f"127.0.0.1:{self.listener.server_address[1]}"
        threading.Thread(target=self.listener.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def close(self):
        self.listener.shutdown()
        self.listener.server_close()


def digest(data):
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


class Handler(http.server.BaseHTTPRequestHandler):
    registry = None
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def send(self, status, **headers):
        self.send_response(status)
        for name, value in {"Content_Length": 0, **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()

    def body(self):
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        data = b""
        while size := int(self.rfile.readline(), 16):
            data += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return data

    def do(self):
        registry, url, data = self.registry, urllib.parse.urlsplit(self.path), self.body()
        if url.path == "/v2/":
            self.send(200)
            return
        kind, name = re.fullmatch(r"/v2/[a-z/-]+/(blobs/uploads|blobs|manifests)/(.*)", url.path).groups()
        if self.command in ("HEAD", "GET"):
            self.send(200 if name in registry.blobs else 404)
        elif self.command == "POST":
            at = uuid.uuid4().hex
            registry.uploads[at] = b""
            self.send(202, Location=f"{url.path}{at}")
        elif self.command == "PATCH":
            registry.uploads[name] += data
            self.send(202, Location=url.path, Range=f"0-{len(registry.uploads[name]) - 1}")
        elif kind == "blobs/uploads":
            blob = registry.uploads.pop(name) + data
            wanted = dict(urllib.parse.parse_qsl(url.query))["digest"]
            registry.blobs[wanted] = blob
            self.send(201 if digest(blob) == wanted else 400, Docker_Content_Digest=wanted)
        else:
            registry.manifests[name] = data
            self.send(201, Docker_Content_Digest=digest(data))

    do_GET = do_HEAD = do_POST = do_PUT = do_PATCH = do
