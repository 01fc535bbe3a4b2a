"""The manual page, the completions and the program's own help name the same commands and options."""
import re
import shutil
import subprocess

import pytest

from tests.agent.node import INSTALLER, REPOSITORY

COMPLETION = REPOSITORY / "deploy/completion/ambient-installer.bash"


def usage():
    """{command: options} of the program."""
    text = subprocess.run([str(INSTALLER), "--help"], capture_output=True, text=True, check=True).stdout
    found = {}
    for command in re.findall(r"^  (\w+) ", text, re.M):
        own = subprocess.run([str(INSTALLER), command, "--help"], capture_output=True, text=True, check=True).stdout
        found[command] = set(re.findall(r"--[a-z-]+", own.splitlines()[0])) | ({"-o"} if "[-o " in own else set())
    assert len(found) > 10
    return found


def complete(*words):
    """What bash offers for the last word."""
    script = (f"source {COMPLETION}; COMP_WORDS=({' '.join(repr(word) for word in words)}); COMP_CWORD={len(words) - 1}; "
              "_ambient_installer; printf '%s\\n' \"${COMPREPLY[@]}\"")
    # compopt belongs to a completion that runs.
    done = subprocess.run(["bash", "-c", "compopt() { :; }; " + script], capture_output=True, text=True, check=True,
                          env={"PATH": f"{INSTALLER.parent}:/usr/bin:/bin"})
    assert done.stderr == ""
    return set(done.stdout.split())


def test_manual_page_names_every_command_and_option():
    page = (REPOSITORY / "docs/man/ambient-installer.8").read_text()
    synopsis, rest = page.split(".Sh DESCRIPTION")
    for command, options in usage().items():
        blocks = "".join(block for block in synopsis.split(".Nm\n")[1:] if block.startswith(f".Cm {command}\n"))
        assert blocks and f".It Cm {command}\n" in rest, command
        named = {"--" + name for name in re.findall(r"Fl -([a-z-]+)", blocks)}
        named |= {"--config", "--set"} if "Ar CONFIGURATION" in blocks else set()
        named |= {"-o"} if "Fl o " in blocks else set()
        assert named == options, command


def test_manual_pages_are_well_formed():
    if not shutil.which("mandoc"):
        pytest.fail("mandoc is missing: make deps")
    for page in sorted((REPOSITORY / "docs/man").glob("*.8")):
        done = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", page], capture_output=True, text=True)
        assert done.stdout + done.stderr == "", page


def test_bash_completion():
    commands = usage()
    assert complete("ambient-installer", "") == set(commands) | {"--help"}
    for command, options in commands.items():
        offered = complete("ambient-installer", command, "-")
        assert offered == {"--output" if option == "-o" else option for option in options} | {"--help"}, command
    assert complete("ambient-installer", "status", "-o", "") == {"text", "json"}
    assert complete("ambient-installer", "st") == {"status"}
    assert complete("ambient-installer", "explain", "no-such") == set()


def test_zsh_completion_names_the_same():
    text = (REPOSITORY / "deploy/completion/_ambient-installer").read_text()
    assert set(re.findall(r"^\t\t['\"](\w+):", text, re.M)) == set(usage())
    for options in usage().values():
        for option in options:
            assert option in text, option
