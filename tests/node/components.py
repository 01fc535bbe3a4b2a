"""Where the programs of the node are: the folder that the script `components` fills, and Debian's."""
import os
import re
import shutil
import subprocess

HERE = os.path.dirname(os.path.abspath(__file__))
DEBIAN = ("etcd", "containerd", "containerd-shim-runc-v2", "ctr", "runc", "busybox", "openssl", "nft", "ip")


class Missing(Exception):
    """Says which components are not on this machine."""


class Components:
    def __init__(self):
        done = subprocess.run([os.path.join(HERE, "components"), "--check"], capture_output=True, text=True, check=False)
        missing = re.findall("missing: (.*)", done.stderr)
        missing += [f"{program} (Debian)" for program in DEBIAN if not shutil.which(program)]
        if not os.path.exists("/usr/lib/cni/bridge"):
            missing.append("/usr/lib/cni/bridge (Debian's containernetworking-plugins)")
        if missing:
            raise Missing("the real node needs what is not here: " + ", ".join(missing) +
                          "; `make test-node` builds and installs all of it")
        self.folder = done.stdout.strip()
        with open(os.path.join(HERE, "versions"), encoding="ascii") as file:
            self.versions = dict(re.findall("^([A-Z0-9_]+)=(.*)$", file.read(), re.MULTILINE))

    def kubernetes(self, program):
        return os.path.join(self.folder, f"kubernetes-{self.versions['KUBERNETES']}", program)

    def containerd_folder(self, major):
        """Where `containerd`, `ctr` and the shim are; the shim is found by PATH."""
        return "/usr/bin" if major == 1 else os.path.join(self.folder, f"containerd-{self.versions['CONTAINERD2']}")

    def cni_plugins(self, major):
        """The folder of the primary plugins beside that containerd: Debian's, which know CNI 1.0.0, or those that know 1.1.0."""
        return "/usr/lib/cni" if major == 1 else os.path.join(self.folder, f"cni-plugins-{self.versions['CNI_PLUGINS']}")

    def helm(self):
        return os.path.join(self.folder, f"helm-{self.versions['HELM']}", "helm")
