"""A local user without root, and what such a one can put in root's way: docs/security.md, "A local user without root"."""
import json
import os
import pathlib
import socket
import stat
import subprocess
import sys
import tempfile

import pytest

from agent.cluster import ClusterNode
from agent.cni import Runtime
from agent.node import PLUGIN, Node, eventually

SOCKETS = {"installer.sock": socket.SOCK_SEQPACKET, "admin.sock": socket.SOCK_STREAM, "ztunnel.sock": socket.SOCK_SEQPACKET}
CONNECT = """
import os, socket, sys
os.setgid(65534); os.setuid(65534)
sock = socket.socket(socket.AF_UNIX, int(sys.argv[2]))
sock.settimeout(5)
try:
    sock.connect(sys.argv[1])
    sock.send(b"GET /pods HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
    print(sock.recv(65536).decode()[:12] or 0)
except PermissionError:
    print("denied")
except ConnectionError:
    print("closed")
"""


def path_of(node, name):
    return node.folder / name if name == "ztunnel.sock" else node.run_dir / name


def as_nobody(path, kind):
    return subprocess.run([sys.executable, "-c", CONNECT, str(path), str(int(kind))], check=True, capture_output=True, text=True,
                          cwd="/").stdout.strip()


@pytest.fixture
def reachable():
    """A node whose folders anybody may enter: the sockets themselves are what refuses. (pytest's own are closed to other users, again
    and again.)"""
    with tempfile.TemporaryDirectory(prefix="ambient-reachable-") as folder:
        os.chmod(folder, 0o711)
        made = Node(folder)
        made.run_dir.chmod(0o711)
        yield made
        made.close()


@pytest.mark.parametrize("name", SOCKETS)
def test_sockets_are_of_root_alone(reachable, name):
    path = path_of(reachable, name)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert as_nobody(path, SOCKETS[name]) == "denied"


@pytest.mark.parametrize("name", SOCKETS)
def test_sockets_ask_the_kernel_who_is_there(reachable, name):
    """Were the file's mode to be wrong, too."""
    path = path_of(reachable, name)
    path.chmod(0o777)
    answer = as_nobody(path, SOCKETS[name])
    if name == "admin.sock":
        assert answer.startswith("HTTP/1.1 403"), answer
    else:
        # What is said is no protocol of theirs, and would end the connection as well: so the reason is looked at.
        assert answer in ("closed", "0"), answer
        reachable.log_has(f"{path}: refused a connection of uid 65534")
    assert reachable.pods() is not None


def test_run_directory_is_closed(node):
    assert stat.S_IMODE(node.run_dir.stat().st_mode) == 0o700


def call(run_dir, verb, environment=(), **config):
    text = json.dumps({"cniVersion": "1.1.0", "name": "podnet", "type": "ambient-cni", "enrollment": "always",
                       "runDir": str(run_dir), **config})
    return subprocess.run([str(PLUGIN)], input=text, capture_output=True, text=True, check=False, timeout=20,
                          env={"CNI_COMMAND": verb, "CNI_CONTAINERID": "c", "CNI_IFNAME": "eth0", **dict(environment)})


def test_links_in_the_way_are_not_followed(node, tmp_path):
    """In a directory that others can write to: state is written beside its place and renamed over it, a log is not opened
    through a link."""
    pod, other = node.pod(show=False), node.pod(show=False)
    run_dir, victim, precious = tmp_path / "plugin", tmp_path / "victim", tmp_path / "precious"
    attachment = run_dir / "attachments" / "c:eth0.json"
    assert call(run_dir, "ADD", {"CNI_NETNS": other.path}).returncode == 0
    # One that can't be understood is set aside, and the link with it: this one can.
    attachment.rename(victim)
    attachment.symlink_to(victim)
    before = victim.read_text()
    precious.write_text("mine")
    (tmp_path / "log").symlink_to(precious)
    answer = call(run_dir, "ADD", {"CNI_NETNS": pod.path}, logFile=str(tmp_path / "log"), logLevel="debug")
    assert answer.returncode == 0, answer
    assert victim.read_text() == before and pod.path in attachment.read_text() and not attachment.is_symlink()
    assert precious.read_text() == "mine" and "cannot open logFile" in answer.stderr
    # Nor under the name that something is written under first.
    enrolled = node.run_dir / "enrolled.json"
    enrolled.unlink(missing_ok=True)
    for name in (enrolled, node.run_dir / f"enrolled.json.{node.agent.pid}.new"):
        # Over what the agent may be writing just then.
        aside = tmp_path / "aside"
        aside.symlink_to(precious)
        os.replace(aside, name)
    late = node.pod()
    node.join()
    eventually(lambda: late.uid in enrolled.read_text())
    assert precious.read_text() == "mine" and not enrolled.is_symlink()


def test_what_is_no_namespace_is_refused(node, tmp_path):
    (tmp_path / "file").write_text("")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "file", tmp_path / "pipe", "/proc/self/ns/mnt", "/dev/null", "/proc/self/ns/net"):
        # The last one is the host's own: of a host that a plugin which fails here may harm.
        with node.host:
            answer = call(tmp_path / "plugin", "ADD", {"CNI_NETNS": str(path)})
        assert answer.returncode == 1 and json.loads(answer.stdout)["code"] in (4, 8), (path, answer)
    assert node.agent.poll() is None


@pytest.mark.parametrize("name", ["../../etc/x", "a/b", "..", ".x", "a\nb", "a:b", "-x", "x" * 5000])
def test_names_never_lead_out_of_a_directory(tmp_path, name):
    # An interface's name may begin with a dot or a hyphen, and stands in the middle of a file's name.
    interface = [{"CNI_IFNAME": name}] if name not in (".x", "-x") else []
    for environment in [{"CNI_CONTAINERID": name}, *interface]:
        answer = call(tmp_path / "plugin", "DEL", environment)
        assert answer.returncode == 1 and json.loads(answer.stdout)["code"] == 4, answer
    assert not (tmp_path / "plugin").exists()


def test_no_environment_surprises(node, tmp_path):
    """What is not CNI_* decides nothing."""
    pod = node.pod(show=False)
    odd = {"HOME": "/nonexistent", "TMPDIR": "/nonexistent", "LC_ALL": "tr_TR.UTF-8", "TZ": ":/etc/passwd", "IFS": "x", "PATH": "",
           "OPENSSL_CONF": "/nonexistent", "EVENT_NOEPOLL": "1", "RUN_DIR": "/nonexistent",
           "KUBECONFIG": "/nonexistent", "HTTPS_PROXY": "localhost:1", "CNI_PATH": "/nonexistent"}
    answer = call(tmp_path / "plugin", "ADD", {"CNI_NETNS": pod.path, **odd})
    assert answer.returncode == 0 and answer.stderr == "" and json.loads(answer.stdout)["cniVersion"] == "1.1.0", answer
    assert sorted(path.name for path in pathlib.Path(tmp_path / "plugin").iterdir()) == ["attachments", "namespaces"]


def test_a_stranger_at_the_tunnels_socket_disturbs_nobody(node):
    """Root alone gets in; one that speaks no ZDS is dropped at once, one that says nothing is told nothing and waited for by nobody:
    all within the 5 s in which a hello must come."""
    def stranger():
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        sock.settimeout(4)
        sock.connect(str(node.tunnel_path))
        return sock
    with stranger() as sock:
        sock.send(b"GET / HTTP/1.1\r\n\r\n")
        assert sock.recv(100) == b""
    pod = node.pod()
    with stranger() as sock:
        node.join()
        node.wait_for("enabled", [pod], 4)
        sock.setblocking(False)
        try:
            assert sock.recv(100) == b""
        except BlockingIOError:
            pass
    eventually(lambda: node.tunnel.is_connected)


def test_no_environment_surprises_for_the_agent(tmp_path):
    """Neither does what its libraries would read: it still waits with epoll, and asks the API server without a proxy."""
    odd = {"EVENT_NOEPOLL": "1", "EVENT_NOPOLL": "1", "NLCB": "debug",
           "TZ": ":/etc/passwd", "LC_ALL": "tr_TR.UTF-8", "TMPDIR": "/nonexistent", "HOME": "/nonexistent",
           "KUBECONFIG": "/nonexistent", **{name: "http://127.0.0.1:1" for name in (
               "http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")},
           "RUN_DIR": "/nonexistent", "AMBIENT_CNI_RUN_DIR": "/nonexistent", "SSL_CERT_FILE": "/nonexistent"}
    node = ClusterNode(tmp_path, start=False, tunnel=False)
    try:
        node.start(**odd)
        node.connect()
        pod = node.pod()
        node.join()
        node.enabled([pod])
        folder = f"/proc/{node.agent.pid}/fd"
        assert "anon_inode:[eventpoll]" in {os.readlink(f"{folder}/{name}") for name in os.listdir(folder)}
    finally:
        node.close()


def test_the_namespace_of_another_pod_is_refused(node):
    """Whoever gives it: a runtime's ADD, or what stands in a pod's object."""
    owner, thief, runtime = node.pod(starts=True), node.pod(starts=True), Runtime(node)
    node.join()
    eventually(lambda: len(node.pods()) == 2)
    runtime.add(owner)
    before, own = owner.traces(), thief.path
    thief.path = owner.path
    status, answer = runtime.call("ADD", thief)
    thief.path = own
    assert status == 1 and answer["code"] == 8 and f"namespace of pod {owner.key}" in answer["msg"], answer
    assert owner.traces() == before and owner.is_in() and thief.uid not in node.tunnel.workloads
    runtime.check(owner)
    runtime.add(thief)
    thief.enter()
    liar = node.pod(show=False)
    liar.path = owner.path
    liar.show()
    eventually(lambda: f"is that of pod {owner.key}" in ((liar.view() or {}).get("lastError") or ""), what=liar.view)
    assert owner.is_in() and liar.uid not in node.tunnel.workloads
