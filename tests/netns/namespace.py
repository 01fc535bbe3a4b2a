"""Network namespaces that live as long as this process: no names, nothing to clean up after a crash.

A namespace is held by a descriptor alone, so the kernel takes it away, with its devices, rules and routes, when the process
ends, however it ends. Entering is setns(2) of the calling thread; sockets stay where they were made, and programs that are
started inside start there."""
import ctypes
import os
import subprocess

CLONE_NEWNET = 0x40000000
OWN = "/proc/thread-self/ns/net"

_libc = ctypes.CDLL(None, use_errno=True)


def _check(result, what):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _open_own():
    return os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)


class Namespace:
    def __init__(self):
        home = _open_own()
        try:
            _check(_libc.unshare(CLONE_NEWNET), "unshare")
            self.fd = _open_own()
            _check(_libc.setns(home, CLONE_NEWNET), "setns")
        finally:
            os.close(home)
        self._homes = []

    @property
    def path(self):
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def __enter__(self):
        home = _open_own()
        _check(_libc.setns(self.fd, CLONE_NEWNET), "setns")
        self._homes.append(home)
        return self

    def __exit__(self, *_):
        home = self._homes.pop()
        if _libc.setns(home, CLONE_NEWNET) < 0:
            os.abort()  # everything after this would happen to the wrong network
        os.close(home)

    def prepare(self, reverse_path=0):
        """Addresses are usable at once, and packets may come from anywhere (rp_filter)."""
        for key in ("all", "default"):
            self.sysctl(f"net.ipv4.conf.{key}.rp_filter", reverse_path)
            self.sysctl(f"net.ipv6.conf.{key}.accept_dad", 0)

    def close(self):
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1

    def run(self, *arguments, stdin=None, check=True):
        """Runs a program inside and returns its standard output."""
        with self:
            done = subprocess.run(arguments, input=stdin, capture_output=True, text=True, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"{' '.join(arguments)}: exit status {done.returncode}: {done.stderr}{done.stdout}")
        return done.stdout

    def ip(self, commands):
        """Runs commands of ip(8), one a line."""
        self.run("ip", "-batch", "-", stdin=commands)

    def nft(self, commands):
        return self.run("nft", "-f", "-", stdin=commands)

    def sysctl(self, name, value):
        with self, open(f"/proc/sys/{name.replace('.', '/')}", "w", encoding="ascii") as file:
            file.write(str(value))
