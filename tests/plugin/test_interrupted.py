"""ADDs at the same time, killed ADDs, and ADDs in which a call into the kernel fails: what is left is whole, or nothing."""
import json
import os
import re
import shutil
import signal
import threading

import pytest

from .conftest import pod_arguments
from .installer_double import Installer
from .test_installer import verify

POD = pod_arguments()
# The leak checker can't look into a process that strace watches.
WATCHED = {"ASAN_OPTIONS": ":".join(filter(None, (os.environ.get("ASAN_OPTIONS"), "detect_leaks=0")))}


def run_all(plugin, calls):
    """Starts all, then waits for all."""
    processes = [plugin.start(verb, pod, **more) for verb, pod, more in calls]
    for process in processes:
        process.stdin.write(process.text)
        process.stdin.close()
        process.stdin = None
        process.text = None
    return [plugin.finish(process) for process in processes]


def test_fifty_adds_at_a_time(plugin, new_namespace):
    pods = [new_namespace() for _ in range(50)]
    before = pods[0].state()
    answers = run_all(plugin, [("ADD", pod, {"container": f"sandbox{number}"}) for number, pod in enumerate(pods)])
    assert [answer.status for answer in answers] == [0] * 50, answers
    assert all(verify(pod) == "" for pod in pods)
    assert len(plugin.attachments()) == 50
    answers = run_all(plugin, [("DEL", pod, {"container": f"sandbox{number}"}) for number, pod in enumerate(pods)])
    assert [answer.status for answer in answers] == [0] * 50, answers
    assert plugin.attachments() == [] and pods[0].state() == before and not any(pod.is_redirected() for pod in pods)


def test_fifty_adds_at_a_time_with_the_installer(plugin, agent, new_namespace):
    pods = [new_namespace() for _ in range(50)]
    ready = threading.Barrier(50)

    def all_together(conversation):
        # Nobody gets a result before everybody has rules: no conversation may hold another one up.
        conversation.redirect()
        ready.wait(30)
        conversation.accept()

    agent.otherwise = all_together
    answers = run_all(plugin, [("ADD", pod, {"container": f"sandbox{number}", "config": {"timeoutSeconds": 60},
                                             "args": pod_arguments(name=f"pod-{number}")})
                               for number, pod in enumerate(pods)])
    assert [answer.status for answer in answers] == [0] * 50, answers
    assert all(verify(pod) == "" for pod in pods)


def test_two_interfaces_of_one_pod_at_once(plugin, pod):
    """A meta plugin calls ADD for each; the rules are the namespace's and go with the last."""
    before = pod.state()
    interfaces = [f"net{number}" for number in range(12)]
    answers = run_all(plugin, [("ADD", pod, {"interface": interface}) for interface in interfaces])
    assert [answer.status for answer in answers] == [0] * 12, answers
    assert verify(pod) == "" and len(plugin.attachments()) == 12
    answers = run_all(plugin, [("DEL", pod, {"interface": interface}) for interface in interfaces[1:]])
    assert [answer.status for answer in answers] == [0] * 11
    assert verify(pod) == "" and plugin.attachments() == ["sandbox1:net0.json"]
    assert plugin.call("DEL", pod, interface="net0").status == 0
    assert pod.state() == before


def system_calls(plugin, tmp_path, pod, verb, **more):
    """The system calls that a call of the plugin makes, by name, from the one that reads the configuration on."""
    trace = tmp_path / "trace"
    answer = plugin.call(verb, pod, wrapper=("strace", "-o", str(trace)), changes=WATCHED, **more)
    assert answer.status == 0, answer
    calls = [match[1] for line in trace.read_text().splitlines() if (match := re.match(r"(\w+)\(", line))]
    first = max(index for index, line in enumerate(line for line in trace.read_text().splitlines() if re.match(r"\w+\(", line))
                if line.startswith("read(0,"))
    return calls, first


@pytest.mark.parametrize("part", range(4))
@pytest.mark.parametrize("enrollment", ["always", "installer"])
def test_killed_at_any_system_call(plugin, tmp_path, new_namespace, enrollment, part):
    """The next ADD completes what stands there; a DEL removes it, whatever was written by then."""
    plugin.config["enrollment"] = enrollment
    installer = Installer(plugin.run_dir) if enrollment == "installer" else None
    pod = new_namespace()
    before = pod.state()

    def forget_marks():
        """Each call makes them anew, as the first one of a new version does: a kill in the middle of that is one of many."""
        shutil.rmtree(plugin.run_dir / "namespaces", ignore_errors=True)

    assert plugin.call("ADD", pod, args=POD).status == 0 and plugin.call("DEL", pod, args=POD).status == 0
    forget_marks()
    calls, first = system_calls(plugin, tmp_path, pod, "ADD", args=POD)
    assert plugin.call("DEL", pod, args=POD).status == 0 and pod.state() == before
    interesting = [number for number in range(first + 1, len(calls) + 1)
                   if calls[number - 1] not in ("brk", "mmap", "munmap", "rt_sigaction", "clock_gettime")]
    killed = 0
    for turn, number in enumerate(interesting[part::4]):
        name = calls[number - 1]
        nth = calls[:number].count(name)
        forget_marks()
        answer = plugin.call("ADD", pod, args=POD, changes=WATCHED,
                             wrapper=("strace", "-o", "/dev/null", "-e", f"trace={name}",
                                      "-e", f"inject={name}:signal=SIGKILL:when={nth}"))
        killed += answer.status == -signal.SIGKILL
        if turn % 2 == 0:
            assert plugin.call("ADD", pod, args=POD).status == 0
            assert verify(pod) == ""
        # Whether the runtime knows the namespace still or not: where the killed one left no attachment, it does.
        remembered = "sandbox1:eth0.json" in plugin.attachments()
        assert plugin.call("DEL", None if remembered and turn % 4 < 2 else pod, args=POD).status == 0
        assert pod.state() == before, f"left after a kill at {name} number {nth}"
        assert "sandbox1:eth0.json" not in plugin.attachments()
    assert killed >= len(interesting) // 4 - 2  # the last of all is exit_group
    if installer is not None:
        installer.go_away()
        # A conversation that ends in the middle is what this is about; everything else must be right.
        assert not installer.problems, installer.problems[0]


KERNEL = ("socket", "bind", "setsockopt", "sendto", "sendmsg", "recvfrom", "recvmsg", "setns", "open", "openat", "write", "fsync",
          "rename", "mkdir", "fchmod", "ioctl", "fstatfs", "connect", "getsockname")


@pytest.mark.parametrize("number", ["ENOMEM", "EPERM", "EINTR"])
@pytest.mark.parametrize("enrollment", ["always", "installer"])
def test_a_system_call_that_fails(plugin, tmp_path, new_namespace, enrollment, number):
    """Each call into the kernel fails once: the ADD succeeds all the same, or leaves nothing and says what failed."""
    plugin.config["enrollment"] = enrollment
    installer = Installer(plugin.run_dir) if enrollment == "installer" else None
    pod = new_namespace()
    before = pod.state()
    calls, first = system_calls(plugin, tmp_path, pod, "ADD", args=POD)
    assert plugin.call("DEL", pod, args=POD).status == 0
    for position in range(first, len(calls)):
        name = calls[position]
        if name not in KERNEL:
            continue
        nth = calls[:position + 1].count(name)
        answer = plugin.call("ADD", pod, args=POD, changes=WATCHED,
                             wrapper=("strace", "-o", "/dev/null", "-e", f"trace={name}",
                                      "-e", f"inject={name}:error={number}:when={nth}"))
        what = f"{name} number {nth} with {number}"
        if answer.status == -signal.SIGABRT:
            # The way back from the pod's namespace: there is no going on in the wrong one.
            assert name == "setns", what
            assert plugin.call("DEL", pod, args=POD).status == 0
        elif answer.status == 0:
            assert verify(pod) == "", what
            assert plugin.call("DEL", pod, args=POD).status == 0
        elif name != "write":  # the result itself may be what could not be written
            assert answer.code in (4, 5, 8, 11, 100, 999), (what, answer)
        assert pod.state() == before, what
        assert "sandbox1:eth0.json" not in plugin.attachments(), what
    if installer is not None:
        installer.go_away()


def test_no_memory(plugin, pod):
    """Whatever the limit: a result, or an error and nothing left."""
    before, statuses = pod.state(), set()
    if "ASAN_OPTIONS" in os.environ:
        limits = []  # its shadow alone is larger; test_allocations fails each allocation there
    else:
        limits = range(3 << 20, 12 << 20, 256 << 10)
    for limit in limits:
        answer = plugin.call("ADD", pod, wrapper=("prlimit", f"--as={limit}"))
        statuses.add(answer.status)
        if answer.status == 0:
            assert verify(pod) == ""
            assert plugin.call("DEL", pod).status == 0
        assert pod.state() == before and plugin.attachments() == []


def collect(plugin, valid):
    answer = plugin.call("GC", config={"cni.dev/valid-attachments": valid})
    assert answer.status == 0 and answer.stdout == "", answer


def test_gc_removes_what_no_runtime_knows(plugin, new_namespace):
    pods = [new_namespace() for _ in range(4)]
    before = pods[0].state()
    for number, pod in enumerate(pods[:3]):
        plugin.add(pod, container=f"sandbox{number}")
    plugin.add(pods[3], container="sandbox3", config={"name": "another-network"})
    collect(plugin, None)
    assert len(plugin.attachments()) == 4
    collect(plugin, [{"containerID": f"sandbox{number}", "ifname": "eth0"} for number in (0, 2)])
    assert plugin.attachments() == ["sandbox0:eth0.json", "sandbox2:eth0.json", "sandbox3:eth0.json"]
    assert pods[1].state() == before and pods[0].is_redirected() and pods[2].is_redirected()
    # The right sandbox, another interface.
    collect(plugin, [{"containerID": "sandbox0", "ifname": "net1"}, {"containerID": "sandbox2", "ifname": "eth0"}])
    assert plugin.attachments() == ["sandbox2:eth0.json", "sandbox3:eth0.json"] and pods[0].state() == before
    # A namespace that is gone.
    pods[2].remove()
    collect(plugin, [])
    assert plugin.attachments() == ["sandbox3:eth0.json"] and pods[3].is_redirected()


def test_gc_of_a_path_that_leads_to_another_namespace_by_now(plugin, new_namespace, tmp_path):
    """It is another sandbox's: not touched."""
    old, new = new_namespace(), new_namespace()
    link = tmp_path / "netns"
    link.symlink_to(old.path)
    plugin.add(str(link))
    plugin.add(new, container="sandbox2", config={"runDir": str(plugin.run_dir) + "-other"})
    link.unlink()
    link.symlink_to(new.path)
    collect(plugin, [])
    assert plugin.attachments() == [] and verify(new) == ""


def test_a_late_del_of_an_old_sandbox(plugin, new_namespace, tmp_path):
    """The path names the new sandbox by now."""
    old, new = new_namespace(), new_namespace()
    link = tmp_path / "netns"
    link.symlink_to(old.path)
    plugin.add(str(link), container="old")
    link.unlink()
    link.symlink_to(new.path)
    plugin.add(str(link), container="new")
    assert plugin.call("DEL", str(link), container="old").status == 0
    assert verify(new) == "" and plugin.attachments() == ["new:eth0.json"]
    assert plugin.call("CHECK", str(link), container="new").status == 0


@pytest.mark.parametrize("marks", ["ours", "none", "half of them"])
def test_two_sandboxes_of_one_namespace(plugin, new_namespace, marks):
    """The rules go with the last of them, whether the version that wrote the attachments marked namespaces or not."""
    pod, other = new_namespace(), new_namespace()
    before = pod.state()
    plugin.add(pod, container="first")
    if marks == "half of them":
        shutil.rmtree(plugin.run_dir / "namespaces")
    plugin.add(pod, container="second")
    if marks == "none":
        shutil.rmtree(plugin.run_dir / "namespaces")
        plugin.add(other, container="third")
    for container in ("first", "nobody"):
        assert plugin.call("DEL", pod, container=container).status == 0
        assert verify(pod) == ""
    assert plugin.call("DEL", pod, container="second").status == 0
    assert pod.state() == before
    assert plugin.call("DEL", other, container="third").status == 0
    assert not any((plugin.run_dir / "namespaces").iterdir())


def test_what_is_remembered_is_the_configuration_of_the_add(plugin, pod):
    """CHECK compares with what was applied then, whatever the configuration says by now."""
    plugin.add(pod, config={"redirect": {"dnsCapture": False}})
    assert plugin.call("CHECK", pod, config={"redirect": {"dnsCapture": True}}).status == 0
    file, = (plugin.run_dir / "attachments").iterdir()
    assert json.loads(file.read_text())["redirect"]["dnsCapture"] is False and file.stat().st_mode & 0o777 == 0o600
