"""An installation that is killed, or whose calls fail: what is on the disk is the old state or the new one, and the next start
puts the rest right."""
import concurrent.futures
import json
import os
import re
import shutil
import signal

import pytest

from .configurations import BRIDGE, CALICO, KINDNET, with_istio, with_us
from .mounts import Mounts
from .tool import PLUGIN

ENTRY = {"type": "ambient-cni", "enrollment": "installer", "runDir": "/run/x"}
# The leak checker can't look into a process that strace watches.
os.environ["ASAN_OPTIONS"] = ":".join(filter(None, (os.environ.get("ASAN_OPTIONS"), "detect_leaks=0")))


def prepare_single(host):
    host.write("10-bridge.conf", BRIDGE)
    return {}, {"10-bridge.conflist": {"cniVersion": "1.0.0", "name": "podnet",
                                       "plugins": [BRIDGE, {**ENTRY, "ambient-cni.io/original": "10-bridge.conf"}]}}


def prepare_upgrade(host):
    """An older binary and other keys stand there."""
    (host.bin_dir / "ambient-cni").write_text("#!/bin/sh\n")
    (host.bin_dir / "ambient-cni").chmod(0o755)
    host.write("10-calico.conflist", with_us(CALICO, {"type": "ambient-cni", "enrollment": "always"}))
    return {}, {"10-calico.conflist": with_us(CALICO, ENTRY)}


def prepare_own(host):
    host.write("10-calico.conflist", CALICO)
    return {"own_config": True}, {
        "10-calico.conflist": CALICO,
        "02-ambient-cni.conflist": with_us(CALICO, {**ENTRY, "ambient-cni.io/copy-of": "10-calico.conflist"})}


def prepare_migration(host):
    host.write("02-istio-cni.conflist", with_istio(KINDNET))
    host.write("10-kindnet.conflist", with_istio(KINDNET))
    host.write("ZZZ-istio-cni-kubeconfig", "secret")
    return {}, {"10-kindnet.conflist": with_us(KINDNET, ENTRY)}


def prepare_uninstallation(host):
    host.write("10-bridge.conf", BRIDGE)
    host.write("20-calico.conflist", CALICO)
    host.install()
    return {}, {"10-bridge.conf": BRIDGE, "20-calico.conflist": CALICO}


SCENARIOS = {"single": prepare_single, "upgrade": prepare_upgrade, "own": prepare_own, "migration": prepare_migration,
             "uninstallation": prepare_uninstallation}
CHANGING = ("openat", "write", "fchmod", "fchmodat", "fsync", "ftruncate", "rename", "renameat", "renameat2", "unlink", "unlinkat",
            "fsetxattr", "flock", "close")


def calls_of(trace):
    """(name, how often it was called by then) of each system call that comes after one that changes something on the disk, from
    the first that concerns the host's directories on: a kill in there leaves every state that a kill between any two calls can
    leave."""
    count, calls, is_inside, has_changed = {}, [], False, False
    for line in trace.read_text().splitlines():
        match = re.match(r"(\w+)\(", line)
        if not match:
            continue
        name = match[1]
        count[name] = count.get(name, 0) + 1
        is_inside = is_inside or re.match(r'openat\(AT_FDCWD, "[^"]*(/opt/cni/bin|/etc/cni/net.d)"', line) is not None
        if is_inside and has_changed:
            calls.append((name, count[name]))
        has_changed = name in CHANGING and ("O_CREAT" in line or name != "openat")
    return calls


def check_between(host, before):
    """What a runtime that starts now would find."""
    choice = host.choose()
    assert choice["containerd"], choice
    used = host.read(choice["containerd"])
    plugins = used.get("plugins", [used])
    assert plugins[0]["type"] == before[0]
    if any(plugin["type"] == "ambient-cni" for plugin in plugins):
        binary = (host.bin_dir / "ambient-cni").read_bytes()
        assert binary in (PLUGIN.read_bytes(), b"#!/bin/sh\n"), "the configuration names a plugin that is not whole"
    for path in host.bin_dir.iterdir():
        assert path.name == "ambient-cni" or path.name.endswith(".ambient-cni-new")


@pytest.mark.parametrize("scenario", SCENARIOS)
def test_killed_between_any_two_system_calls(make_host, tmp_path, scenario):
    verb = "uninstall" if scenario == "uninstallation" else "install"

    def prepare(name):
        host = make_host(name)
        return (host, *SCENARIOS[scenario](host))

    host, options, expected = prepare("whole")
    trace = tmp_path / "trace"
    host.run(verb, wrapper=("strace", "-o", str(trace)), **options)
    calls = calls_of(trace)
    assert len(calls) > 10

    def kill_at(call):
        name, number = call
        host, options, expected = prepare(f"killed-{name}-{number}")
        first = host.choose()["containerd"]
        before = [plugin["type"] for plugin in host.read(first).get("plugins", [host.read(first)])]
        done = host.run(verb, check=False, wrapper=("strace", "-o", "/dev/null", "-e",
                                                    f"inject={name}:signal=KILL:when={number}"), **options)
        check_between(host, before)
        if verb == "install":
            state = host.install(**options)
            assert state["ready"], (call, state)
        else:
            assert host.uninstall(**options)["binary_gone"], call
        assert host.names() == sorted(expected), call
        assert {name: host.read(name) for name in expected} == expected, call
        assert [path.name for path in host.bin_dir.iterdir()] == (["ambient-cni"] if verb == "install" else []), call
        shutil.rmtree(host.folder)
        return done.returncode == -signal.SIGKILL or done.returncode == 128 + signal.SIGKILL

    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        killed = sum(pool.map(kill_at, calls))
    assert killed == len(calls)


FAILING = [("write", "ENOSPC"), ("write", "EIO"), ("fsync", "EIO"), ("fsync", "ENOSPC"), ("close", "ENOSPC"), ("fchmod", "EPERM"),
           ("renameat", "ENOSPC"), ("renameat", "EIO"), ("renameat2", "ENOSPC"), ("renameat2", "EIO"), ("flock", "ENOLCK")]


@pytest.mark.parametrize("call, number", FAILING)
@pytest.mark.parametrize("with_binary", [False, True], ids=["first installation", "binary is there"])
def test_a_call_that_fails_keeps_what_was_there(host, call, number, with_binary):
    host.write("10-calico.conflist", CALICO)
    if with_binary:
        shutil.copy(PLUGIN, host.bin_dir / "ambient-cni")
        (host.bin_dir / "ambient-cni").chmod(0o755)
    # The first one of the calls that write: files with our suffix, or the names that they get.
    done = host.run("install", check=False, wrapper=(
        "strace", "-o", "/dev/null", "-e", f"trace={call}", "-e", f"inject={call}:error={number}:when=1+",
        *(("-P", str(host.conf_dir), "-P", str(host.bin_dir)) if call in ("close",) else ())))
    lines = done.stdout.splitlines()
    if call != "close" and lines:  # write fails for what is told, too
        state = json.loads(lines[-1])
        assert not state["ready"] or call in ("renameat", "close"), state
    assert host.names() == ["10-calico.conflist"]
    assert host.read("10-calico.conflist") in (CALICO, with_us(CALICO, ENTRY))
    assert {path.name for path in host.bin_dir.iterdir()} <= {"ambient-cni"}
    assert host.install()["ready"]
    assert host.read("10-calico.conflist") == with_us(CALICO, ENTRY)


def test_a_file_system_without_exchange(host):
    host.write("10-calico.conflist", CALICO)
    state = host.install(wrapper=("strace", "-o", "/dev/null", "-e", "inject=renameat2:error=EINVAL"))
    assert state["ready"] and host.read("10-calico.conflist") == with_us(CALICO, ENTRY)


@pytest.mark.parametrize("which", ["bin_dir", "conf_dir"])
def test_a_full_disk(host, which):
    host.write("10-calico.conflist", CALICO)
    directory = getattr(host, which)
    with Mounts() as mounts:
        mounts.run("mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(directory))
        inside = f"/proc/{mounts.process.pid}/root{directory}"
        if which == "conf_dir":
            with open(f"{inside}/10-calico.conflist", "w", encoding="utf-8") as file:
                json.dump(CALICO, file)
        mounts.run("dd", "if=/dev/zero", f"of={directory}/fill", "bs=4096", check=False)
        state = host.install(wrapper=mounts.enter)
        assert not state["ready"] and "No space left on device" in state["reason"] and str(directory) in state["reason"]
        file = "binary" if which == "bin_dir" else "configuration"
        assert state["results"][file]["failed"] > 0
        assert sorted(os.listdir(inside)) == ["fill"] if which == "bin_dir" else ["10-calico.conflist", "fill"]
        if which == "conf_dir":
            with open(f"{inside}/10-calico.conflist", encoding="utf-8") as file:
                assert json.load(file) == CALICO
        os.unlink(f"{inside}/fill")
        assert host.install(wrapper=mounts.enter)["ready"]


def test_a_full_disk_is_tried_again_and_not_all_the_time(host):
    host.write("10-calico.conflist", CALICO)
    with Mounts() as mounts:
        mounts.run("mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(host.bin_dir))
        inside = f"/proc/{mounts.process.pid}/root{host.bin_dir}"
        mounts.run("dd", "if=/dev/zero", f"of={host.bin_dir}/fill", "bs=4096", check=False)
        original = host.command
        host.command = lambda verb, **options: [*mounts.enter, *original(verb, **options)]
        with host.watch() as watcher:
            watcher.wait_reason("No space left on device")
            watcher.wait_event("BinaryFailed")
            watcher.read(1)
            assert watcher.state["results"]["binary"]["failed"] <= 3
            os.unlink(f"{inside}/fill")
            watcher.wait_ready()


def test_a_read_only_configuration_directory(host):
    host.write("10-calico.conflist", CALICO)
    with Mounts() as mounts:
        mounts.run("mount", "--bind", "-o", "ro", str(host.conf_dir), str(host.conf_dir))
        state = host.install(wrapper=mounts.enter)
        assert not state["ready"] and "Read-only file system" in state["reason"] and str(host.conf_dir) in state["reason"]
        done = host.run("uninstall", wrapper=mounts.enter)
        assert json.loads(done.stdout)["configuration_gone"]  # nothing names us


def test_uninstalling_from_a_read_only_directory_keeps_the_binary(host):
    host.write("10-calico.conflist", CALICO)
    host.install()
    with Mounts() as mounts:
        mounts.run("mount", "--bind", "-o", "ro", str(host.conf_dir), str(host.conf_dir))
        done = host.run("uninstall", check=False, wrapper=mounts.enter)
    answer = json.loads(done.stdout)
    assert done.returncode == 1 and not answer["configuration_gone"] and not answer["binary_gone"]
    assert (host.bin_dir / "ambient-cni").exists()


def test_what_a_killed_writer_left_goes_and_what_a_living_one_writes_stays(host):
    host.write("10-calico.conflist", CALICO)
    left = ".10-calico.conflist.0123456789abcdef.ambient-cni-new"
    (host.conf_dir / left).write_text("{")
    (host.bin_dir / ".ambient-cni.0123456789abcdef.ambient-cni-new").write_text("half")
    import fcntl  # pylint: disable=import-outside-toplevel
    with open(host.conf_dir / ".x.fedcba9876543210.ambient-cni-new", "w", encoding="ascii") as living:
        fcntl.flock(living, fcntl.LOCK_EX)
        assert host.install()["ready"]
        assert sorted(host.names()) == [".x.fedcba9876543210.ambient-cni-new", "10-calico.conflist"]
    assert [path.name for path in host.bin_dir.iterdir()] == ["ambient-cni"]
