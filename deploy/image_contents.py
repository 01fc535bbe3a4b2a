"""Says what is in the image: image_contents.py ARCHIVE VERSION OUT, with an OCI archive. Prints its files and sizes; OUT.files gets the
same list, OUT.spdx.json the software bill of materials. It fails where the image holds what it should not, or too much."""
import hashlib
import json
import sys
import tarfile
import time

LIMIT = 8 << 20
PACKAGES = "usr/share/licenses/ambient-cni/packages"
PROGRAMS = ("usr/local/bin/ambient-cni", "usr/local/bin/ambient-installer")


def read_archive(path):
    """The image's configuration, its manifest's digest, and {path: (TarInfo, bytes)} of all layers."""
    with tarfile.open(path) as archive:
        def blob(digest):
            return archive.extractfile("blobs/" + digest.replace(":", "/"))

        (entry,) = json.load(archive.extractfile("index.json"))["manifests"]
        manifest = json.load(blob(entry["digest"]))
        files = {}
        for layer in manifest["layers"]:
            with tarfile.open(fileobj=blob(layer["digest"]), mode="r:*") as content:
                for member in content:
                    if not member.isdir():
                        files[member.name.removeprefix("./")] = (member, content.extractfile(member).read())
        return json.load(blob(manifest["config"]["digest"])), entry["digest"], files


def complaints(files):
    for name, (member, _) in files.items():
        if name not in PROGRAMS and not name.startswith("usr/share/licenses/"):
            yield f"{name} does not belong into the image"
        if not member.isreg() or member.uid or member.gid or member.mode & 0o6022:
            yield f"{name}: mode {member.mode & 0o7777:o}, owner {member.uid}:{member.gid}"
    for name in PROGRAMS:
        if name not in files:
            yield f"{name} is missing"
    for line in files[PACKAGES][1].decode().splitlines():
        package = line.split("\t")[0]
        if f"usr/share/licenses/{package}" not in files:
            yield f"the licence of {package} is missing"
    size = sum(member.size for member, _ in files.values())
    if size > LIMIT:
        yield f"{size} bytes are more than {LIMIT}"


def spdx(files, version, digest, epoch):
    """SPDX 2.3: the image contains two programs, and what was linked into them from Debian."""
    created = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(epoch))
    image = {"SPDXID": "SPDXRef-image", "name": "ambient-cni", "versionInfo": version, "downloadLocation": "NOASSERTION",
             "licenseDeclared": "Apache-2.0", "licenseConcluded": "NOASSERTION", "copyrightText": "NOASSERTION",
             "filesAnalyzed": False, "primaryPackagePurpose": "CONTAINER",
             "checksums": [{"algorithm": "SHA256", "checksumValue": digest.removeprefix("sha256:")}]}
    packages, entries = [image], []
    relations = [{"spdxElementId": "SPDXRef-DOCUMENT", "relationshipType": "DESCRIBES", "relatedSpdxElement": "SPDXRef-image"}]
    for name in PROGRAMS:
        identity = "SPDXRef-" + name.rpartition("/")[2]
        entries.append({"SPDXID": identity, "fileName": "./" + name, "copyrightText": "NOASSERTION",
                        "licenseConcluded": "Apache-2.0", "checksums": [
                            {"algorithm": kind.upper(), "checksumValue": hashlib.new(kind, files[name][1]).hexdigest()}
                            for kind in ("sha1", "sha256")]})
        relations.append({"spdxElementId": "SPDXRef-image", "relationshipType": "CONTAINS", "relatedSpdxElement": identity})
    for line in files[PACKAGES][1].decode().splitlines():
        package, installed, architecture, origin, origin_version = line.split("\t")
        identity = "SPDXRef-Debian-" + package.replace("+", "-")
        packages.append({
            "SPDXID": identity, "name": package, "versionInfo": installed, "supplier": "Organization: Debian",
            "downloadLocation": "NOASSERTION", "filesAnalyzed": False, "licenseDeclared": "NOASSERTION",
            "licenseConcluded": "NOASSERTION", "copyrightText": "NOASSERTION",
            "comment": f"linked statically; its licence is usr/share/licenses/{package} in the image",
            "externalRefs": [{"referenceCategory": "PACKAGE-MANAGER", "referenceType": "purl", "referenceLocator":
                              f"pkg:deb/debian/{package}@{installed.replace(':', '%3A').replace('+', '%2B')}"
                              f"?arch={architecture}&distro=debian-13&upstream={origin}%40"
                              f"{origin_version.replace(':', '%3A').replace('+', '%2B')}"}]})
        relations.append({"spdxElementId": identity, "relationshipType": "STATIC_LINK", "relatedSpdxElement": "SPDXRef-image"})
    return {"spdxVersion": "SPDX-2.3", "dataLicense": "CC0-1.0", "SPDXID": "SPDXRef-DOCUMENT", "name": f"ambient-cni-{version}",
            "documentNamespace": f"urn:ambient-cni:{digest}",
            "creationInfo": {"created": created, "creators": ["Tool: ambient-cni-deploy/image_contents.py"]},
            "packages": packages, "files": entries, "relationships": relations}


def main():
    archive, version, out = sys.argv[1:]
    config, digest, files = read_archive(archive)
    epoch = max(member.mtime for member, _ in files.values())
    lines = [f"{member.size:9} {member.mode & 0o7777:04o} /{name}" for name, (member, _) in sorted(files.items())]
    with open(out + ".files", "w", encoding="utf-8") as file:
        file.write("\n".join(lines) + "\n")
    with open(out + ".spdx.json", "w", encoding="utf-8") as file:
        json.dump(spdx(files, version, digest, epoch), file, indent=2)
        file.write("\n")
    wrong = list(complaints(files))
    print(f"{archive}: {config['os']}/{config['architecture']}, {digest}")
    print("\n".join(lines))
    print(f"{sum(member.size for member, _ in files.values()):9} bytes uncompressed, at most {LIMIT}")
    print(f"bill of materials: {out}.spdx.json")
    for complaint in wrong:
        print(f"image: {complaint}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
