"""Every call of the plugin fails in turn. An ADD that failed leaves nothing and says which step failed; a DEL that failed can be
done again; a CHECK changes nothing and never takes a fault for a difference; GC loses nothing that is valid; STATUS and VERSION
answer, or say why not. With a node agent (its double) and without."""
import errno
import os
import shutil

import pytest

from plugin.conftest import Namespace, Plugin, pod_arguments
from plugin.installer_double import Installer
from .control import CASES, Control, case_name, points

# Of all times that a call is made: this many, evenly spread (points).
POINTS = 6


class Subject:
    arguments = None  # CNI_ARGS

    def __init__(self, folder):
        self.control = Control(folder / "control")
        self.plugin = Plugin(folder / "run")
        self.pod = Namespace()
        self.before = self.pod.state()

    def call(self, verb, **more):
        return self.plugin.call(verb, self.pod, changes=self.control.environment, args=self.arguments, **more)

    def count(self, call):
        """How many calls of that name the verb that was just made has made."""
        return self.control.counts()[call]

    def is_clean(self):
        leftovers = [name for name in self.plugin.attachments()]
        return self.pod.state() == self.before and not leftovers

    def del_(self):
        answer = self.plugin.call("DEL", self.pod, args=self.arguments)
        assert answer.status == 0 and self.is_clean(), answer


@pytest.fixture
def subject(tmp_path):
    made = Subject(tmp_path)
    yield made
    made.pod.remove()


@pytest.fixture
def with_agent(subject):
    """Enrollment installer; every pod is of the mesh."""
    subject.plugin.config["enrollment"] = "installer"
    subject.arguments = pod_arguments()
    double = Installer(subject.plugin.run_dir)
    yield subject
    double.close()


def total(subject, verb, call, **more):
    """The calls that one undisturbed run makes."""
    before = subject.count(call)
    answer = subject.call(verb, **more)
    assert answer.status == 0, answer
    return subject.count(call) - before


def names_a_step(answer, number):
    """One error object whose sentence says more than the errno's words. Where there is no memory for one, the status alone."""
    if answer.stdout == "" and number in (errno.ENOMEM, errno.ENOSPC, errno.EIO):
        return answer.status != 0
    return answer.code > 0 and " " in answer.message and answer.message != os.strerror(number)


def died_on_the_way_back(answer):
    """A thread that cannot leave a pod's namespace ends the process: by design (netns_leave)."""
    return answer.status == -6


def judge_del(subject, case, answer, where):
    """It leaves nothing, or fails and names the step."""
    call, number = case
    if answer.status == 0:
        assert subject.is_clean(), where
    elif not (call == "setns" and died_on_the_way_back(answer)):
        assert answer.status == 1 and names_a_step(answer, number), where


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_add(subject, case):
    call, number = case
    count = total(subject, "ADD", call)
    subject.del_()
    for point in points(count, POINTS):
        # The first ADD of all makes directories, and so does each of these.
        shutil.rmtree(subject.plugin.run_dir, ignore_errors=True)
        subject.control.arm(call, point, number)
        answer = subject.call("ADD")
        subject.control.disarm()
        where = f"{case_name(case)} {point} of {count}: {answer}"
        assert subject.control.fired, where
        if answer.status == 0:
            assert subject.pod.is_redirected() and len(subject.plugin.attachments()) == 1, where
        elif call == "setns" and died_on_the_way_back(answer):
            pass
        else:
            assert answer.status == 1 and names_a_step(answer, number), where
            assert subject.is_clean(), where
        subject.del_()


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_del(subject, case):
    call, number = case
    subject.plugin.add(subject.pod)
    count = total(subject, "DEL", call)
    assert subject.is_clean()
    for point in points(count, POINTS):
        subject.plugin.add(subject.pod)
        subject.control.arm(call, point, number)
        answer = subject.call("DEL")
        subject.control.disarm()
        where = f"{case_name(case)} {point} of {count}: {answer}"
        assert subject.control.fired, where
        judge_del(subject, case, answer, where)
        subject.del_()


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_check(subject, case):
    call, number = case
    subject.plugin.add(subject.pod)
    state = subject.pod.state()
    count = total(subject, "CHECK", call)
    for point in points(count, POINTS):
        subject.control.arm(call, point, number)
        answer = subject.call("CHECK")
        subject.control.disarm()
        where = f"{case_name(case)} {point} of {count}: {answer}"
        if not subject.control.fired:
            # The first CHECK of a namespace may need more calls than the next.
            assert answer.status == 0 and point > count // 2, where
            break
        if answer.status != 0 and not (call == "setns" and died_on_the_way_back(answer)):
            assert answer.status == 1 and names_a_step(answer, number) and (not answer.stdout or answer.code != 101), where
        assert subject.pod.state() == state and len(subject.plugin.attachments()) == 1, where


def add_and_delete(subject, case):
    call, number = case
    adding = total(subject, "ADD", call)
    deleting = total(subject, "DEL", call)
    assert subject.is_clean()
    for point in points(adding, POINTS):
        subject.control.arm(call, point, number)
        answer = subject.call("ADD")
        subject.control.disarm()
        where = f"ADD {case_name(case)} {point} of {adding}: {answer}"
        if answer.status == 0:
            # A pod of the mesh never starts outside because of a fault.
            assert subject.pod.is_redirected(), where
        elif not (call == "setns" and died_on_the_way_back(answer)):
            assert answer.status == 1 and names_a_step(answer, number), where
            assert subject.is_clean(), where
        subject.del_()
    for point in points(deleting, POINTS):
        assert subject.plugin.call("ADD", subject.pod, args=subject.arguments).status == 0
        subject.control.arm(call, point, number)
        answer = subject.call("DEL")
        subject.control.disarm()
        where = f"DEL {case_name(case)} {point} of {deleting}: {answer}"
        judge_del(subject, case, answer, where)
        subject.del_()


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_with_the_agent(with_agent, case):
    add_and_delete(with_agent, case)


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_gc(subject, case):
    """What is valid stays, whatever fails; the rest goes, at the latest the next time."""
    call, number = case
    valid = {"cni.dev/valid-attachments": [{"containerID": "sandbox1", "ifname": "eth0"}]}
    subject.plugin.add(subject.pod)
    other = Namespace()
    try:
        before = other.state()
        subject.plugin.add(other, container="gone")
        count = total(subject, "GC", call, config=valid)
        assert other.state() == before and subject.plugin.attachments() == ["sandbox1:eth0.json"]
        for point in points(count, POINTS):
            subject.plugin.add(other, container="gone")
            subject.control.arm(call, point, number)
            answer = subject.call("GC", config=valid)
            subject.control.disarm()
            where = f"{case_name(case)} {point} of {count}: {answer}"
            if answer.status == 0:
                # One that could not be collected is told on standard error.
                assert (other.state() == before and len(subject.plugin.attachments()) == 1) or answer.stderr, where
            elif not (call == "setns" and died_on_the_way_back(answer)):
                assert answer.status == 1 and names_a_step(answer, number), where
            assert subject.pod.is_redirected() and "sandbox1:eth0.json" in subject.plugin.attachments(), where
            answer = subject.plugin.call("GC", config=valid)
            assert answer.status == 0 and other.state() == before, (where, answer)
            assert subject.plugin.attachments() == ["sandbox1:eth0.json"], (where, answer)
    finally:
        other.remove()


@pytest.mark.parametrize("case", CASES, ids=case_name)
def test_status(subject, case):
    call, number = case
    count = total(subject, "STATUS", call)
    for point in points(count, POINTS):
        subject.control.arm(call, point, number)
        answer = subject.call("STATUS")
        subject.control.disarm()
        where = f"{case_name(case)} {point} of {count}: {answer}"
        if answer.status != 0 and not (call == "setns" and died_on_the_way_back(answer)):
            assert answer.status == 1 and names_a_step(answer, number), where
        assert subject.is_clean(), where


def test_version(subject):
    """The whole answer, or none and a status that says so."""
    whole = subject.plugin.call("VERSION").stdout
    for call, number in CASES:
        for point in points(total(subject, "VERSION", call), POINTS):
            subject.control.arm(call, point, number)
            answer = subject.call("VERSION")
            subject.control.disarm()
            where = f"{case_name((call, number))} {point}: {answer}"
            assert answer.stdout == whole if answer.status == 0 else answer.status == 1 and answer.stdout in ("", whole), where
