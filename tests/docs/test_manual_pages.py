"""The manual pages: free of warnings for both formatters, shown by man, and with every command, option and key that the program's help
has, and no other (the options of each command: tests/observe/test_manual.py, with the completions)."""
import os
import re
import subprocess

import pytest

from tests.agent.node import INSTALLER

from .documents import REPOSITORY

PAGES = sorted((REPOSITORY / "docs/man").glob("*.8"))
assert len(PAGES) == 2
each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)


def run(*command, **options):
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


@each_page
def test_both_formatters_find_nothing(page):
    done = run("mandoc", "-T", "lint", page)
    # Pages need not be installed here, and lines are as long as in the rest of the sources.
    fine = ("referenced manual not found", "input text line longer than 80 bytes")
    said = [line for line in (done.stdout + done.stderr).splitlines() if f"{page}:" in line and not any(words in line for words in fine)]
    assert said == []
    done = run("groff", "-ww", "-mandoc", "-T", "utf8", page, env={**os.environ, "LC_ALL": "C.UTF-8"})
    assert done.returncode == 0 and done.stderr == "" and "NAME" in done.stdout


@each_page
def test_no_line_is_longer_than_a_terminal(page):
    done = run("mandoc", "-T", "utf8", "-O", "width=78", page, env={**os.environ, "LC_ALL": "C.UTF-8"})
    lines = [re.sub(r".\x08", "", line) for line in done.stdout.splitlines()]
    # A command to be typed is never broken.
    long = [line.strip() for line in lines if len(line) > 80 and not line.strip().startswith(("kubectl ", "curl "))]
    assert long == []


def test_man_shows_it(tmp_path):
    """As `make install` lays it out. Nothing is built anew: other tests run these programs meanwhile."""
    done = run("make", "-s", "-C", REPOSITORY, "--old-file=all", "install", f"DESTDIR={tmp_path}", f"BUILD={INSTALLER.parent}", "PREFIX=/usr",
               env={**os.environ, "MAKEFLAGS": ""})
    assert done.returncode == 0, done.stderr
    shown = run("man", "-M", tmp_path / "usr/share/man", "ambient-installer", env={**os.environ, "MANPAGER": "cat", "PAGER": "cat"})
    assert shown.returncode == 0 and "node agent of ambient-cni" in shown.stdout, shown.stderr


def usage():
    return run(INSTALLER, "--help").stdout


def test_no_command_is_missing_and_none_is_made_up():
    page = (REPOSITORY / "docs/man/ambient-installer.8").read_text()
    synopsis, _, rest = page.partition(".Sh DESCRIPTION")
    real = re.findall(r"^  (\w+) ", usage(), re.M)
    assert set(re.findall(r"^\.Nm\n\.Cm (\w+)", synopsis, re.M)) == set(real)
    # In the order of the help.
    assert re.findall(r"^\.It Cm (\w+)$", rest.partition(".Sh HTTP")[0], re.M) == list(dict.fromkeys(
        re.findall(r"^\.Nm\n\.Cm (\w+)", synopsis, re.M)))
    bash = (REPOSITORY / "deploy/completion/ambient-installer.bash").read_text()
    cases = {name for line in re.findall(r"^\t\t([a-z |]+)\) words=", bash, re.M) for name in line.split(" | ")}
    assert cases == set(real) - {"version"}
    zsh = (REPOSITORY / "deploy/completion/_ambient-installer").read_text()
    assert set(re.findall(r"^\t(\w+)\) _arguments", zsh, re.M)) == set(real) - {"version"}


def test_every_option_that_a_page_names_is_one():
    real = {option for command in re.findall(r"^  (\w+) ", usage(), re.M)
            for option in re.findall(r"--([a-z-]+)", run(INSTALLER, command, "--help").stdout)}
    page = (REPOSITORY / "docs/man/ambient-installer.8").read_text()
    assert set(re.findall(r"Fl -([a-z-]+)", page)) == real
    for file in ("ambient-installer.bash", "_ambient-installer"):
        text = (REPOSITORY / "deploy/completion" / file).read_text()
        text = re.sub(r"^#.*$|compgen.*? -- ", "", text, flags=re.M)
        assert set(re.findall(r"--([a-z]+(?:-[a-z]+)*)", text)) - {"help", "output"} == real, file


def test_keys_and_paths_of_the_pages_are_the_programs():
    reference = run(INSTALLER, "config", "--reference").stdout
    page = (REPOSITORY / "docs/man/ambient-installer.8").read_text()
    for key in re.findall(r"^\.(?:It )?Cm (\w+\.\w+|runDir|tunnelSocket|kubeconfig)\b", page, re.M):
        assert f"| `{key}` |" in reference, key
    for key, default in re.findall(r"^\.It Cm (listen\.\w+) Pq Li (\S+)$", page, re.M):
        assert f'"{default}"' in re.search(rf"\| `{key}` \|.*", reference).group(0), key
    verbs = re.search(r"^\.It Ev CNI_COMMAND\n(.*)\.$", (REPOSITORY / "docs/man/ambient-cni.8").read_text(), re.M).group(1)
    for verb in re.findall(r"[A-Z]+", verbs):
        assert f'"{verb}"' in "".join(path.read_text() for path in (REPOSITORY / "plugin").glob("*.c")) + (
            REPOSITORY / "lib/cni.c").read_text(), verb
