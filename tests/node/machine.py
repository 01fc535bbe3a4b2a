"""A machine for one node: namespaces of its own that are made by machine_launcher.py, and programs that run in it.

The machine's network is its own, too: a device eth0 with the node's addresses, whose other end leads nowhere. Nothing of the surrounding
machine's network, /etc/cni, /opt/cni or /run is touched."""
import os
import re
import signal
import subprocess
import sys
import tempfile

from .waiting import wait_until

HERE = os.path.dirname(os.path.abspath(__file__))
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "ambient-cni/node")
# What the node's programs are started from, wherever it lies: the checkout, the product as built, and the components.
SHOWN = (os.path.dirname(os.path.dirname(HERE)), os.path.abspath(os.environ.get("AMBIENT_BUILD", HERE)), CACHE)
ADDRESS = {4: "10.99.0.1", 6: "fd99::1"}
PREFIX_LENGTH = {4: 24, 6: 64}


def child_of(process):
    """The only child of a process, or None."""
    try:
        with open(f"/proc/{process}/task/{process}/children", encoding="ascii") as file:
            children = file.read().split()
    except FileNotFoundError:
        return None
    return int(children[0]) if children else None


class Program:
    """A program that runs in a machine, and its log."""

    def __init__(self, machine, name, arguments, environment=None):
        self.name = name
        self.log = os.path.join(machine.state, f"{name}.log")
        with open(self.log, "ab") as log:
            log.write(f"--- {' '.join(arguments)}\n".encode())
            log.flush()
            self.outer = subprocess.Popen(machine.enter + list(arguments), stdin=subprocess.DEVNULL, stdout=log,
                                          stderr=subprocess.STDOUT, env={**machine.environment, **(environment or {})})
        self.process = wait_until(lambda: child_of(self.outer.pid) or self.outer.poll() is not None, 10, f"{name} starts")
        if self.process is True:
            raise AssertionError(f"{name} ended at once with status {self.outer.returncode}:\n{self.tail()}")

    def is_running(self):
        return self.outer.poll() is None

    def send_signal(self, number):
        if self.is_running():
            os.kill(self.process, number)

    def stop(self, number=signal.SIGTERM, seconds=20):
        """Sends a signal and waits for the end."""
        self.send_signal(number)
        try:
            self.outer.wait(seconds)
        except subprocess.TimeoutExpired:
            self.send_signal(signal.SIGKILL)
            self.outer.wait(10)

    def kill(self):
        self.stop(signal.SIGKILL)

    def tail(self, lines=25):
        with open(self.log, encoding="utf-8", errors="replace") as file:
            return "".join(f"    {self.name}: {line}" for line in file.readlines()[-lines:])


class Machine:
    def __init__(self, families=(4, 6)):
        self.families = families
        self.state = tempfile.mkdtemp(prefix="ambient-node-")
        self.cgroup = os.path.basename(self.state)
        self.programs = {}
        self.environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8"}
        self._boot()

    def _boot(self):
        self.launcher = subprocess.Popen([sys.executable, os.path.join(HERE, "machine_launcher.py"), self.state, self.cgroup,
                                          *filter(os.path.isdir, SHOWN)],
                                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        line = self.launcher.stdout.readline()
        if not line:
            self.launcher.wait()
            raise AssertionError("the machine of the node did not come up; it needs root, overlayfs and namespaces")
        self.process_one = int(line)
        self.enter = ["nsenter", f"--target={self.process_one}", "--pid", "--mount", "--net", "--ipc", "--uts", "--wd=/", "--"]
        self.run("hostname", "node1")
        self.run("ip", "-batch", "-", stdin="link set lo up\nlink add eth0 type veth peer name uplink\n"
                 "link set uplink up\nlink set eth0 up\n")
        for family in self.families:
            address = f"{ADDRESS[family]}/{PREFIX_LENGTH[family]} dev eth0"
            self.run("ip", f"-{family}", "-batch", "-", stdin=f"addr add {address}\nroute add default dev eth0\n")
        for name, value in (("net.ipv4.ip_forward", 1), ("net.ipv6.conf.all.forwarding", 1),
                            ("net.ipv6.conf.default.accept_dad", 0), ("net.ipv6.conf.all.accept_dad", 0)):
            self.run("sh", "-c", f"echo {value} > /proc/sys/{name.replace('.', '/')}")

    def reboot(self):
        """Every process dies, namespaces and /run go; /etc, /opt, /var stay."""
        self._halt("keep")
        self._boot()

    def _halt(self, state):
        """`state`: "keep" or "remove"."""
        self.launcher.stdin.write(state)
        self.launcher.stdin.close()
        self.launcher.wait(60)
        for program in self.programs.values():
            program.outer.wait(10)
        self.programs = {}

    def close(self):
        self._halt("remove")

    def run(self, *arguments, stdin=None, check=True, timeout=60):
        """Runs a program in the machine and returns its standard output."""
        done = subprocess.run(self.enter + list(arguments), input=stdin, capture_output=True, text=True, check=False,
                              env=self.environment, timeout=timeout)
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(arguments)}: exit status {done.returncode}: {done.stderr}{done.stdout}")
        return done.stdout

    def start(self, name, *arguments, environment=None):
        program = self.programs[name] = Program(self, name, arguments, environment)
        return program

    def path(self, path):
        """The path by which the outside reaches a file of the machine. A symbolic link on the way, as /var/run, would lead outside."""
        path = re.sub("^/var/run(?=/)", "/run", path)
        return f"/proc/{self.process_one}/root{path}"

    def write(self, path, text, mode=0o644):
        outside = self.path(path)
        os.makedirs(os.path.dirname(outside), exist_ok=True)
        with open(outside, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(outside, mode)

    def read(self, path):
        with open(self.path(path), encoding="utf-8") as file:
            return file.read()
