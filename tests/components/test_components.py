"""The real node's components where something is not there: what is missing is named, and nothing is run. No network is used: Go is a
double here."""
import os
import pathlib
import shutil
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
SCRIPT = REPOSITORY / "tests/node/components"
VERSIONS = dict(line.split("=") for line in (REPOSITORY / "tests/node/versions").read_text().splitlines() if "=" in line and line[0] != "#")
NAMES = {"containerd": f"containerd {VERSIONS['CONTAINERD2']}", "cni-plugins": f"CNI plugins {VERSIONS['CNI_PLUGINS']}",
         "kubernetes": f"Kubernetes {VERSIONS['KUBERNETES']}", "helm": f"helm {VERSIONS['HELM']}"}
PROGRAMS = {
    f"containerd-{VERSIONS['CONTAINERD2']}": ("containerd", "containerd-shim-runc-v2", "ctr"),
    f"cni-plugins-{VERSIONS['CNI_PLUGINS']}": ("bridge", "ptp", "loopback", "host-local", "portmap"),
    f"kubernetes-{VERSIONS['KUBERNETES']}": ("kubectl", "kubelet", "kube-scheduler", "kube-controller-manager", "kube-apiserver", "agnhost"),
    f"helm-{VERSIONS['HELM']}": ("helm",)}


class Machine:
    """A cache, and a PATH that has a Go of some version, or none."""

    def __init__(self, folder):
        self.bin, self.cache, self.asked = folder / "bin", folder / "cache", folder / "asked"
        self.node = self.cache / "ambient-cni/node"
        self.bin.mkdir()
        for program in ("bash", "env", "dirname", "mkdir", "rm", "mv", "sed", "cut", "tail", "cat", "flock", "touch", "chmod"):
            (self.bin / program).symlink_to(shutil.which(program))

    def go(self, version, build="exit 1"):
        path = self.bin / "go"
        path.write_text(f"""#!/bin/bash
echo "$*" >>{self.asked}
[ "$*" = 'env GOVERSION' ] && echo {version} && exit
[ "$*" = 'env GOPROXY' ] && echo the-proxy && exit
{build}
""")
        path.chmod(0o755)

    def have(self, folder, *programs):
        (self.node / folder).mkdir(parents=True)
        for program in programs:
            (self.node / folder / program).write_text("#!/bin/sh\n")
            (self.node / folder / program).chmod(0o755)

    def have_all(self, but=""):
        for folder, programs in PROGRAMS.items():
            if not but or not folder.startswith(but):
                self.have(folder, *programs)

    def run(self, *arguments, status=0):
        done = subprocess.run([str(SCRIPT), *arguments], capture_output=True, text=True, timeout=30, check=False,
                              env={"PATH": str(self.bin), "XDG_CACHE_HOME": str(self.cache), "HOME": str(self.bin)})
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout if status == 0 else done.stderr

    def built(self):
        return [line for line in self.asked.read_text().splitlines() if not line.startswith("env ")] if self.asked.exists() else []


@pytest.fixture
def machine(tmp_path):
    return Machine(tmp_path)


def test_what_is_missing_is_named(machine):
    assert machine.run("--check", status=1).splitlines() == [f"components: missing: {name}" for name in NAMES.values()]
    machine.have_all(but="kubernetes")
    assert machine.run("--check", status=1).splitlines() == [f"components: missing: {NAMES['kubernetes']}"]
    machine.have(f"kubernetes-{VERSIONS['KUBERNETES']}", "kubectl", "kubelet")  # a part is not enough
    assert machine.run("--check", status=1).splitlines() == [f"components: missing: {NAMES['kubernetes']}"]
    # Of another version.
    machine.have("kubernetes-v1.0.0", *PROGRAMS[f"kubernetes-{VERSIONS['KUBERNETES']}"])
    assert NAMES["kubernetes"] in machine.run("--check", status=1)


def test_nothing_is_missing(machine):
    machine.have_all()
    assert machine.run("--check").strip() == str(machine.node)
    # Go is needed only to build.
    assert machine.run().strip() == str(machine.node)


@pytest.mark.parametrize("version, is_old", [
    ("go1.19.8", True), ("go1.23.12", True), ("go1.9", True), (f"go{VERSIONS['GO_AT_LEAST']}", False),
    (f"go{VERSIONS['GO_AT_LEAST']}.1", False), ("go1.30rc1", False), ("devel", True)])
def test_an_old_go_is_named_and_stops_the_run(machine, version, is_old):
    machine.go(version)
    said = machine.run(status=1)
    assert (f"{machine.bin}/go is {version}; Go {VERSIONS['GO_AT_LEAST']} or newer is needed" in said) == is_old, said
    assert bool(machine.built()) != is_old
    assert not list(machine.node.glob("containerd-*[0-9]"))


def test_no_go(machine):
    assert f"there is no go in PATH; Go {VERSIONS['GO_AT_LEAST']} or newer builds the node" in machine.run(status=1)


def test_a_build_that_fails_is_named_and_leaves_nothing_behind(machine):
    machine.go("go1.24.1", build="echo 'dial tcp: lookup of the proxy: no such host' >&2; exit 1")
    machine.have_all(but="cni-plugins")
    said = machine.run(status=1)
    assert f"cannot build {NAMES['cni-plugins']}; its source comes from the Go module proxy (the-proxy): is there a network?" in said
    assert "no such host" in said
    assert machine.run("--check", status=1).splitlines() == [f"components: missing: {NAMES['cni-plugins']}"]
    # And then it is built, and nothing else.
    machine.asked.unlink()
    machine.go("go1.24.1", build="for name in bridge ptp loopback host-local portmap; do touch $GOBIN/$name; chmod +x $GOBIN/$name; done")
    assert machine.run().strip() == str(machine.node)
    assert machine.built() and all("containernetworking/plugins" in line for line in machine.built())


def run_cases(machine, *arguments, **environment):
    """pytest as `make test-node` runs it."""
    return subprocess.run([sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments, str(REPOSITORY / "tests/node")],
                          capture_output=True, text=True, timeout=60, check=False,
                          env={**os.environ, "XDG_CACHE_HOME": str(machine.cache), "AMBIENT_BUILD": str(machine.bin), **environment})


def test_the_run_stops_before_its_first_case(machine):
    done = run_cases(machine)
    assert done.returncode == 1
    assert "the real node needs what is not here: " in done.stdout and "`make test-node` builds and installs all of it" in done.stdout
    assert all(name in done.stdout for name in NAMES.values())
    assert not any(word in done.stdout for word in ("PASSED", "ERROR", "FAILED", " passed", " failed", " error"))


def test_cases_that_find_no_time_are_named(machine):
    done = run_cases(machine, "-k", "nothing_is_left_when_the_tests_are_killed or reboot_keeps_files", NODE_SECONDS="0")
    assert done.returncode == 0, done.stdout
    assert "NOT RUN, for want of time: 2 cases" in done.stdout
    assert done.stdout.count("\nNOT RUN tests/node/test_machine.py::test_") == 2, done.stdout
