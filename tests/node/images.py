"""Images for the node's pods, made without a registry: an OCI layout in a tar file, of one layer.

    localhost/node-test:1   workload (workload.c), agnhost (Kubernetes' own test program) and busybox; every pod and the sandboxes"""
import hashlib
import io
import json
import os
import subprocess
import tarfile

HERE = os.path.dirname(os.path.abspath(__file__))
TEST_IMAGE = "localhost/node-test:1"


def _tar_add(tar, name, content, mode=0o644, kind=tarfile.REGTYPE, link=""):
    entry = tarfile.TarInfo(name)
    entry.mode, entry.type, entry.linkname, entry.size = mode, kind, link, len(content)
    tar.addfile(entry, io.BytesIO(content))


def make_layer(files, folders=(), links=()):
    """files: {path in the image: path here}; links: {path in the image: target}. Everything is root's and read-only."""
    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for folder in folders:
            _tar_add(tar, folder, b"", 0o755, tarfile.DIRTYPE)
        for name, path in files.items():
            with open(path, "rb") as file:
                _tar_add(tar, name, file.read(), 0o755)
        for name, target in dict(links).items():
            _tar_add(tar, name, b"", 0o777, tarfile.SYMTYPE, target)
    return layer.getvalue()


def layer_of_tree(root):
    """A layer of a folder's files and folders, with their modes; all root's."""
    def owned(entry):
        entry.uid = entry.gid = 0
        entry.uname = entry.gname = "root"
        return entry

    layer = io.BytesIO()
    with tarfile.open(fileobj=layer, mode="w") as tar:
        for name in sorted(os.listdir(root)):
            tar.add(os.path.join(root, name), arcname=name, filter=owned)
    return layer.getvalue()


def write_image(path, name, layer, config):
    """An OCI layout as `ctr images import` reads it."""
    blobs = {}

    def blob(content, media_type):
        digest = hashlib.sha256(content).hexdigest()
        blobs[digest] = content
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(content)}

    about = "application/vnd.oci.image."
    layer_of = blob(layer, about + "layer.v1.tar")
    config_of = blob(json.dumps({"architecture": "amd64", "os": "linux", "config": config,
                                 "rootfs": {"type": "layers", "diff_ids": [layer_of["digest"]]}}).encode(), about + "config.v1+json")
    manifest = blob(json.dumps({"schemaVersion": 2, "mediaType": about + "manifest.v1+json", "config": config_of,
                                "layers": [layer_of]}).encode(), about + "manifest.v1+json")
    manifest["annotations"] = {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name.rpartition(":")[2]}
    with tarfile.open(path, "w") as tar:
        _tar_add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _tar_add(tar, "index.json", json.dumps({"schemaVersion": 2, "manifests": [manifest]}).encode())
        for digest, content in blobs.items():
            _tar_add(tar, f"blobs/sha256/{digest}", content)


def make_test_image(path, components):
    workload = os.path.join(os.path.dirname(path), "workload")
    subprocess.run(["gcc", "-std=gnu17", "-D_GNU_SOURCE", "-O2", "-Wall", "-Wextra", "-static", "-Wl,--no-warnings", "-s",
                    os.path.join(HERE, "workload.c"), "-o", workload], check=True)
    layer = make_layer({"bin/workload": workload, "bin/agnhost": components.kubernetes("agnhost"), "bin/busybox": "/bin/busybox"},
                       folders=("bin", "tmp", "proc", "sys", "dev", "etc"), links={"bin/sh": "busybox", "bin/true": "busybox"})
    write_image(path, TEST_IMAGE, layer, {"Cmd": ["/bin/workload", "pause"], "Env": ["PATH=/bin"]})
