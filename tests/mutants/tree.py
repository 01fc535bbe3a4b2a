"""Whether tests can fail: a copy of the sources in which one thing is broken, built, and the tests that are run on it.

    tree = Tree("security")
    with tree.with_mutation(mutation) as build:     # a build folder; the copy is as it was afterwards
        outcomes = tree.run_tests(mutation.tests)

Whoever runs other programs on it runs them behind ALONE. The copy lies below build/mutants and is kept: a mutation compiles the file that it changes and links again. Two processes with the
same name wait for each other; with names of their own they don't meet."""
import contextlib
import dataclasses
import fcntl
import os
import pathlib
import re
import shutil
import signal
import subprocess

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("AMBIENT_BUILD", REPOSITORY / "build"))
# Both programs, and what tests in Python run besides.
PROGRAMS = ("all", "helpers")
# A broken product may do what it must not: it sees another host network, and its mounts and processes go with the tests.
ALONE = ("unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
         "sh", "-c", 'ip link set lo up && exec "$@"', "sh")


@dataclasses.dataclass(frozen=True)
class Mutation:
    """`text` stands exactly once in `file`. Where the Makefile is changed make can't tell what has to be made again: `again` says
    it, as patterns below the build folder."""
    claim: str
    file: str
    text: str
    replacement: str
    tests: tuple
    again: tuple = ()

    def problem(self, root=REPOSITORY):
        """Why it can't be applied, or None."""
        path = root / self.file
        if not path.is_file():
            return f"{self.file} is not there"
        count = path.read_text().count(self.text)
        if count != 1:
            return f"{self.file}: the text to replace stands there {count} times, expected once: {self.text!r}"
        return "the replacement is the text" if self.text == self.replacement else None

    def applied(self, root):
        return (root / self.file).read_text().replace(self.text, self.replacement)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one named test: "passed", "failed" or "broken" (it did not come to judge: not built, no fixture, no end)."""
    state: str
    told: str


class Tree:
    def __init__(self, name):
        self.root = BUILD / "mutants" / name
        self.build = self.root / "build"
        self.root.mkdir(parents=True, exist_ok=True)
        self._lock = open(self.root.with_suffix(".lock"), "w", encoding="ascii")  # pylint: disable=consider-using-with
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        self._copy()

    def _copy(self):
        """Only what differs is written: the rest is not compiled again. A mutation that an interrupted run left goes, too."""
        listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=REPOSITORY, check=True,
                                capture_output=True, text=True).stdout.split("\0")
        wanted = {name for name in listed if name and (REPOSITORY / name).is_file()}
        for folder, folders, files in os.walk(self.root):
            below = pathlib.Path(folder).relative_to(self.root)
            if below == pathlib.Path():
                folders[:] = [name for name in folders if name != "build"]
            for name in files:
                if str(below / name) not in wanted:
                    (self.root / below / name).unlink()
        for name in wanted:
            source, target = REPOSITORY / name, self.root / name
            if target.is_file() and target.read_bytes() == source.read_bytes():
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(source, target)

    def make(self, *targets):
        """Raises with make's last words."""
        done = subprocess.run(["nice", "make", "-s", "BUILD=build", "VERSION=mutant", "WERROR=-Werror=implicit-function-declaration", *targets], cwd=self.root, check=False,
                              env={**os.environ, "MAKEFLAGS": "", "CI": ""}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"make {' '.join(targets)}: {done.stdout[-3000:]}")

    @contextlib.contextmanager
    def with_mutation(self, mutation, targets=PROGRAMS):
        """Yields the build folder of the tree with `mutation` alone."""
        if problem := mutation.problem(self.root):
            raise ValueError(problem)
        path = self.root / mutation.file
        before = path.read_text()

        def write(text):
            path.write_text(text)
            for pattern in mutation.again:
                for made in self.build.glob(pattern):
                    made.unlink()
        try:
            write(mutation.applied(self.root))
            self.make(*targets)
            yield self.build
        finally:
            write(before)

    def run_tests(self, names, seconds=300):
        """{name: Outcome}. They run in a network of their own. Names are FILE.py::FUNCTION, a C file of tests/unit, or one of tests/fuzz, whose corpus is replayed."""
        outcomes = {name: self._run_program(name) for name in names if name.endswith(".c")}
        return {**outcomes, **self._run_pytest([name for name in names if name not in outcomes], seconds)}

    def _run(self, command, seconds):
        """(status or None, what it wrote)"""
        with subprocess.Popen([*ALONE, "nice", *map(str, command)], cwd=self.root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              start_new_session=True, text=True, errors="replace",
                              env={**os.environ, "AMBIENT_BUILD": str(self.build), "COLUMNS": "400"}) as process:
            try:
                told = process.communicate(timeout=seconds)[0]
                return process.returncode, told
            except subprocess.TimeoutExpired:
                return None, f"no end after {seconds} s"
            finally:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)

    def _run_program(self, name):
        path = pathlib.Path(name)
        program = self.build / ("fuzz" if path.parts[1] == "fuzz" else "tests") / path.stem
        try:
            self.make(str(program.relative_to(self.root)))
        except RuntimeError as error:
            return Outcome("broken", str(error))
        status, told = self._run([program, *([f"tests/fuzz/corpus/{path.stem}"] if path.parts[1] == "fuzz" else [])], 120)
        last = next((line for line in reversed(told.splitlines()) if re.search("error|Assert|FAILED|expected|holds", line)), told[-200:])
        return Outcome("broken" if status is None else "passed" if status == 0 else "failed", last)

    def _run_pytest(self, names, seconds):
        if not names:
            return {}
        _, told = self._run(["/usr/bin/python3", "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", "--rootdir", self.root,
                             "--tb=short", "-rpfE", *names], seconds)
        # By the whole name, with its parameters. What fails when it is over, in a fixture's end, has passed before.
        cases = {}
        for state, case, words in re.findall(r"^(PASSED|FAILED|ERROR) (.+?)(?: - (.*))?$", told, re.M):
            cases.setdefault(case, {})[state] = words or "(no words)"
        found = {}
        for name in names:
            # A test with parameters fails when one of them does. What did not get as far as to judge is no failure.
            own = {case: states for case, states in cases.items() if case.partition("[")[0] == name}
            failed = [(case, states.get("FAILED") or states["ERROR"]) for case, states in own.items()
                      if "FAILED" in states or {"PASSED", "ERROR"} <= set(states)]
            if failed:
                found[name] = Outcome("failed", " ".join(failed[0])[len(name):])
            elif own and all(set(states) == {"PASSED"} for states in own.values()):
                found[name] = Outcome("passed", "")
            else:
                found[name] = Outcome("broken", str(own) + told[-2000:])
        return found
