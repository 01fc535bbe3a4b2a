"""The other side of faults.c: which call fails, and when."""
import contextlib
import errno
import mmap
import os
import pathlib
import struct
import subprocess

BUILD = pathlib.Path(os.environ.get("AMBIENT_BUILD", pathlib.Path(__file__).resolve().parents[2] / "build"))
LIBRARY = BUILD / "tests" / "faults.so"
CALLS = ["none", "malloc", "open", "socket", "bind", "connect", "sendmsg", "recvmsg", "fsync", "rename", "fstat", "setns", "read",
         "write", "accept", "stat", "descriptor", "directory", "unlink", "attribute", "option", "wait", "watch", "process", "close",
         "netlink"]
# What each call fails with; 0: it does half of it.
NUMBERS = {"malloc": [errno.ENOMEM], "open": [errno.EMFILE, errno.ENOSPC], "socket": [errno.EMFILE], "bind": [errno.ENOMEM],
           "connect": [errno.EAGAIN], "sendmsg": [errno.ENOBUFS, errno.EINTR], "recvmsg": [errno.ENOBUFS, errno.EINTR],
           "fsync": [errno.EIO], "rename": [errno.ENOSPC], "fstat": [errno.EIO], "setns": [errno.EPERM],
           "read": [0, errno.EINTR, errno.EIO], "write": [0, errno.EINTR, errno.ENOSPC], "accept": [errno.EMFILE],
           "stat": [errno.EIO], "descriptor": [errno.EMFILE], "directory": [errno.ENOSPC], "unlink": [errno.EROFS],
           "attribute": [errno.EIO], "option": [errno.ENOMEM], "wait": [errno.EINTR], "watch": [errno.ENOSPC],
           "process": [errno.EAGAIN], "close": [errno.EIO], "netlink": [errno.EINVAL]}
# The sanitizer's own malloc comes first, so that ours never sees a call: without it, those are the cases that are left.
SANITIZER = []
if "ASAN_OPTIONS" in os.environ:
    SANITIZER = [subprocess.run(["gcc", "-print-file-name=libasan.so"], capture_output=True, text=True, check=True).stdout.strip()]
    del NUMBERS["malloc"]
CASES = [(call, number) for call, numbers in NUMBERS.items() for number in numbers]


def points(total, usually):
    """Which of so many calls fails: `usually` of them, evenly spread; FAULTS=N: N of them; FAULTS=all: each."""
    chosen = os.environ.get("FAULTS", usually)
    if chosen == "places":
        chosen = usually
    return range(1, total + 1, 1 if chosen == "all" else max(1, -(-total // int(chosen))))


def case_name(case):
    return f"{case[0]}-{errno.errorcode.get(case[1], 'half')}"


class Place(int):
    """Where the program allocates: faults.c says what that is."""
    def __format__(self, _):
        return f"at {int(self):x}"


class Noted:
    """What a program did while it was watched: how often it made a call, and at which places it allocated."""
    def __init__(self, call):
        self.call, self.total, self.places = call, 0, []

    def points(self, usually):
        """As points(); FAULTS=places: allocations fail once at each place."""
        if os.environ.get("FAULTS") != "places":
            return points(max(1, self.total), usually)
        return self.places if self.call == "malloc" else []


class Control:
    FORMAT = f"4i{len(CALLS)}i"
    DAYS = struct.calcsize(FORMAT)
    NOTING, PLACE_COUNT = DAYS + 4, DAYS + 8
    PLACE = -(-(DAYS + 12) // 8) * 8
    PLACES, PLACES_MAX = PLACE + 8, 8192
    SIZE = PLACES + 8 * PLACES_MAX

    def __init__(self, path):
        self.path = pathlib.Path(path)
        self.path.write_bytes(bytes(self.SIZE))
        with open(self.path, "r+b") as file:
            self.map = mmap.mmap(file.fileno(), self.SIZE)

    @property
    def environment(self):
        return {"LD_PRELOAD": ":".join([*SANITIZER, str(LIBRARY)]), "FAULTS_CONTROL": str(self.path)}

    def arm(self, call, point, number):
        """The call fails at the point-th time from now on, or, of allocations, the next time at that place."""
        is_place = isinstance(point, Place)
        struct.pack_into("4i", self.map, 0, 0, 1 if is_place else point, number, 0)
        struct.pack_into("Q", self.map, self.PLACE, point if is_place else 0)
        struct.pack_into("i", self.map, 0, CALLS.index(call))

    def disarm(self):
        struct.pack_into("i", self.map, 0, 0)
        struct.pack_into("Q", self.map, self.PLACE, 0)

    @contextlib.contextmanager
    def noting(self, call):
        noted, before = Noted(call), self.counts()[call]
        struct.pack_into("2i", self.map, self.NOTING, 1, 0)
        yield noted
        struct.pack_into("i", self.map, self.NOTING, 0)
        noted.total = self.counts()[call] - before
        count, = struct.unpack_from("i", self.map, self.PLACE_COUNT)
        assert count <= self.PLACES_MAX, f"{count} places, more than are kept"
        # Two threads may note one place twice.
        noted.places = [Place(place) for place in dict.fromkeys(struct.unpack_from(f"{count}Q", self.map, self.PLACES))]

    def set_clock(self, days):
        """The program's clock of the day is ahead by so many days (negative: behind)."""
        struct.pack_into("i", self.map, self.DAYS, days)

    @property
    def fired(self):
        return struct.unpack_from("4i", self.map)[3] == 1

    def counts(self):
        return dict(zip(CALLS, struct.unpack_from(self.FORMAT, self.map)[4:]))
