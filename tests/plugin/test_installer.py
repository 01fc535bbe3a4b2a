"""Enrollment installer: plugin and node agent, the agent being a strict double. What the pod gets, what is taken back, and how
long anybody waits."""
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time

import pytest

from .conftest import pod_arguments
from .installer_double import REDIRECT_TOOL, enrol

POD = pod_arguments()
RESULT = {"cniVersion": "1.1.0", "interfaces": [{"name": "host0"}, {"name": "eth0", "sandbox": "/some/where"}],
          "ips": [{"address": "10.1.2.3/24", "interface": 1, "gateway": "10.1.2.1"}, {"address": "fd00::3/64", "interface": 1},
                  {"address": "192.0.2.1/24", "interface": 0}],
          "dns": {}}
REDIRECTION = {"dnsCapture": False, "virtualInterfaces": ["eth7"],
               "exclude": {"outboundPorts": [1, "5-9"], "outboundRanges": ["10.0.0.0/8", "fd00::/8"]}}


def verify(pod, **redirect):
    done = subprocess.run([str(REDIRECT_TOOL), "verify", "--netns", pod.path, "--redirect", json.dumps(redirect)],
                          capture_output=True, text=True, check=False)
    assert done.returncode in (0, 3), done
    return done.stdout.strip()


def add(plugin, pod, **more):
    return plugin.call("ADD", pod, **{"args": POD, **more})


def refused(plugin, pod, before, code, *words, **more):
    """An ADD that fails with this code and these words, and leaves nothing."""
    answer = add(plugin, pod, **more)
    assert answer.code == code, answer
    assert all(word in answer.message for word in words), answer
    assert pod.state() == before and plugin.attachments() == []
    return answer


def test_a_pod_of_the_mesh(plugin, agent, pod):
    agent.behaviours = [lambda conversation: enrol(conversation, **REDIRECTION)]
    answer = add(plugin, pod, config={"prevResult": RESULT})
    assert answer.status == 0 and answer.json == RESULT
    assert verify(pod, **REDIRECTION) == ""
    attachment = dict(agent.conversations[0].attachment)
    status = os.stat(pod.path)
    assert attachment.pop("netns") == {"device": str(status.st_dev), "inode": str(status.st_ino)}
    # The address of an interface that stands on the host is not the pod's.
    assert attachment == {"network": "podnet", "containerID": "sandbox1", "interface": "eth0", "netnsPath": pod.path,
                          "podNamespace": "shop", "podName": "cart", "podUID": "0a1b", "addresses": ["10.1.2.3", "fd00::3"],
                          "enrolled": False}


def test_success_is_told_only_when_the_tunnel_has_acknowledged(plugin, agent, pod):
    acknowledge, reported = threading.Event(), threading.Event()

    def slow_tunnel(conversation):
        conversation.redirect()
        reported.set()
        assert acknowledge.wait(20)
        conversation.accept()

    agent.behaviours = [slow_tunnel]
    process = plugin.start("ADD", pod, args=POD, config={"timeoutSeconds": 30})
    process.stdin.write(process.text)
    process.stdin.close()
    process.stdin = None
    process.text = None
    assert reported.wait(20)
    time.sleep(0.05)
    assert process.poll() is None
    acknowledge.set()
    assert plugin.finish(process).status == 0
    assert verify(pod) == ""


def test_a_pod_outside_the_mesh(plugin, agent, pod):
    before = pod.state()
    agent.behaviours = [lambda conversation: conversation.skip("label istio.io/dataplane-mode=none of the pod")]
    answer = add(plugin, pod, config={"prevResult": RESULT, "logLevel": "debug"})
    assert answer.status == 0 and answer.json == RESULT
    assert "outside the mesh: label istio.io/dataplane-mode=none" in answer.stderr
    assert pod.state() == before


def test_a_pod_outside_loses_what_a_killed_add_left(plugin, agent, pod):
    before = pod.state()
    plugin.add(pod, config={"enrollment": "always", "runDir": str(plugin.run_dir) + "-other"})
    agent.behaviours = [lambda conversation: conversation.skip()]
    assert add(plugin, pod).status == 0
    assert pod.state() == before


def test_a_sandbox_that_is_no_pod_is_not_asked_about(plugin, agent, pod):
    before = pod.state()
    for arguments in (None, "IgnoreUnknown=1", "K8S_POD_NAME=x", "K8S_POD_NAMESPACE=x;K8S_POD_NAME="):
        assert plugin.call("ADD", pod, args=arguments).status == 0
    assert agent.conversations == [] and pod.state() == before


def test_refused_before_anything_was_done(plugin, agent, pod):
    before = pod.state()
    agent.behaviours = [lambda conversation: conversation.refuse(11, "the tunnel is not connected", details="retry")]
    refused(plugin, pod, before, 11, "the tunnel is not connected", "retry")


def test_the_tunnel_refuses(plugin, agent, pod):
    before = pod.state()

    def tunnel_refuses(conversation):
        conversation.redirect()
        conversation.refuse(102, "the tunnel refused the pod", details="no listener")

    agent.behaviours = [tunnel_refuses]
    refused(plugin, pod, before, 102, "the tunnel refused the pod")
    # The next one succeeds.
    assert add(plugin, pod).status == 0 and verify(pod) == ""


def test_container_unknown_is_never_told_on_add(plugin, agent, pod):
    """It would mean that nothing is to be cleaned up."""
    agent.behaviours = [lambda conversation: conversation.refuse(3, "no such container")]
    refused(plugin, pod, pod.state(), 999, "no such container")


def test_rules_that_the_kernel_refuses_are_reported(plugin, agent, pod):
    before, reports = pod.state(), []
    agent.behaviours = [lambda conversation: reports.append(conversation.redirect())]
    refused(plugin, pod, before, 100, "shop/cart", "not permitted",
            wrapper=("setpriv", "--bounding-set", "-net_admin", "--inh-caps", "-net_admin"))
    agent.close()
    assert "not permitted" in reports[0]["error"]


def never(conversation):
    conversation.wait_for_end()


def never_a_result(conversation):
    conversation.redirect()
    conversation.wait_for_end()


@pytest.mark.parametrize("behaviour", [never, never_a_result])
def test_an_agent_that_does_not_answer(plugin, agent, pod, behaviour):
    before = pod.state()
    agent.otherwise = behaviour
    started = time.monotonic()
    refused(plugin, pod, before, 11, "did not answer within 1 s (timeoutSeconds)", config={"timeoutSeconds": 1})
    assert 0.9 < time.monotonic() - started < 8


def closes(conversation):
    conversation.connection.close()


def closes_after_the_decision(conversation):
    conversation.send("decision", decision="redirect", redirect={})
    conversation.connection.close()


def closes_after_the_report(conversation):
    conversation.redirect(dnsCapture=False)
    conversation.connection.close()


CLOSING = [closes, closes_after_the_decision, closes_after_the_report]


@pytest.mark.parametrize("behaviour", CLOSING)
def test_a_connection_lost_in_the_middle_is_made_again(plugin, agent, pod, behaviour):
    """closes_after_the_report: rules of the first conversation stand when the second begins, and are replaced."""
    def again(conversation):
        conversation.redirect(**REDIRECTION)
        conversation.accept()

    agent.behaviours = [behaviour, behaviour, again]
    assert add(plugin, pod, config={"timeoutSeconds": 20}).status == 0
    assert len(agent.conversations) == 3 and verify(pod, **REDIRECTION) == ""


@pytest.mark.parametrize("behaviour", CLOSING)
def test_a_connection_lost_for_good(plugin, agent, pod, behaviour):
    before = pod.state()

    def last(conversation):
        agent.go_away()
        behaviour(conversation)

    agent.behaviours = [last]
    started = time.monotonic()
    refused(plugin, pod, before, 11, "was not back within 1 s", config={"timeoutSeconds": 1})
    assert 0.9 < time.monotonic() - started < 8
    assert len(agent.conversations) == 1


@pytest.mark.parametrize("behaviour", CLOSING)
def test_an_agent_that_restarts_in_the_middle(plugin, agent, pod, behaviour):
    def restarts(conversation):
        agent.go_away(leave_socket=behaviour is closes)
        behaviour(conversation)
        time.sleep(0.2)
        agent.listen()

    agent.behaviours = [restarts]
    assert add(plugin, pod, config={"timeoutSeconds": 20}).status == 0
    assert len(agent.conversations) == 2 and verify(pod) == ""


def test_a_pod_that_is_outside_after_a_restart(plugin, agent, pod):
    """The rules of the first conversation go."""
    before = pod.state()
    agent.behaviours = [closes_after_the_report, lambda conversation: conversation.skip()]
    assert add(plugin, pod).status == 0
    assert pod.state() == before


def test_an_agent_of_the_next_version_that_understands_ours(plugin, agent, pod):
    def newer(conversation):
        conversation.send("decision", version=2, decision="redirect", redirect={"dnsCapture": False}, reason="x", unknown=[1])
        conversation.receive("report")
        conversation.send("result", version=2, code=0, unknown={})

    agent.behaviours = [newer]
    assert add(plugin, pod).status == 0 and verify(pod, dnsCapture=False) == ""


def test_an_agent_of_a_version_that_does_not_understand_ours(plugin, agent, pod):
    agent.otherwise = lambda conversation: conversation.send("decision", version=3, minimum=2, decision="skip")
    refused(plugin, pod, pod.state(), 11, "speaks version 3", "this one speaks 1", "must be upgraded")


BROKEN = {
    "no JSON": b"nonsense",
    "cut JSON": b'{"type":"decision","version":1,"minimumVersion":1,"decision":"skip"',
    "no version": b'{"type":"decision","decision":"skip"}',
    "unknown type": b'{"type":"order","version":1,"minimumVersion":1}',
    "a report": b'{"type":"report","version":1,"minimumVersion":1}',
    "a good result without a decision": b'{"type":"result","version":1,"minimumVersion":1,"code":0}',
    "no redirect": b'{"type":"decision","version":1,"minimumVersion":1,"decision":"redirect"}',
    "a wrong redirect": b'{"type":"decision","version":1,"minimumVersion":1,"decision":"redirect","redirect":{"ipv6":"yes"}}',
    "too large": b'{"type":"decision","version":1,"minimumVersion":1,"decision":"skip","reason":"' + 70000 * b"x" + b'"}',
}


@pytest.mark.parametrize("packet", BROKEN)
def test_an_agent_that_breaks_the_protocol(plugin, agent, pod, packet):
    before = pod.state()
    agent.otherwise = lambda conversation: conversation.send_raw(BROKEN[packet])
    refused(plugin, pod, before, 11, "cannot talk to the node agent")
    assert len(agent.conversations) == 1


def test_an_agent_that_sends_a_descriptor(plugin, agent, pod):
    text = b'{"type":"decision","version":1,"minimumVersion":1,"decision":"skip"}'
    agent.otherwise = lambda conversation: conversation.send_raw(text, [0])
    refused(plugin, pod, pod.state(), 11, "1 descriptors, expected none")


def test_an_agent_that_breaks_the_protocol_after_the_report(plugin, agent, pod):
    before = pod.state()

    def decides_twice(conversation):
        conversation.redirect()
        conversation.skip()

    agent.otherwise = decides_twice
    refused(plugin, pod, before, 11, "another message than the result")


def test_an_agent_that_is_not_root(plugin, pod):
    """Somebody else's socket in our place is not talked to."""
    before = pod.state()
    with tempfile.TemporaryDirectory(prefix="ambient-plugin-") as folder:
        # pytest's own folders are closed to other users.
        os.chmod(folder, 0o777)
        plugin.run_dir = pathlib.Path(folder)
        plugin.config.update(enrollment="installer", runDir=folder)
        talk_to_a_stranger(plugin, pod, before)


def talk_to_a_stranger(plugin, pod, before):
    script = ("import socket, sys; s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET); s.bind(sys.argv[1]); s.listen();"
              "print('ready', flush=True); c = s.accept()[0]; c.recv(1)")
    stranger = subprocess.Popen(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", sys.executable, "-c",
                                 script, str(plugin.run_dir / "installer.sock")], stdout=subprocess.PIPE, text=True)
    try:
        assert stranger.stdout.readline() == "ready\n"
        refused(plugin, pod, before, 5, "has uid 65534", "only root")
    finally:
        stranger.kill()
        stranger.communicate()


def test_log_lines_reach_the_agent(plugin, agent, pod):
    add(plugin, pod, config={"logLevel": "debug"})
    plugin.call("DEL", "/no/where", args=POD, config={"logLevel": "debug"})
    agent.close()
    assert any("nothing to release there" in line for conversation in agent.conversations for line in conversation.log)


def test_a_result_that_nobody_reads_is_taken_back(plugin, agent, pod):
    """The runtime never learns of the ADD: the agent is told as well."""
    before = pod.state()
    with open("/dev/full", "wb") as full:
        process = plugin.start("ADD", pod, args=POD, stdout=full)
        assert plugin.finish(process).status == 1
    assert pod.state() == before and plugin.attachments() == []
    assert [conversation.kind for conversation in agent.conversations] == ["add", "del"]


# DEL, GC, CHECK and STATUS.

def test_del_tells_the_agent_and_removes(plugin, agent, pod):
    before = pod.state()
    add(plugin, pod)
    for netns in (pod, None):
        assert plugin.call("DEL", netns, args=POD).status == 0
        assert pod.state() == before
    assert [conversation.kind for conversation in agent.conversations] == ["add", "del", "del"]
    assert "netns" not in agent.conversations[2].attachment


def test_del_when_the_agent_disagrees_or_is_silent(plugin, agent, pod):
    before = pod.state()
    for behaviour in (lambda conversation: conversation.refuse(999, "out of order"), closes, never,
                      lambda conversation: conversation.send_raw(b"nonsense")):
        agent.behaviours = []
        assert add(plugin, pod).status == 0
        agent.behaviours = [behaviour] * 4  # one whose connection is lost asks again
        answer = plugin.call("DEL", pod, args=POD, config={"timeoutSeconds": 1})
        assert answer.status == 0 and answer.stdout == "", answer
        assert "the node agent" in answer.stderr
        assert pod.state() == before


def test_del_whose_connection_is_lost_is_told_to_the_successor(plugin, agent, pod):
    before = pod.state()
    add(plugin, pod)
    agent.behaviours = [closes]
    assert plugin.call("DEL", pod, args=POD).status == 0
    assert [conversation.kind for conversation in agent.conversations] == ["add", "del", "del"]
    assert pod.state() == before


def test_del_while_the_agent_is_away(plugin, agent, pod):
    before = pod.state()
    add(plugin, pod)
    agent.go_away()
    assert plugin.call("DEL", pod, args=POD).status == 0
    assert pod.state() == before


def test_gc_tells_the_agent_what_is_valid(plugin, agent):
    for valid in (None, ...):
        assert plugin.call("GC", config={"cni.dev/valid-attachments": valid}).status == 0
    assert agent.conversations == []
    valid = [{"containerID": "a", "ifname": "eth0"}, {"containerID": "b", "ifname": "net1"}]
    for attachments in (valid, []):
        assert plugin.call("GC", config={"cni.dev/valid-attachments": attachments}).status == 0
    assert [(conversation.request["network"], conversation.request["valid"]) for conversation in agent.conversations] == [
        ("podnet", [{"containerID": "a", "interface": "eth0"}, {"containerID": "b", "interface": "net1"}]), ("podnet", [])]
    agent.go_away()
    assert plugin.call("GC", config={"cni.dev/valid-attachments": valid}).status == 0


def remember(plugin, pod, enrolled, **redirect):
    """What the agent writes when an ADD succeeded, and when it releases the pod."""
    folder = plugin.run_dir / "attachments"
    folder.mkdir(parents=True, exist_ok=True)
    status = os.stat(pod.path)
    content = {"version": 1, "network": "podnet", "containerID": "sandbox1", "interface": "eth0", "netnsPath": pod.path,
               "netns": {"device": str(status.st_dev), "inode": str(status.st_ino)}, "addresses": [], "enrolled": enrolled}
    if enrolled:
        content["redirect"] = redirect
    (folder / "sandbox1:eth0.json").write_text(json.dumps(content))


def test_check_needs_no_agent(plugin, agent, pod):
    agent.behaviours = [lambda conversation: enrol(conversation, **REDIRECTION)]
    add(plugin, pod)
    remember(plugin, pod, True, **REDIRECTION)
    agent.go_away()
    assert plugin.call("CHECK", pod, args=POD).status == 0
    # Other rules than those in force.
    remember(plugin, pod, True)
    answer = plugin.call("CHECK", pod, args=POD)
    assert answer.code == 101 and "sandbox1" in answer.message, answer
    # Released since: whatever stands there.
    remember(plugin, pod, False)
    assert plugin.call("CHECK", pod, args=POD).status == 0
    # Never enrolled.
    assert plugin.call("CHECK", pod, args=POD, container="other").status == 0


def test_check_with_a_file_that_cannot_be_understood(plugin, agent, pod):
    folder = plugin.run_dir / "attachments"
    folder.mkdir(parents=True)
    (folder / "sandbox1:eth0.json").write_text("{")
    answer = plugin.call("CHECK", pod, args=POD)
    assert answer.code == 5 and "set aside" in answer.message, answer
    assert plugin.attachments() == ["sandbox1:eth0.json.corrupt"]
    assert plugin.call("CHECK", pod, args=POD).status == 0
    assert agent.conversations == []


def test_status_does_not_need_the_agent(plugin, agent):
    agent.go_away()
    for enrollment in ("installer", "always"):
        assert plugin.call("STATUS", config={"enrollment": enrollment}).status == 0


def test_status_without_permission(plugin):
    for caps in ("-sys_admin", "-net_admin"):
        answer = plugin.call("STATUS", wrapper=("setpriv", "--bounding-set", caps, "--inh-caps", caps))
        assert answer.code == 50 and "not permitted" in answer.message, answer


# The agent is away.

def outside(plugin, *namespaces, **more):
    plugin.run_dir.mkdir(parents=True, exist_ok=True)
    (plugin.run_dir / "outside.json").write_text(json.dumps({"version": 1, "time": 1, "namespaces": [
        {"name": name, "uid": "u", "hasEnrolledPod": enrolled} for name, enrolled in namespaces], **more}))


@pytest.fixture(params=["no socket", "nobody listens", "no folder"])
def away(request, plugin, pod):
    """The agent is away, which is decided at once: the time-out is longer than the test may take."""
    plugin.config.update(enrollment="installer", timeoutSeconds=300)
    if request.param == "nobody listens":
        from .installer_double import Installer
        Installer(plugin.run_dir).go_away(leave_socket=True)
    elif request.param == "no socket":
        plugin.run_dir.mkdir()
    before = pod.state()
    yield plugin
    assert pod.state() == before and plugin.attachments() == []


@pytest.mark.parametrize("arguments, config", [
    (pod_arguments("kube-system", "coredns"), {}),
    (pod_arguments("lonely", "x"), {"excludeNamespaces": ["other", "lonely"]}),
    (pod_arguments("istio-system", "istio-cni-node-x7z"), {}),
    (pod_arguments("mesh", "istio-cni-node-x7z"), {"systemNamespace": "mesh"}),
    (pod_arguments("agents", "ambient-1"), {"installerNamespace": "agents", "installerPodPrefix": "ambient-"}),
])
@pytest.mark.parametrize("when_away", ["outside", "closed"])
def test_away_pods_that_are_never_selected_start(away, pod, arguments, config, when_away):
    assert away.call("ADD", pod, args=arguments, config={**config, "whenAway": when_away}).status == 0


@pytest.mark.parametrize("arguments, config", [
    (pod_arguments("kube-system", "coredns"), {"excludeNamespaces": []}),
    (pod_arguments("istio-system", "ztunnel-x7z"), {}),
    (pod_arguments("shop", "istio-cni-node-x7z"), {}),
    (pod_arguments("istio-system", "istio-cni-node-x7z"), {"installerNamespace": "agents"}),
])
def test_away_others_wait(away, pod, arguments, config):
    answer = away.call("ADD", pod, args=arguments, config=config)
    assert answer.code == 11 and "has to wait" in answer.message and "no outside.json" in answer.message, answer


def test_away_what_is_known_to_be_outside_starts(plugin, pod):
    plugin.config.update(enrollment="installer", timeoutSeconds=300)
    outside(plugin, ("shop", False), ("labelled-once", True))
    assert add(plugin, pod).status == 0
    for name, config, words in (("labelled-once", {}, "not known to be outside"), ("elsewhere", {}, "not known to be outside"),
                                ("shop", {"whenAway": "closed"}, "whenAway is closed")):
        answer = plugin.call("ADD", pod, args=pod_arguments(name), config=config)
        assert answer.code == 11 and words in answer.message, answer
    assert not pod.is_redirected()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"version": 2, "namespaces": []}', '{"version": 1, "namespaces": [{"name": 5}]}',
                                  '{"version": 1, "namespaces": {}}'])
def test_away_a_file_that_cannot_be_understood_knows_nothing(plugin, pod, text):
    plugin.config.update(enrollment="installer")
    plugin.run_dir.mkdir()
    (plugin.run_dir / "outside.json").write_text(text)
    answer = add(plugin, pod)
    assert answer.code == 11 and "outside" in answer.message, answer
    # The agent writes it anew; the plugin leaves it for a person to look at.
    assert (plugin.run_dir / "outside.json").read_text() == text


def test_away_leftovers_of_a_killed_add_go(plugin, pod):
    before = pod.state()
    plugin.add(pod, config={"runDir": str(plugin.run_dir) + "-other"})
    plugin.config["enrollment"] = "installer"
    outside(plugin, ("shop", False))
    assert add(plugin, pod).status == 0
    assert pod.state() == before
