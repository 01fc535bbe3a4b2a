"""A host with a pod of the mesh and another pod, joined by veth pairs, dual stack; the probe set as a program changes it.

    pod   10.88.0.2 10.88.0.3 fd88::2 fd88::3  ----  host  10.88.0.1 fd88::1
                                                     host  10.77.0.1 fd77::1  ----  other  10.77.0.2 fd77::2
"""
import os
import pathlib
import subprocess

from netns.namespace import Namespace
from netns.node import PEER as HOST
from netns.node import POD, PROBE

BUILD = pathlib.Path(os.environ.get("AMBIENT_BUILD", pathlib.Path(__file__).resolve().parents[2] / "build"))
TOOL = BUILD / "tests" / "probe_set_tool"
TABLE = "ambient-cni-host"

POD_SECOND = {4: "10.88.0.3", 6: "fd88::3"}
OTHER = {4: "10.77.0.2", 6: "fd77::2"}
SERVICE = {4: "203.0.113.1", 6: "2001:db8::1"}


class Host:
    def __init__(self):
        self.host, self.pod, self.other = Namespace(), Namespace(), Namespace()
        for namespace in (self.host, self.pod, self.other):
            namespace.prepare()
        self.host.sysctl("net.ipv4.ip_forward", 1)
        self.host.sysctl("net.ipv6.conf.all.forwarding", 1)
        self.host.ip(f"""
link set lo up
link add pod type veth peer name eth0 netns {self.pod.path}
link add other type veth peer name eth0 netns {self.other.path}
addr add 10.88.0.1/24 dev pod
addr add fd88::1/64 dev pod nodad
addr add 10.77.0.1/24 dev other
addr add fd77::1/64 dev other nodad
link set pod up
link set other up
""")
        for namespace, network, addresses in ((self.pod, 88, (2, 3)), (self.other, 77, (2,))):
            lines = "link set lo up\nlink set eth0 up\n"
            for last in addresses:
                lines += f"addr add 10.{network}.0.{last}/24 dev eth0\naddr add fd{network}::{last}/64 dev eth0 nodad\n"
            namespace.ip(f"{lines}route add default via 10.{network}.0.1\nroute add default via fd{network}::1\n")

    def close(self):
        for namespace in (self.host, self.pod, self.other):
            namespace.close()

    def _run(self, verb, *addresses):
        done = subprocess.run([str(TOOL), verb, self.host.path, *addresses], capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"probe_set_tool {verb}: {done.stderr}"

    def enrol(self, *addresses):
        self._run("put", *addresses)

    def enrol_only(self, *addresses):
        self._run("only", *addresses)

    def uninstall(self):
        self._run("uninstall")
