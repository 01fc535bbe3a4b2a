"""What is shipped, tried with the tools that people use: buildah's image, Helm's and kustomize's own commands, qemu."""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

import pytest

SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent
BUILD = pathlib.Path(os.environ.get("AMBIENT_BUILD", SOURCE / "build"))
CHART = SOURCE / "deploy/helm/ambient-cni"
# The newest that Debian 12's Go builds.
HELM = "helm.sh/helm/v3/cmd/helm@v3.12.3"
KUSTOMIZE = "sigs.k8s.io/kustomize/kustomize/v5@v5.0.3"


def run(*command, **options):
    """Standard output of a command that must succeed."""
    done = subprocess.run([str(word) for word in command], text=True, capture_output=True, **options)
    assert done.returncode == 0, f"{command[0]} failed with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


def tool(name, package):
    return run(SOURCE / "tests/package/go_tool.sh", name, package).strip()


@pytest.fixture(scope="session")
def helm(tmp_path_factory):
    program = tool("helm", HELM)
    home = tmp_path_factory.mktemp("helm")
    environment = {**os.environ, **{f"HELM_{kind}_HOME": str(home) for kind in ("CACHE", "CONFIG", "DATA")}}
    return lambda *arguments, **options: run(program, *arguments, env=environment, **options)


@pytest.fixture(scope="session")
def kustomize():
    program = tool("kustomize", KUSTOMIZE)
    return lambda *arguments: run(program, *arguments)


class Image:
    """The image as `make image` leaves it."""

    def __init__(self, architecture, folder, version):
        self.architecture, self.folder, self.version = architecture, folder, version
        self.archive = folder / f"image/ambient-cni-{architecture}.oci.tar"
        self.bill = json.loads((folder / f"image/ambient-cni-{architecture}.spdx.json").read_text())
        self.files = (folder / f"image/ambient-cni-{architecture}.files").read_text()


@pytest.fixture(scope="session")
def sources(tmp_path_factory):
    """The sources as they are now, in two places: somebody may go on working on them."""
    first, second = (tmp_path_factory.mktemp(name) / "source" for name in ("here", "elsewhere"))
    shutil.copytree(SOURCE, first, symlinks=True, ignore=shutil.ignore_patterns("build", ".git", ".cache", "__pycache__"))
    shutil.copytree(first, second, symlinks=True)
    return first, second


@pytest.fixture(scope="session")
def make_image(tmp_path_factory, sources):
    """Builds it, into a folder of its own; again: from the other copy of the sources."""
    made = {}

    def make(architecture, again=False):
        if again or architecture not in made:
            folder = tmp_path_factory.mktemp(architecture)
            run(sources[again] / "deploy/image.sh", folder, architecture,
                env={**os.environ, "VERSION": "v1.2.3-test", "SOURCE_DATE_EPOCH": "1700000000"})
            made[architecture] = Image(architecture, folder, "v1.2.3-test")
        return made[architecture]

    return make


@pytest.fixture(scope="session")
def docker():
    """A docker daemon of our own; what a command needs to reach it."""
    with tempfile.TemporaryDirectory(prefix="docker-") as folder:  # a short name: its socket's path
        with open(f"{folder}/said", "wb") as said, subprocess.Popen([SOURCE / "tests/package/docker.sh", folder], stdin=subprocess.PIPE,
                                                                     stdout=said, stderr=said) as daemon:
            environment = {**os.environ, "DOCKER_HOST": f"unix://{folder}/docker.sock", "PATH": f"{folder}/bin:{os.environ['PATH']}"}
            try:
                end = time.monotonic() + 60
                while subprocess.run(["docker", "version"], env=environment, capture_output=True, check=False).returncode != 0:
                    assert daemon.poll() is None and time.monotonic() < end, "".join(
                        path.read_text() for path in pathlib.Path(folder).glob("[sl]*[dg]"))
                    time.sleep(0.1)
                yield environment
            finally:
                daemon.stdin.close()
                daemon.wait(180)
