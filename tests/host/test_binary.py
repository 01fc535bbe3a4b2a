"""The plugin's binary: copied, tried, renamed; put back when somebody changes it; sane mode and security context."""
import os
import shutil
import stat
import subprocess
import time

import pytest

from .configurations import CALICO
from .mounts import Mounts
from .tool import PLUGIN

CONTEXT = "security.selinux"


@pytest.fixture
def host(host):
    host.write("10-calico.conflist", CALICO)
    return host


def installed(host):
    path = host.bin_dir / "ambient-cni"
    return path.exists() and path.read_bytes() == (host.source / "ambient-cni").read_bytes()


def script(host, text):
    path = host.source / "ambient-cni"
    path.write_text("#!/bin/sh\n" + text)
    path.chmod(0o755)
    return path


ANSWER = """echo '{"cniVersion":"1.1.0","supportedVersions":["1.0.0"]}'"""


def test_it_is_installed_executable_whatever_the_umask(host):
    done = host.run("install", wrapper=("sh", "-c", 'umask 0777; exec "$@"', "sh"))
    assert '"ready":true' in done.stdout
    assert installed(host) and stat.S_IMODE((host.bin_dir / "ambient-cni").stat().st_mode) == 0o755
    assert [path.name for path in host.bin_dir.iterdir()] == ["ambient-cni"]


def test_it_is_written_only_when_it_differs(host):
    host.install()
    before = (host.bin_dir / "ambient-cni").stat()
    assert host.install()["results"]["binary"]["written"] == 0
    assert (host.bin_dir / "ambient-cni").stat().st_ino == before.st_ino
    with open(host.bin_dir / "ambient-cni", "r+b") as file:
        file.seek(5000)
        file.write(b"x")
    assert host.install()["results"]["binary"]["written"] == 1
    assert installed(host)


def test_a_wrong_mode_is_put_right(host):
    host.install()
    (host.bin_dir / "ambient-cni").chmod(0o600)
    assert host.install()["ready"]
    assert stat.S_IMODE((host.bin_dir / "ambient-cni").stat().st_mode) == 0o755


def test_a_runtime_that_executes_the_old_one_is_not_disturbed(host):
    script(host, f'[ "$CNI_COMMAND" = VERSION ] && {{ {ANSWER}; exit; }}\nread x; echo finished')
    host.install()
    with subprocess.Popen([str(host.bin_dir / "ambient-cni")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as running:
        shutil.copy(PLUGIN, host.source / "ambient-cni")
        # Also one that is a program and not a script: nobody can write into it while it runs.
        assert host.install()["ready"]
        answer, _ = running.communicate("go\n")
    assert answer == "finished\n" and installed(host)


@pytest.mark.parametrize("text, words", [
    ("exit 1", "exit status 1"), ("echo no", "not valid JSON"), ("echo '{}'", "does not answer as"), ("kill -9 $$", "signal 9"),
    ("", "expected JSON"), ("""echo '{"supportedVersions":["0.1.0"]}'""", "does not answer as")])
def test_one_that_does_not_run_is_never_put_in_place(host, text, words):
    host.install()
    before = (host.bin_dir / "ambient-cni").read_bytes()
    script(host, text)
    state = host.install()
    assert not state["ready"] and words in state["reason"] and "the old one stays" in state["reason"]
    assert (host.bin_dir / "ambient-cni").read_bytes() == before
    assert len(list(host.bin_dir.iterdir())) == 1
    assert state["results"]["binary"]["failed"] >= 1


def test_one_that_hangs_is_ended(host):
    script(host, "sleep 1000")
    state = host.install()
    assert "did not answer within 5 seconds" in state["reason"]


def test_a_program_of_another_machine_is_refused(host):
    (host.source / "ambient-cni").write_bytes(b"\x7fELF" + bytes(60))
    state = host.install()
    assert not state["ready"] and "does not run on this host" in state["reason"]


def test_no_configuration_names_a_plugin_that_is_not_there(host):
    script(host, "exit 1")
    assert not host.install()["ready"]
    assert host.read("10-calico.conflist") == CALICO


def test_a_missing_source_is_said(host):
    (host.source / "ambient-cni").unlink()
    assert "cannot read the plugin to install" in host.install()["reason"]


def test_a_link_under_our_name_is_replaced_and_not_followed(host, tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("precious")
    (host.bin_dir / "ambient-cni").symlink_to(victim)
    assert host.install()["ready"]
    assert victim.read_text() == "precious" and not (host.bin_dir / "ambient-cni").is_symlink() and installed(host)


def test_the_context_is_that_of_the_file_that_is_replaced(host):
    old = host.bin_dir / "ambient-cni"
    old.write_text("old")
    os.setxattr(old, CONTEXT, b"system_u:object_r:container_runtime_exec_t:s0")
    assert host.install()["ready"] and installed(host)
    assert os.getxattr(old, CONTEXT) == b"system_u:object_r:container_runtime_exec_t:s0"


def test_the_context_is_that_of_a_neighbour_where_there_was_none(host):
    neighbour = host.bin_dir / "loopback"
    neighbour.write_text("x")
    neighbour.chmod(0o755)
    os.setxattr(neighbour, CONTEXT, b"system_u:object_r:bin_t:s0")
    host.install()
    assert os.getxattr(host.bin_dir / "ambient-cni", CONTEXT) == b"system_u:object_r:bin_t:s0"


def test_no_context_is_made_up(host):
    host.install()
    assert CONTEXT not in os.listxattr(host.bin_dir / "ambient-cni")


@pytest.mark.parametrize("harm", ["removed", "truncated", "overwritten", "renamed", "mode"])
def test_it_is_put_back_when_somebody_changes_it(host, harm):
    path = host.bin_dir / "ambient-cni"
    with host.watch() as watcher:
        watcher.wait_ready()
        if harm == "removed":
            path.unlink()
        elif harm == "truncated":
            os.truncate(path, 0)
        elif harm == "overwritten":
            (host.bin_dir / "x").write_text("#!/bin/sh\n")
            (host.bin_dir / "x").rename(path)
        elif harm == "renamed":
            path.rename(host.bin_dir / "y")
        else:
            path.chmod(0)
        watcher.wait(lambda: installed(host) and os.access(path, os.X_OK) and stat.S_IMODE(path.stat().st_mode) == 0o755,
                     "the plugin put back")
        watcher.wait_ready()


@pytest.mark.parametrize("stood", [True, False], ids=["ours was tried", "ours was written"])
def test_another_program_that_comes_right_behind_ours_is_not_taken_for_it(host, stood):
    """What is remembered as right is the file that was looked at or written, not what has its name a moment later."""
    ours, path, other = script(host, f"sleep 0.3; {ANSWER}"), host.bin_dir / "ambient-cni", host.bin_dir / "other"
    if stood:
        shutil.copy(ours, path)
    other.write_text("#!/bin/sh\n")
    with host.watch() as watcher:
        if stood:
            watcher.read(0.15)
        end = time.monotonic() + 10
        while not path.exists():
            assert time.monotonic() < end, "it was not installed"
        other.rename(path)
        watcher.wait(lambda: installed(host), "the plugin put back")
        watcher.wait_ready()


def test_who_removes_it_all_the_time_does_not_keep_us_busy(host):
    path = host.bin_dir / "ambient-cni"
    with host.watch() as watcher:
        watcher.wait_ready()
        for _ in range(40):
            path.unlink(missing_ok=True)
            watcher.read(0.05)
        watcher.wait(lambda: watcher.state["results"]["binary"]["deferred"] > 0, "a write deferred")
        assert watcher.state["results"]["binary"]["written"] <= 12


def test_a_directory_that_appears_later(make_host):
    host = make_host(make=False)
    with host.watch() as watcher:
        watcher.wait_reason("cannot open the binary directory")
        host.bin_dir.mkdir(parents=True)
        watcher.wait_reason("waiting for the configuration directory")
        host.conf_dir.mkdir(parents=True)
        watcher.wait_reason("waiting for the primary network's configuration")
        host.write("10-calico.conflist", CALICO)
        watcher.wait_ready()
        # And that is another one later.
        host.bin_dir.rename(host.bin_dir.with_name("old"))
        host.conf_dir.rename(host.conf_dir.with_name("old.d"))
        host.bin_dir.mkdir()
        host.conf_dir.mkdir()
        host.write("20-calico.conflist", CALICO)
        watcher.wait(lambda: installed(host) and watcher.state["ready"] and watcher.state["file"] == "20-calico.conflist",
                     "the new directories taken")
        (host.conf_dir / "20-calico.conflist").unlink()
        watcher.wait_reason("waiting for the primary")


@pytest.fixture
def read_only(host):
    """The binary directory mounted read-only."""
    with Mounts() as mounts:
        yield lambda: mounts.run("mount", "--bind", "-o", "ro", str(host.bin_dir), str(host.bin_dir)), mounts


def test_a_read_only_directory_with_the_same_version_preinstalled(host, read_only):
    mount, mounts = read_only
    # Built otherwise, of the same version: it differs at its end.
    shutil.copy(PLUGIN, host.bin_dir / "ambient-cni")
    with open(host.bin_dir / "ambient-cni", "ab") as file:
        file.write(b"\0")
    mount()
    state = host.install(wrapper=mounts.enter)
    assert state["ready"] and state["results"]["binary"] == {"written": 0, "failed": 0, "deferred": 0}


def test_a_read_only_directory_with_another_version(host, read_only):
    mount, mounts = read_only
    old = host.bin_dir / "ambient-cni"
    old.write_text("""#!/bin/sh
echo '{"cniVersion":"1.1.0","code":4,"msg":"CNI_COMMAND is missing","details":"ambient-cni 0.0.1"}'
""")
    old.chmod(0o755)
    mount()
    state = host.install(wrapper=mounts.enter)
    assert not state["ready"] and "holds version 0.0.1" in state["reason"] and "can't be written" in state["reason"]
    assert host.read("10-calico.conflist") == CALICO


def test_a_read_only_directory_without_the_plugin(host, read_only):
    mount, mounts = read_only
    mount()
    state = host.install(wrapper=mounts.enter)
    assert not state["ready"] and "preinstall version" in state["reason"]


def test_a_read_only_directory_with_another_program(host, read_only):
    mount, mounts = read_only
    shutil.copy("/bin/true", host.bin_dir / "ambient-cni")
    mount()
    assert "not usable" in host.install(wrapper=mounts.enter)["reason"]


def test_a_directory_mounted_noexec_is_said(host):
    with Mounts() as mounts:
        mounts.run("mount", "-t", "tmpfs", "-o", "noexec", "tmpfs", str(host.bin_dir))
        assert "noexec" in host.install(wrapper=mounts.enter)["reason"]
