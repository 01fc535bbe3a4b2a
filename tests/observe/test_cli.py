"""The command line for people: what it prints and exits with when all is well, and for each thing that can be wrong."""
import json
import os
import pty
import re
import subprocess

import pytest

from tests.agent.node import INSTALLER, Node, eventually


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """One pod in the mesh, one outside; nothing is changed about it."""
    node = Node(tmp_path_factory.mktemp("node"), listeners=True, drain=0)
    node.label("other")
    node.inside, node.outside = node.pod(), node.pod(namespace="other", name="plain")
    node.join()
    node.wait_for("enabled", [node.inside])
    yield node
    node.close()


@pytest.fixture
def node(tmp_path):
    node = Node(tmp_path, listeners=True, drain=0)
    node.join()
    yield node
    node.close()


def cli(node, *arguments, status=0, **options):
    done = subprocess.run([str(INSTALLER), *arguments, "--set", f"runDir={node.run_dir}"], capture_output=True, text=True,
                          timeout=20, **options)
    assert done.returncode == status, done.stdout + done.stderr
    return done.stdout + done.stderr


def test_help_fits_a_screen():
    text = subprocess.run([str(INSTALLER), "--help"], capture_output=True, text=True, check=True).stdout
    assert len(text.splitlines()) <= 24 and max(map(len, text.splitlines())) <= 80
    for command in re.findall(r"^  (\w+) ", text, re.M):
        own = subprocess.run([str(INSTALLER), command, "--help"], capture_output=True, text=True, check=True).stdout
        assert own.startswith(f"usage: ambient-installer {command}"), own


def test_status(shared):
    text = cli(shared, "status")
    assert re.match(r"node: ready, version \S+, running for \d+ s\n", text)
    assert "1 enabled, 0 pending, 0 releasing, 0 failed, 1 outside the mesh" in text
    row = next(line for line in text.splitlines() if line.startswith(shared.inside.key)).split(maxsplit=8)
    assert row[1:6] == ["enabled", "full", "yes", "yes", "enabled"] and "istio.io/dataplane-mode=ambient" in row[-1]
    assert shared.outside.key not in text and "\033" not in text
    assert shared.outside.key in cli(shared, "status", "--all")


def test_status_for_machines(shared):
    both = json.loads(cli(shared, "status", "-o", "json"))
    assert both["agent"]["ready"] is True
    assert {f"{pod['namespace']}/{pod['name']}": pod["state"] for pod in both["pods"]} == {
        shared.inside.key: "enabled", shared.outside.key: "none"}


def test_status_has_colour_on_a_terminal_only(shared):
    def on_a_terminal(**environment):
        leader, follower = pty.openpty()
        subprocess.run([str(INSTALLER), "status", "--set", f"runDir={shared.run_dir}"], stdout=follower, check=True,
                       env={**os.environ, "TERM": "xterm", **environment})
        os.close(follower)
        text = b""
        try:
            while piece := os.read(leader, 65536):
                text += piece
        except OSError:
            pass
        os.close(leader)
        return text
    assert b"\033[32menabled" in on_a_terminal()
    assert b"\033" not in on_a_terminal(NO_COLOR="1")
    assert b"\033" not in on_a_terminal(TERM="dumb")


def test_explain_a_pod_that_is_well(shared):
    text = cli(shared, "explain", shared.inside.key)
    order = ["of its namespace: istio.io/dataplane-mode=ambient", "it belongs to the mesh", "network namespace",
             "the redirection stands", "has accepted the pod as shop, service account account", "15008 (ipv4 ipv6)",
             f"{shared.inside.address} and {shared.inside.address6} stand", "ambient.istio.io/redirection: enabled",
             "nothing is wrong with it on this node"]
    places = [text.index(part) for part in order]
    assert places == sorted(places) and "Next:" not in text
    whole = json.loads(cli(shared, "explain", "-o", "json", shared.inside.key))
    assert whole["healthy"] is True and whole["seen"]["namespaceLabels"] == {"istio.io/dataplane-mode": "ambient"}


def test_explain_a_pod_outside(shared):
    text = cli(shared, "explain", shared.outside.key)
    assert "no enablement selector matches" in text and "outside the mesh, as it should be" in text
    assert "Next: ambient-installer preview other" in text


def test_a_pod_that_is_not_here(shared):
    text = cli(shared, "explain", "shop/elsewhere", status=1)
    assert "no pod shop/elsewhere on this node" in text and "kubectl get pod -o wide -n shop elsewhere" in text
    assert "no pod shop/elsewhere" in cli(shared, "verify", "shop/elsewhere", status=1)
    assert "no pod shop/elsewhere" in cli(shared, "pause", "shop/elsewhere", "--for", "1m", status=1)


@pytest.mark.parametrize("arguments", [
    ["status", "extra"], ["status", "-o", "yaml"], ["status", "--bogus"], ["explain"], ["explain", "a/b", "c/d"], ["explain", "cart"],
    ["explain", "a/b/c"], ["explain", "/b"], ["explain", "a/"], ["verify", "cart"], ["verify", "a/b", "c/d"], ["pause", "a/b"],
    ["pause", "--for", "1m"], ["pause", "a/b", "--for", "soon"], ["pause", "a/b", "--for", "25h"], ["pause", "a/b", "--for", "-1"],
    ["pause", "a/b", "--for", "99999999999999999999h"], ["pause", "cart", "--for", "1m"]])
def test_wrong_arguments(shared, arguments):
    text = cli(shared, *arguments, status=2)
    assert arguments[0] in text and len(text.splitlines()) == 1


def test_a_name_from_the_command_line_stays_a_name(shared):
    for name in ("shop/../../status", "shop/a?verify=1", "shop/%2e%2e", "shop/a b\r\nX: y"):
        subprocess.run([str(INSTALLER), "explain", name, "--set", f"runDir={shared.run_dir}"], capture_output=True, text=True,
                       timeout=20, check=False)
        done = subprocess.run([str(INSTALLER), "explain", name, "--set", f"runDir={shared.run_dir}"], capture_output=True,
                              text=True, timeout=20)
        assert done.returncode in (1, 2) and "\r" not in done.stderr, name


def test_verify(shared):
    assert cli(shared, "verify") == f"{shared.inside.key}: as it should be\n"
    assert cli(shared, "verify", shared.outside.key) == f"{shared.outside.key}: as it should be: outside the mesh\n"
    assert json.loads(cli(shared, "verify", "-o", "json"))[0]["asItShouldBe"] is True


def test_verify_a_namespace_without_an_agent(shared):
    done = subprocess.run([str(INSTALLER), "verify", "--netns", shared.inside.path], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, f"{shared.inside.path}: as it should be\n")
    done = subprocess.run([str(INSTALLER), "verify", "--netns", shared.outside.path], capture_output=True, text=True)
    assert done.returncode == 3 and "is missing" in done.stdout


def test_a_difference_is_shown_and_a_pause_is_told(node):
    pod = node.pod()
    node.wait_for("enabled")
    assert "is not repaired for 10 min" in cli(node, "pause", pod.key, "--for", "10m")
    pod.netns.run("nft", "flush", "chain", "inet", "ambient-cni", "output-redirect")
    text = cli(node, "verify", status=3)
    assert text.startswith(f"{pod.key}: ") and "output-redirect" in text and "repair is paused by hand" in text
    text = cli(node, "explain", pod.key, status=3)
    assert "The first thing that is wrong: the kernel has something else" in text and "paused by hand for another 9 min" in text
    assert f"Next: ambient-installer pause {pod.key} --for 0" in text
    assert "repaired again" in cli(node, "pause", pod.key, "--for", "0")
    eventually(lambda: node.get(f"/pods/{pod.key}?verify=1")["rules"]["difference"] == "")
    assert cli(node, "verify") == f"{pod.key}: as it should be\n"


def test_verify_as_a_diff(node):
    """Every rule that is missing, and every one that should not be there, in the place where it is."""
    pod, other = node.pod(), node.pod()
    node.wait_for("enabled")
    whole = subprocess.run([str(INSTALLER), "render"], capture_output=True, text=True, check=True).stdout
    for one in (pod, other):
        cli(node, "pause", one.key, "--for", "10m")
    chain = re.search(r"chain output-redirect \{\n\t\ttype.*\n((?:\t\t.*\n)+)", whole)[1]
    rules = [line.strip() for line in chain.splitlines()]
    # A rule of somebody else's at the beginning and one at the end, ours at the end deleted; and a whole chain of theirs.
    handles = re.findall(r"# handle (\d+)$", pod.netns.run("nft", "-a", "list", "chain", "inet", "ambient-cni", "output-redirect"), re.M)
    pod.netns.nft(f"delete rule inet ambient-cni output-redirect handle {handles[-1]}\n"
                  "insert rule inet ambient-cni output-redirect tcp dport 1 accept\n"
                  "add rule inet ambient-cni output-redirect tcp dport 2 drop\n"
                  "add chain inet ambient-cni theirs\n")
    text = cli(node, "verify", pod.key, status=3)
    assert text.startswith(f"{pod.key}: chain output-redirect: ") or text.startswith(f"{pod.key}: chain theirs should not be there"), text
    lines = text.splitlines()[1:]
    assert lines[0] == "    chain output-redirect" and lines[-1] == "  + chain theirs", text
    signs = [line[2] for line in lines[1:-1]]
    assert sorted(signs) == ["+", "+", "-"], text
    assert re.match(r"  \+   \[ .*0x00000100.*\]$", lines[1]), text  # dport 1, at its place: first
    (missing,) = [line for line in lines if line[2] == "-"]
    assert missing[4:].strip() == rules[-1], (missing, rules)
    found = json.loads(cli(node, "verify", "-o", "json", pod.key, status=3))[0]
    assert found["diff"] == [line[2:] for line in lines]
    # Its own eyes, without an agent, see the same.
    done = subprocess.run([str(INSTALLER), "verify", "--netns", pod.path], capture_output=True, text=True, check=False)
    assert done.returncode == 3 and done.stdout.splitlines()[1:] == lines
    # Everything is gone; a route is gone: that has no rule to show.
    pod.netns.run("nft", "delete", "table", "inet", "ambient-cni")
    assert cli(node, "verify", pod.key, status=3).splitlines()[1:] == ["  - table inet ambient-cni"]
    other.netns.run("ip", "route", "flush", "table", "100")
    (line,) = cli(node, "verify", other.key, status=3).splitlines()[1:]
    assert line.startswith("  ! ") and "100" in line


def test_without_a_tunnel(node):
    enrolled = node.pod()
    node.wait_for("enabled")
    node.tunnel.stop()
    node.tunnel = None
    waiting = node.pod()
    eventually(lambda: waiting.view() and waiting.view()["rules"]["stage"] == "guard")
    text = cli(node, "status", status=3)
    assert "none is connected at" in text and text.index(waiting.key) < text.index(enrolled.key)
    text = cli(node, "explain", waiting.key, status=3)
    assert "guard and routes stand, redirects do not" in text and "goes on as before" in text
    assert "Next: kubectl get pods -n istio-system -l app=ztunnel" in text
    text = cli(node, "explain", enrolled.key, status=3)
    assert "the pod is enrolled and no tunnel is connected" in text
    text = cli(node, "verify", status=3)
    assert f"{enrolled.key}: as it should be" in text and f"{waiting.key}: it belongs to the mesh and" in text


def test_a_pod_whose_namespace_is_not_found(node):
    pod = node.pod(show=False)
    pod.path = str(node.folder / "not-there")
    pod.show()
    node.wait_for("failed")
    text = cli(node, "explain", pod.key, status=3)
    assert "its network namespace is not known" in text and "The first thing that is wrong: " in text
    assert 'not-there: No such file or directory (step "namespace", tried again until it works)' in text
    text = cli(node, "status", status=3)
    assert "1 failed" in text and re.search(f"^{pod.key} .*not-there: No such file", text, re.M)
    assert f"{pod.key}: it belongs to the mesh and" in cli(node, "verify", status=3)


def test_no_agent(tmp_path):
    for command in (["status"], ["explain", "a/b"], ["verify"], ["pause", "a/b", "--for", "1m"]):
        done = subprocess.run([str(INSTALLER), *command, "--set", f"runDir={tmp_path}"], capture_output=True, text=True)
        assert done.returncode == 1 and done.stdout == ""
        (line,) = done.stderr.splitlines()
        assert f"no node agent answers at {tmp_path}/admin.sock (No such file or directory)" in line and "kubectl get pods" in line
