"""What the agent answers over HTTP: health, metrics, the admin port and its socket, and what no peer can do to it."""
import http.client
import json
import os
import re
import socket
import stat
import time

import pytest

from tests.agent.node import REPOSITORY, Node, eventually

PORTS = ["listen.health=:8000", "listen.metrics=:15014", "listen.admin=127.0.0.1:15000"]


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    node = Node(tmp_path_factory.mktemp("node"), settings=PORTS)
    yield node
    node.close()


@pytest.fixture(scope="module")
def pod(node):
    pod = node.pod()
    node.join()
    node.wait_for("enabled")
    return pod


def ask(node, port, path, method="GET", address="127.0.0.1", host=None):
    with node.host:
        connection = http.client.HTTPConnection(address, port, timeout=10)
        connection.connect()
    connection.request(method, path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer, text


def test_health(node):
    for path in ("/healthz", "/readyz"):
        for address in ("127.0.0.1", "::1"):
            answer, text = ask(node, 8000, path, address=address)
            assert (answer.status, text) == (200, "ok\n")
    answer, text = ask(node, 8000, "/readyz", "HEAD")
    assert (answer.status, text) == (200, "")


@pytest.mark.parametrize("port", [8000, 15014])
def test_public_ports_show_nothing_else(node, port):
    for path in ("/", "/pods", "/status", "/config", "/metrics" if port == 8000 else "/healthz", "/log-level"):
        answer, text = ask(node, port, path)
        assert answer.status == 404 and "there is nothing at this path" in text
    answer, text = ask(node, port, "/log-level?level=debug", "POST")
    assert answer.status == 404


def test_wrong_methods(node):
    answer, text = ask(node, 8000, "/healthz", "DELETE")
    assert answer.status == 405 and answer.getheader("Allow") == "GET, HEAD" and "GET, HEAD" in text
    status, text = node.request("GET", "/log-level")
    assert status == 405 and "POST" in text


def test_a_sentence_as_json(node):
    with node.host:
        connection = http.client.HTTPConnection("127.0.0.1", 15000, timeout=10)
        connection.connect()
    connection.request("GET", "/pods/shop/elsewhere", headers={"Accept": "application/json"})
    answer = connection.getresponse()
    assert answer.status == 404 and answer.reason == "there is no pod shop/elsewhere on this node"
    assert json.loads(answer.read()) == {"status": 404, "error": "there is no pod shop/elsewhere on this node"}
    connection.close()


def test_not_ready_says_why(tmp_path):
    node = Node(tmp_path, start=False, tunnel=False, settings=PORTS)
    try:
        node.objects.rename(node.folder / "away")
        node.start(wait=False)
        eventually((node.run_dir / "admin.sock").exists, what=node.log)
        answer, text = ask(node, 8000, "/readyz")
        assert answer.status == 503 and "have not been listed yet" in text and "objects" in text
        assert ask(node, 8000, "/healthz")[0].status == 200
        (node.folder / "away").rename(node.objects)
        # The tunnel is no part of it: none is connected.
        eventually(lambda: ask(node, 8000, "/readyz")[0].status == 200)
    finally:
        node.close()


@pytest.mark.parametrize("which", ["run/installer.sock", "ztunnel.sock"])
def test_who_was_superseded_says_so(tmp_path, which):
    """Another agent listens where plugins or the tunnel call: a person who looks at a pod that is not ready learns why."""
    node = Node(tmp_path, tunnel=False, settings=PORTS)
    try:
        node.log_has("info\tready")
        path = node.folder / which
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as successor:
            successor.bind(f"{path}.successor")
            successor.listen()
            os.rename(f"{path}.successor", path)
            eventually(lambda: ask(node, 8000, "/readyz")[0].status == 503)
            reason = f"another agent has taken this node over: it listens at {path}"
            assert ask(node, 8000, "/readyz")[1] == reason + "\n" and node.get("/status")["reason"] == reason
            assert ask(node, 8000, "/healthz")[0].status == 200
            node.log_has(f"not ready: {reason}")
    finally:
        node.close()


def test_status(node, pod):
    status = node.get("/status")
    assert status["ready"] is True and status["reason"] == "" and status["node"] == "node"
    assert status["source"] == {"kind": "folder", "from": str(node.objects), "synced": True, "trouble": ""}
    (connection,) = status["tunnel"]["connections"]
    assert connection["pid"] == os.getpid() or connection["pid"] > 0
    assert connection["snapshotAccepted"] is True
    assert status["pods"]["enabled"] == 1 and status["counters"]["runningPodsEnrolled"] == 1
    assert status["host"] == {"rules": True, "install": False}
    assert any(event["pod"] == pod.key and event["reason"] == "Enrolled" for event in status["events"])


def test_pods(node, pod):
    (one,) = node.get("/pods")
    assert (one["namespace"], one["name"], one["state"]) == (pod.namespace, pod.name, "enabled")
    whole = node.get(f"/pods/{pod.key}")
    assert "difference" not in whole["rules"]
    assert node.get(f"/pods/{pod.key}?verify=1")["rules"]["difference"] == ""
    assert node.get("/pods/shop/p%6fd-2")["uid"] == pod.uid
    for path in ("/pods/shop/other", "/pods/shop", "/pods//x", f"/pods/{pod.key}/pause", "/pods/shop/%00"):
        status, text = node.request("GET", path)
        assert status == 404 and text.endswith("\n"), path


def test_config(node):
    settings = node.get("/config")["settings"]
    assert settings["runDir"] == {"value": str(node.run_dir), "origin": "set"} | {
        key: value for key, value in settings["runDir"].items() if key not in ("value", "origin")}


def test_only_the_socket_changes_anything(node, pod):
    for path in ("/log-level?level=debug", f"/pods/{pod.key}/pause?seconds=5"):
        answer, text = ask(node, 15000, path, "POST")
        assert answer.status == 403 and "admin.sock" in text
    assert "repairPausedSeconds" not in node.get(f"/pods/{pod.key}")
    assert node.request("POST", f"/pods/{pod.key}/pause?seconds=60")[0] == 200
    assert 55 < node.get(f"/pods/{pod.key}")["repairPausedSeconds"] <= 60
    assert node.request("POST", f"/pods/{pod.key}/pause?seconds=0")[0] == 200
    assert "repairPausedSeconds" not in node.get(f"/pods/{pod.key}")
    for bad in ("", "?seconds=", "?seconds=-1", "?seconds=1x", "?seconds=86401", "?seconds=99999999999999999999"):
        status, text = node.request("POST", f"/pods/{pod.key}/pause{bad}")
        assert status == 400 and "seconds" in text, bad
    assert node.request("POST", "/pods/shop/other/pause?seconds=1")[0] == 404


def test_log_level(node):
    assert node.request("POST", "/log-level?level=warn")[0] == 200
    assert node.get("/status")["logLevel"] == "warn"
    status, text = node.request("POST", "/log-level?level=loud")
    assert status == 400 and "debug, info, warn or error" in text
    assert node.request("POST", "/log-level?level=debug")[0] == 200


def test_admin_socket_is_roots(node):
    path = node.run_dir / "admin.sock"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600 and path.stat().st_uid == 0
    assert not (node.run_dir / "admin.sock.new").exists()
    path.chmod(0o666)
    node.run_dir.chmod(0o755)
    pid = os.fork()
    if pid == 0:  # somebody else, who got at the socket all the same
        code = 1
        try:
            for folder in node.run_dir.parents:
                if folder.stat().st_uid == 0 and str(folder) not in ("/", "/tmp"):
                    folder.chmod(folder.stat().st_mode | 0o011)
            os.setgroups([])
            os.setresgid(65534, 65534, 65534)
            os.setresuid(65534, 65534, 65534)
            status, text = node.request("GET", "/pods")
            code = 0 if status == 403 and "only root" in text else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    path.chmod(0o600)


def test_a_foreign_name_is_refused_on_the_admin_port(node):
    assert ask(node, 15000, "/status", host="attacker.example:15000")[0].status == 403
    for host in ("localhost:15000", "127.0.0.1:15000", "[::1]:15000", "10.0.0.1"):
        assert ask(node, 15000, "/status", host=host)[0].status == 200, host


def test_status_page_is_self_contained(node):
    answer, text = ask(node, 15000, "/")
    assert answer.getheader("Content-Type") == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.getheader("Content-Security-Policy")
    assert not re.search(r"""(?:src|href)=["'](?!data:)|https?://|@import|url\(""", text)
    assert text == (REPOSITORY / "installer/observe/status.html").read_text()


def test_what_is_too_big_or_broken_is_refused(node):
    def raw(data):
        with node.host:
            peer = socket.create_connection(("127.0.0.1", 8000), 5)
        with peer:
            try:
                peer.sendall(data)
                answer = b""
                while piece := peer.recv(65536):
                    answer += piece
            except ConnectionError:
                return b""
        return answer
    # Each but for its size would be answered by 200.
    for data in (b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 100_000 + b"\r\n\r\n", b"\x16\x03\x01\0\xff" * 4 + b"\r\n\r\n",
                 b"GET /healthz?" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n",
                 b"GET /healthz HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n" + b"b" * 100_000,
                 b"GET http://[::1/healthz HTTP/1.1\r\n\r\n", b"BREW /healthz HTTP/1.1\r\nHost: a\r\n\r\n"):
        first = raw(data).split(b"\r\n")[0]
        assert b" 200 " not in first, (data[:60], first)
    # One request, one connection.
    answer = raw(b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200") == 1
    assert node.agent.poll() is None and ask(node, 8000, "/healthz")[0].status == 200


def descriptors(node):
    return len(os.listdir(f"/proc/{node.agent.pid}/fd"))


def test_idle_connections_do_not_pile_up(node):
    """200 that say nothing, or dribble: 32 at most are open, probes are answered at once, and all are gone after a while."""
    before = descriptors(node)
    peers = []
    with node.host:
        for number in range(200):
            peers.append(socket.create_connection(("127.0.0.1", 8000), 5))
            if number % 2:
                peers[-1].sendall(b"GET /heal")
            if number % 20 == 0:
                assert descriptors(node) <= before + 40
    began = time.monotonic()
    assert ask(node, 8000, "/readyz")[0].status == 200
    assert time.monotonic() - began < 1
    assert descriptors(node) <= before + 40

    def are_gone():
        for peer in peers[-32:]:
            try:
                peer.sendall(b"x")
            except OSError:
                pass
        return descriptors(node) <= before
    eventually(are_gone, 13, "idle connections are still open")
    for peer in peers:
        peer.close()


def test_a_taken_port_is_waited_for(tmp_path):
    node = Node(tmp_path, start=False, tunnel=False, settings=PORTS)
    try:
        with node.host:
            other = socket.create_server(("", 15014))
        node.start()
        assert "listen.metrics: :15014 is in use by somebody else" in node.log()
        other.close()
        eventually(lambda: "listen.metrics: :15014 is free now" in node.log(), 5)
        assert ask(node, 15014, "/metrics")[0].status == 200
    finally:
        node.close()


def test_an_address_that_is_not_ours_stops_the_start(tmp_path):
    node = Node(tmp_path, start=False, tunnel=False, settings=["listen.metrics=192.0.2.1:15014"])
    try:
        node.start(wait=False)
        assert node.agent.wait(10) == 1
        assert "listen.metrics: 192.0.2.1:15014: cannot listen: Cannot assign requested address" in node.log()
    finally:
        node.close()


def test_the_socket_goes_with_its_agent_and_is_left_to_a_successor(tmp_path):
    node = Node(tmp_path, tunnel=False)
    try:
        path = node.run_dir / "admin.sock"
        first = path.stat().st_ino
        predecessor = node.agent
        node.start(wait=False)
        eventually(lambda: path.stat().st_ino != first)
        predecessor.terminate()
        predecessor.wait(10)
        assert node.get("/status")
        node.stop()
        assert not path.exists()
    finally:
        node.close()


def test_the_socket_comes_back(tmp_path):
    """Removed by hand, replaced by a file, or gone with its whole directory."""
    node = Node(tmp_path, tunnel=False)
    path = node.run_dir / "admin.sock"

    def is_back():
        try:
            return node.get("/status")["ready"]
        except OSError:
            return False
    try:
        before = descriptors(node)
        path.unlink()
        eventually(is_back, 5)
        assert "admin.sock was removed by somebody else: it is listened at again" in node.log()
        path.unlink()
        path.write_text("a file")
        eventually(is_back, 5)
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        node.run_dir.rename(node.folder / "moved")
        eventually(is_back, 8)
        # Another one's is left alone: a successor's.
        with socket.socket(socket.AF_UNIX) as other:
            path.unlink()
            other.bind(str(path))
            time.sleep(2.5)
            assert stat.S_ISSOCK(path.stat().st_mode) and not is_back()
        assert descriptors(node) <= before and node.agent.poll() is None
        assert not list(node.run_dir.glob("admin.sock.*"))
    finally:
        node.close()


def series(text):
    """The exposition format, strictly: {name: (type, {labels: value})}."""
    families, current = {}, None
    for line in text.splitlines():
        if match := re.fullmatch(r"# HELP (\w+) \S.*", line):
            current = match[1]
            assert current not in families, f"{current} comes twice"
            families[current] = [None, {}]
        elif match := re.fullmatch(r"# TYPE (\w+) (counter|gauge|histogram)", line):
            assert match[1] == current
            families[current][0] = match[2]
        else:
            match = re.fullmatch(r'(\w+)(?:\{((?:\w+="[^"\\\n]*",?)+)\})? (\S+)', line)
            assert match, line
            base = re.sub(r"_(bucket|sum|count)$", "", match[1]) if families[current][0] == "histogram" else match[1]
            assert base == current, line
            sample = (match[1], match[2] or "")
            assert sample not in families[current][1], line
            families[current][1][sample] = float(match[3])
    return families


def test_metrics_are_those_of_the_reference(node, pod):
    answer, text = ask(node, 15014, "/metrics")
    assert answer.getheader("Content-Type").startswith("text/plain; version=0.0.4")
    found = series(text)
    reference = re.findall(r"^\| `(\w+)(?:\{([\w,]+)\})?` \| (counter|gauge|histogram) \|",
                           (REPOSITORY / "docs/operate.md").read_text(), re.M)
    assert sorted(name for name, _, _ in reference) == sorted(found)
    for name, labels, kind in reference:
        assert found[name][0] == kind, name
        for sample, text_labels in found[name][1]:
            names = set(re.findall(r'(\w+)="', text_labels)) - {"le"}
            assert names == set(labels.split(",")) - {""}, (name, sample)


def test_metrics_count(node, pod):
    found = series(ask(node, 15014, "/metrics")[1])

    def value(name, labels="", sample=None):
        return found[name][1][(sample or name, labels)]
    assert value("ambient_cni_pods", 'state="enabled"') == 1
    assert value("ambient_cni_tunnel_connections") == value("ztunnel_connected") == 1
    assert value("ambient_cni_tunnel_requests_total", 'kind="add",result="accepted"') >= 1
    assert value("istio_cni_install_ready") == value("ambient_cni_ready") == 1
    assert value("nodeagent_reconcile_events_total", 'type="add"') == 1
    assert value("process_resident_memory_bytes") > 1 << 20 and value("process_open_fds") > 5
    for name in ("ambient_cni_reconcile_seconds", "ambient_cni_tunnel_ack_seconds"):
        buckets = [count for (sample, _), count in found[name][1].items() if sample.endswith("_bucket")]
        assert buckets == sorted(buckets) and buckets[-1] == value(name, "", f"{name}_count") >= 1
        assert value(name, "", f"{name}_sum") > 0
    assert value("process_start_time_seconds") <= time.time() and json.dumps(value("process_cpu_seconds_total"))
