"""The machine that nodes stand in: nothing of it stays, and nothing of the surrounding machine changes."""
import glob
import os
import signal
import subprocess
import sys

from . import machine as machine_module
from .machine import Machine
from .waiting import wait_until

FOLDER = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
MAKE = """import sys
sys.path.insert(0, sys.argv[1])
from node.machine import Machine
machine = Machine()
machine.start("sleeps", "sleep", "1000")
print(machine.process_one, machine.programs["sleeps"].process, machine.state, flush=True)
sys.stdin.read()
"""


def is_there(process):
    return os.path.exists(f"/proc/{process}")


def test_nothing_is_left_when_the_tests_are_killed():
    with subprocess.Popen([sys.executable, "-c", MAKE, FOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as tests:
        process_one, program, state = tests.stdout.readline().split()
        name = os.path.basename(state)
        assert is_there(process_one) and is_there(program)
        assert os.path.exists(state) and (glob.glob(f"/sys/fs/cgroup/*/{name}") or os.path.exists(f"/sys/fs/cgroup/{name}"))
        tests.send_signal(signal.SIGKILL)
    wait_until(lambda: not is_there(process_one) and not is_there(program), 10, "the processes of the machine are gone")
    wait_until(lambda: not os.path.exists(state), 20, "the machine's files are gone")
    assert not glob.glob(f"/sys/fs/cgroup/*/{name}") + glob.glob(f"/sys/fs/cgroup/{name}")


def test_a_reboot_keeps_files_and_ends_processes():
    machine = Machine()
    try:
        machine.write("/etc/cni/net.d/10-x.conflist", "kept")
        machine.write("/var/run/gone", "gone")
        assert machine.read("/var/run/gone") == "gone"
        program = machine.start("sleeps", "sleep", "1000")
        machine.reboot()
        assert not is_there(program.process)
        assert machine.read("/etc/cni/net.d/10-x.conflist") == "kept"
        assert not os.path.exists(machine.path("/var/run/gone"))
        assert not os.path.exists("/etc/cni/net.d/10-x.conflist") and not os.path.exists("/run/gone")
        assert machine.run("hostname").strip() == "node1"
    finally:
        machine.close()


def test_a_checkout_below_tmp_is_seen_in_it(tmp_path, monkeypatch):
    """It has a /tmp of its own, and what the tests are started from may lie in the one outside."""
    (tmp_path / "shown").mkdir()
    (tmp_path / "shown/file").write_text("seen")
    (tmp_path / "hidden").mkdir()
    monkeypatch.setattr(machine_module, "SHOWN", (str(tmp_path / "shown"), str(tmp_path / "not-there")))
    machine = Machine()
    try:
        assert machine.run("cat", str(tmp_path / "shown/file")) == "seen"
        assert machine.run("ls", str(tmp_path)).split() == ["shown"]
    finally:
        machine.close()
