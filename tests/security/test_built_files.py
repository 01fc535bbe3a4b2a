"""The hardening of the built programs, read from the files themselves: docs/security.md, "The programs"."""
import subprocess

import pytest

from agent.node import INSTALLER, PLUGIN
from .conftest import is_sanitized

PROGRAMS = pytest.mark.parametrize("program", [INSTALLER, PLUGIN], ids=["ambient-installer", "ambient-cni"])


def readelf(program, *options):
    return subprocess.run(["readelf", "-W", *options, str(program)], check=True, capture_output=True, text=True).stdout


@PROGRAMS
def test_position_independent(program):
    assert "DYN (Position-Independent Executable file)" in readelf(program, "-h")


@PROGRAMS
def test_relocations_are_read_only_and_bound_at_once(program):
    assert "GNU_RELRO" in readelf(program, "-l")
    dynamic = readelf(program, "-d")
    assert "BIND_NOW" in dynamic or "FLAGS_1" in dynamic and "NOW" in dynamic


@PROGRAMS
def test_no_stack_is_executable_and_no_segment_is_both(program):
    headers = [line.split() for line in readelf(program, "-l").splitlines()]
    stacks = [fields for fields in headers if fields[:1] == ["GNU_STACK"]]
    assert stacks and all(fields[6] == "RW" for fields in stacks), stacks
    loads = [" ".join(fields[6:-1]) for fields in headers if fields[:1] == ["LOAD"]]
    assert loads and not any("W" in flags and "E" in flags for flags in loads), loads


@PROGRAMS
def test_stack_protector_and_fortify(program):
    """Under sanitizers these stand in the place of both."""
    symbols = readelf(program, "--dyn-syms")
    if "NEEDED" not in readelf(program, "-d"):
        # A static program has no such symbols left; what they say when they stop it is in the file.
        content = program.read_bytes()
        assert b"stack smashing detected" in content and b"buffer overflow detected" in content
    elif is_sanitized():
        assert "__asan_report_store" in symbols and "__ubsan_handle" in symbols
    else:
        assert "__stack_chk_fail" in symbols and "__snprintf_chk" in symbols


@PROGRAMS
def test_no_path_of_libraries_and_no_setuid(program):
    dynamic = readelf(program, "-d")
    assert "RPATH" not in dynamic and "RUNPATH" not in dynamic
    assert not program.stat().st_mode & 0o6000
