"""The image: small, only what belongs there, the same bytes each time, running where there is nothing else."""
import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile

import pytest

from .conftest import SOURCE, run
from .registry import Registry

sys.path.insert(0, str(SOURCE / "deploy"))
sys.path.insert(0, str(SOURCE / "tests"))
from docs.commands import of_program  # noqa: E402
from image_contents import read_archive  # noqa: E402

ARCHITECTURES = ("amd64", "arm64")
NATIVE = run("dpkg", "--print-architecture").strip()
QEMU = {"amd64": "/usr/bin/qemu-x86_64-static", "arm64": "/usr/bin/qemu-aarch64-static"}


def unpack(image, folder):
    """The image's root file system, and nothing else."""
    _, _, files = read_archive(image.archive)
    for name, (member, content) in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        path.chmod(member.mode & 0o7777)
    return folder


def inside(root, image, *command, **options):
    """Runs a program of the image with the image as its root."""
    words = ["/usr/sbin/chroot", str(root)]
    if image.architecture != NATIVE:
        emulator = root / "qemu"
        if not emulator.exists():
            emulator.write_bytes(open(QEMU[image.architecture], "rb").read())
            emulator.chmod(0o755)
        words.append("/qemu")
    return subprocess.run([*words, *command], capture_output=True, text=True, timeout=60, check=False,
                          env=options.pop("env", {"PATH": "/usr/local/bin"}), **options)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_contents(make_image, architecture):
    image = make_image(architecture)
    config, digest, files = read_archive(image.archive)
    assert (config["os"], config["architecture"]) == ("linux", architecture)
    assert config["config"]["Entrypoint"] == ["ambient-installer"] and "PATH=/usr/local/bin" in config["config"]["Env"]
    programs = [name for name in files if not name.startswith("usr/share/licenses/")]
    assert sorted(programs) == ["usr/local/bin/ambient-cni", "usr/local/bin/ambient-installer"]
    assert sum(member.size for member, _ in files.values()) < 8 << 20
    machine = {"amd64": 62, "arm64": 183}[architecture]
    for name in programs:
        header = files[name][1][:20]
        assert header[:4] == b"\x7fELF" and int.from_bytes(header[18:20], "little") == machine
    assert {member.mtime for member, _ in files.values()} == {1700000000}
    assert image.bill["documentNamespace"].endswith(digest)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bill_of_materials(make_image, architecture):
    """Each package that was linked stands there with version and licence; each program with its sum."""
    image = make_image(architecture)
    _, _, files = read_archive(image.archive)
    bill = image.bill
    assert bill["spdxVersion"] == "SPDX-2.3"
    identities = [e["SPDXID"] for e in bill["packages"] + bill["files"]] + ["SPDXRef-DOCUMENT"]
    assert len(set(identities)) == len(identities)
    for relation in bill["relationships"]:
        assert relation["spdxElementId"] in identities and relation["relatedSpdxElement"] in identities
    linked = {p["name"]: p["versionInfo"] for p in bill["packages"] if p["SPDXID"].startswith("SPDXRef-Debian-")}
    for name in ("libmnl-dev", "libnftnl-dev", "libnl-3-dev", "libcjson-dev", "libc6-dev", "libyaml-dev"):
        assert linked[name]
    for name in linked:
        assert files[f"usr/share/licenses/{name}"][1].strip()
    for file in bill["files"]:
        content = files[file["fileName"].removeprefix("./")][1]
        assert {"algorithm": "SHA256", "checksumValue": hashlib.sha256(content).hexdigest()} in file["checksums"]


def test_reproducible(make_image):
    first = make_image(NATIVE)
    again = make_image(NATIVE, again=True)
    assert first.archive != again.archive
    assert read_archive(first.archive)[1] == read_archive(again.archive)[1]


def test_docker_makes_the_same(make_image, docker, sources, tmp_path):
    """With docker instead of buildah: the same files, byte for byte, in an archive that says the same, and the image in docker."""
    image = make_image(NATIVE)
    environment = {**docker, "BUILDER": "docker", "VERSION": image.version, "SOURCE_DATE_EPOCH": "1700000000"}
    run(sources[0] / "deploy/image.sh", tmp_path, NATIVE, env=environment)
    config, digest, files = read_archive(tmp_path / f"image/ambient-cni-{NATIVE}.oci.tar")
    others, _, other_files = read_archive(image.archive)
    assert {name: content for name, (_, content) in files.items()} == {name: content for name, (_, content) in other_files.items()}
    for name, (member, _) in files.items():
        other = other_files[name][0]
        assert (member.mode & 0o7777, member.uid, member.gid, member.mtime) == (other.mode & 0o7777, other.uid, other.gid, other.mtime), name
    for key in ("Entrypoint", "Cmd", "Env"):
        assert config["config"][key] == others["config"][key]
    assert (config["os"], config["architecture"]) == ("linux", NATIVE) and config["created"].startswith("2023-11-14T22:13:20")
    with tarfile.open(tmp_path / f"image/ambient-cni-{NATIVE}.oci.tar") as archive:  # as the specification has it
        for member in archive:
            if member.name.startswith("blobs/"):
                assert hashlib.sha256(archive.extractfile(member).read()).hexdigest() == member.name.rpartition("/")[2]
    tag = f"localhost/ambient-cni:{image.version}"
    assert run("docker", "image", "inspect", "--format", "{{.Os}}/{{.Architecture}}", tag, env=environment).strip() == f"linux/{NATIVE}"
    # Once more from what docker keeps: the same archive.
    run(sources[1] / "deploy/image.sh", tmp_path / "again", NATIVE, env=environment)
    assert read_archive(tmp_path / f"again/image/ambient-cni-{NATIVE}.oci.tar")[1] == digest


@pytest.mark.parametrize("environment, said", [
    ({"BUILDER": "docker", "DOCKER_HOST": "unix:///nowhere"}, "docker does not work here: "),
    ({"BUILDER": "kaniko"}, 'BUILDER is buildah or docker, found "kaniko"')])
def test_without_a_builder(environment, said, docker, tmp_path):
    done = subprocess.run([SOURCE / "deploy/image.sh", tmp_path], env={**docker, **environment}, capture_output=True, text=True, check=False)
    assert done.returncode in (1, 2) and said in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_runs_where_there_is_nothing(make_image, architecture, tmp_path):
    """No /proc, no /dev, no /tmp, no C library: the plugin answers VERSION, the agent says its version and reads a configuration."""
    image = make_image(architecture)
    root = unpack(image, tmp_path)
    plugin = inside(root, image, "/usr/local/bin/ambient-cni", input='{"cniVersion": "1.1.0"}', env={"CNI_COMMAND": "VERSION"})
    assert plugin.returncode == 0, plugin.stderr
    assert "1.1.0" in json.loads(plugin.stdout)["supportedVersions"]
    version = inside(root, image, "/usr/local/bin/ambient-installer", "version")
    assert version.returncode == 0 and image.version in version.stdout, version
    (root / "config.yaml").write_text("releaseDrainSeconds: 60\n")
    config = inside(root, image, "/usr/local/bin/ambient-installer", "config", "--config", "/config.yaml", "--set",
                    "host.binSource=/usr/local/bin", "-o", "json",
                    env={"NODE_NAME": "n"})
    assert config.returncode == 0, config.stderr
    assert json.loads(config.stdout)["settings"]["releaseDrainSeconds"]["value"] == 60


def test_what_the_contents_check_refuses(make_image, tmp_path):
    """The check that `make image` runs is not one that can't fail."""
    image = make_image(NATIVE)
    with tarfile.open(image.archive) as archive:
        archive.extractall(tmp_path / "layout")
    layout = tmp_path / "layout"

    def blob(digest):
        return layout / "blobs" / digest.replace(":", "/")

    def store(content):
        digest = "sha256:" + hashlib.sha256(content).hexdigest()
        blob(digest).write_bytes(content)
        return digest

    index = json.loads((layout / "index.json").read_text())
    manifest = json.loads(blob(index["manifests"][0]["digest"]).read_text())
    extra = tmp_path / "extra.tar"
    with tarfile.open(extra, "w") as layer:
        (tmp_path / "sh").write_bytes(os.urandom(9 << 20))
        layer.add(tmp_path / "sh", "usr/bin/sh")
    manifest["layers"].append({"digest": store(extra.read_bytes())})
    index["manifests"][0]["digest"] = store(json.dumps(manifest).encode())
    (layout / "index.json").write_text(json.dumps(index))
    with tarfile.open(tmp_path / "changed.tar", "w") as archive:
        archive.add(layout, ".")
        for path in layout.rglob("*"):
            if path.is_file():
                archive.add(path, str(path.relative_to(layout)))
    done = subprocess.run([sys.executable, SOURCE / "deploy/image_contents.py", tmp_path / "changed.tar", "v", tmp_path / "out"],
                          capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "usr/bin/sh does not belong" in done.stderr and "are more than" in done.stderr


def test_make_image(tmp_path):
    """The target is the script that the fixture runs, with the architecture that is asked for."""
    for more, architecture in (([], ""), (["ARCHITECTURE=arm64"], " arm64")):
        printed = run("make", "-n", "-C", SOURCE, "image", f"BUILD={tmp_path}", "VERSION=v1", *more, env={**os.environ, "MAKEFLAGS": ""})
        assert re.search(rf"^BUILDER=buildah VERSION='v1' deploy/image.sh {tmp_path}{architecture}\s*$", printed, re.M), printed


def test_pushed_to_a_registry(make_image):
    """skopeo copy, as the guide has it: what arrives is what is in the archive."""
    (command,) = [command for command in of_program("skopeo") if command.startswith("skopeo copy ")]
    image, registry = make_image(NATIVE), Registry()
    try:
        command = re.sub(r"oci-archive:\S+", f"oci-archive:{image.archive}", command).replace("REGISTRY", registry.name)
        run("sh", "-c", command.replace("skopeo copy", "skopeo --insecure-policy copy --dest-tls-verify=false"))
        manifest = json.loads(registry.manifests["0.1.0"])
        assert {layer["digest"] for layer in manifest["layers"]} | {manifest["config"]["digest"]} == set(registry.blobs)
        assert json.loads(registry.blobs[manifest["config"]["digest"]])["architecture"] == NATIVE
    finally:
        registry.close()
