"""Makes an OCI archive of what `docker save` printed: oci_archive.py SAVED ARCHIVE TAG EPOCH.

docker writes the image as its own format has it, with the time of the build in several places. Here the layers' files are put down
again in the order of their names, none later than EPOCH (seconds), and the configuration is what the Containerfile said: the same
files give the same digest."""
import copy
import gzip
import hashlib
import io
import json
import sys
import tarfile
import time


def layer(saved, path, epoch):
    """A layer as (uncompressed tar, {name: None})."""
    out = io.BytesIO()
    with tarfile.open(fileobj=saved.extractfile(path), mode="r:*") as old, tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as new:
        for member in sorted(old.getmembers(), key=lambda member: member.name):
            member = copy.copy(member)
            member.mtime, member.uname, member.gname, member.pax_headers = min(int(member.mtime), epoch), "", "", {}
            new.addfile(member, old.extractfile(member) if member.isreg() else None)
    return out.getvalue()


class Archive:
    def __init__(self, path):
        self.tar = tarfile.open(path, "w", format=tarfile.GNU_FORMAT)

    def add(self, name, content):
        member = tarfile.TarInfo(name)
        member.size, member.mode = len(content), 0o644
        self.tar.addfile(member, io.BytesIO(content))

    def blob(self, kind, content):
        digest = hashlib.sha256(content).hexdigest()
        self.add(f"blobs/sha256/{digest}", content)
        return {"mediaType": f"application/vnd.oci.image.{kind}", "digest": f"sha256:{digest}", "size": len(content)}


def as_json(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def main():
    saved_path, path, tag, epoch = sys.argv[1:]
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(epoch)))
    with tarfile.open(saved_path) as saved:
        (image,) = json.load(saved.extractfile("manifest.json"))
        config = json.load(saved.extractfile(image["Config"]))
        layers = [layer(saved, name, int(epoch)) for name in image["Layers"]]
    kept = {key: value for key, value in config["config"].items() if key in ("Env", "Entrypoint", "Cmd", "User", "WorkingDir") and value}
    archive = Archive(path)
    archive.add("oci-layout", as_json({"imageLayoutVersion": "1.0.0"}))
    blobs = [archive.blob("layer.v1.tar+gzip", gzip.compress(content, mtime=0)) for content in layers]
    config = archive.blob("config.v1+json", as_json({
        "architecture": config["architecture"], "os": config["os"], "created": created, "config": kept,
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(content).hexdigest() for content in layers]},
        "history": [{"created": created, "created_by": "deploy/Containerfile"} for _ in layers]}))
    manifest = archive.blob("manifest.v1+json", as_json({
        "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json", "config": config, "layers": blobs}))
    manifest["annotations"] = {"org.opencontainers.image.ref.name": tag}
    archive.add("index.json", as_json({"schemaVersion": 2, "manifests": [manifest]}))
    archive.tar.close()


if __name__ == "__main__":
    main()
