"""Makes a machine of its own inside this one and takes it down again, whatever happens to whoever asked for it.

    python3 machine_launcher.py STATE CGROUP [SHOWN...]    (machine.py starts it)

The launcher stays outside, in a session of its own. It prints the process id of the machine's process 1 as soon as the machine
stands, and waits for the end of its standard input: that comes when the caller closes it, and when the caller dies. Then process 1 is
killed, which kills everything in its process namespace, the mounts and the network go with the last process, and the launcher removes
the cgroups, and STATE unless the caller's last word was "keep".

Process 1 lives in process, mount, network, IPC and host-name namespaces of its own. The root is the machine's, read as it is; what a
node writes to is covered: /etc, /opt, /var and /usr/libexec by overlays whose upper halves lie in STATE and so survive a "reboot", /run
and /tmp by an empty tmpfs, /proc by that of the new process namespace. Runtimes can't stack their overlays on an overlay, so what
they keep below /var/lib lies in STATE directly."""
import ctypes
import os
import shutil
import signal
import sys
import time

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SHARED = 1 << 20
PR_SET_PDEATHSIG = 1

COVERED = ("etc", "opt", "var", "usr/libexec")
# What the machine around may have of a node of its own is not there in the new one.
HIDDEN = ("/etc/cni", "/etc/containerd", "/etc/kubernetes", "/opt/cni", "/var/lib/cni")
STACKED_ON = ("var/lib/containerd", "var/lib/kubelet", "var/lib/etcd")

_libc = ctypes.CDLL(None, use_errno=True)


def check(result, what):
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def mount(source, target, kind=None, flags=0, data=None):
    texts = [text.encode() if text is not None else None for text in (source, target, kind, data)]
    check(_libc.mount(texts[0], texts[1], texts[2], flags, texts[3]), f"mount {target}")


def cover(state, shown):
    mount(None, "/", flags=MS_REC | MS_PRIVATE)
    is_new = not os.path.exists(os.path.join(state, "upper"))
    for folder in COVERED:
        upper, work = (os.path.join(state, half, folder.replace("/", "-")) for half in ("upper", "work"))
        os.makedirs(upper, exist_ok=True)
        os.makedirs(work, exist_ok=True)
        mount("overlay", f"/{folder}", "overlay", data=f"lowerdir=/{folder},upperdir={upper},workdir={work}")
    for folder in HIDDEN if is_new else ():
        shutil.rmtree(folder, ignore_errors=True)
    for folder in STACKED_ON:
        kept = os.path.join(state, folder.replace("/", "-"))
        os.makedirs(kept, exist_ok=True)
        os.makedirs(f"/{folder}", exist_ok=True)
        mount(kept, f"/{folder}", flags=MS_BIND)
    held = {folder: os.open(folder, os.O_PATH | os.O_CLOEXEC) for folder in (state, *shown)}
    mount("tmpfs", "/run", "tmpfs", data="mode=755")
    mount("tmpfs", "/tmp", "tmpfs", data="mode=1777")
    for folder, descriptor in held.items():
        if folder == state or not os.path.exists(folder):
            os.makedirs(folder, exist_ok=True)
            mount(f"/proc/self/fd/{descriptor}", folder, flags=MS_BIND)
        os.close(descriptor)
    mount("proc", "/proc", "proc")
    # Mounts of the kubelet must reach the containers that ask for it.
    mount(None, "/", flags=MS_REC | MS_SHARED)


def process_one(state, shown, ready):
    _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    cover(state, shown)
    os.write(ready, b".")
    os.close(ready)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    # Only somebody else's orphans arrive here.
    while True:
        try:
            os.waitpid(-1, 0)
        except ChildProcessError:
            time.sleep(0.2)


def make_machine(state, shown):
    """The parent of process 1: its process namespace is the outside one, so the number that it sees is the one to tell."""
    read_end, write_end = os.pipe()
    parent = os.fork()
    if parent == 0:
        os.close(read_end)
        _libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        check(_libc.unshare(CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWPID | CLONE_NEWNET), "unshare")
        ready_read, ready_write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(write_end)
            os.close(ready_read)
            process_one(state, shown, ready_write)
        os.close(ready_write)
        if os.read(ready_read, 1):
            os.write(write_end, str(child).encode())
        os.close(write_end)
        os.waitpid(child, 0)
        os._exit(0)
    os.close(write_end)
    number = os.read(read_end, 32)
    os.close(read_end)
    if not number:
        raise RuntimeError("the machine did not come up")
    return parent, int(number)


def cgroup_folders(name):
    """The cgroup of that name in every hierarchy (v1: one for each controller; v2: one)."""
    root = "/sys/fs/cgroup"
    if os.path.exists(f"{root}/cgroup.controllers"):
        return [f"{root}/{name}"]
    return [f"{root}/{hierarchy}/{name}" for hierarchy in sorted(os.listdir(root))
            if os.path.isdir(f"{root}/{hierarchy}") and not os.path.islink(f"{root}/{hierarchy}")]


def make_cgroups(name):
    for folder in cgroup_folders(name):
        os.makedirs(folder, exist_ok=True)
        for file in ("cpuset.cpus", "cpuset.mems"):
            # A new cpuset (v1) is empty, and nothing can run in it.
            if "/cpuset/" in folder:
                with open(f"{os.path.dirname(folder)}/{file}", encoding="ascii") as above:
                    value = above.read()
                with open(f"{folder}/{file}", "w", encoding="ascii") as own:
                    own.write(value)


def remove_cgroups(name):
    for folder in cgroup_folders(name):
        for path, _, _ in os.walk(folder, topdown=False):
            for _ in range(100):
                try:
                    os.rmdir(path)
                    break
                except OSError:
                    time.sleep(0.02)


def main(state, cgroup, *shown):
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    make_cgroups(cgroup)
    word = ""
    try:
        parent, process = make_machine(state, shown)
        try:
            sys.stdout.write(f"{process}\n")
            sys.stdout.flush()
            word = sys.stdin.read()
        finally:
            os.kill(process, signal.SIGKILL)
            os.waitpid(parent, 0)
    finally:
        remove_cgroups(cgroup)
        if word != "keep":
            shutil.rmtree(state, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
