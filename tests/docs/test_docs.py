"""What the documents say is there: links, files, functions, make targets, commands and their options."""
import json
import os
import pathlib
import re
import subprocess

import pytest

from .documents import DOCUMENTS, REPOSITORY, find_test, rows

INSTALLER = pathlib.Path(os.environ.get("AMBIENT_BUILD", REPOSITORY / "build")) / "ambient-installer"
each_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
MAKEFILE = (REPOSITORY / "Makefile").read_text()
COMMANDS = re.findall(r"^  ([a-z]+) ", subprocess.run([INSTALLER, "--help"], capture_output=True, text=True, check=True).stdout, re.M)
assert "run" in COMMANDS


def anchors(path):
    """As GitHub makes them of headings."""
    headings = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def shell_lines(document):
    for block in re.findall(r"```sh\n(.*?)```", document.read_text(), re.S):
        yield from block.replace("\\\n", " ").splitlines()


@each_document
def test_links_lead_somewhere(document):
    for target in re.findall(r"\]\(([^)\s]+)\)", document.read_text()):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path) if path else document
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


@each_document
def test_files_that_are_named_are_there(document):
    folders = {path.name for path in REPOSITORY.iterdir() if path.is_dir()}
    missing = []
    for name in re.findall(r"`([\w./-]+)`", document.read_text()):
        if "NAME" not in name and "/" in name and name.split("/")[0] in folders - {"build"} and not list(REPOSITORY.glob(name.rstrip("/"))):
            missing.append(name)
    assert not missing


def test_the_questions_of_the_architecture_are_answered_where_it_says():
    """Of a row that names a file and a word of code, the file holds the word."""
    table = (REPOSITORY / "docs/architecture.md").read_text().partition("## Where is")[2]
    checked = 0
    for row in re.findall(r"^\|[^|]*\?\s*\|(.*)\|$", table, re.M):
        names = re.findall(r"`([^`]+)`", row)
        files = [REPOSITORY / name for name in names if (REPOSITORY / name).is_file()]
        for word in (name for name in names if re.fullmatch(r"[a-z]+_[a-z_]+", name)):
            assert any(re.search(rf"\b{word}\b", file.read_text()) for file in files), (row, word)
            checked += 1
    assert checked >= 5


@each_document
def test_make_targets_that_are_named_are_there(document):
    targets = set(re.findall(r"^([a-z][\w-]*):", MAKEFILE, re.M))
    named = set(re.findall(r"\bmake ([a-z][\w-]*)", "\n".join(shell_lines(document)))) | set(
        re.findall(r"`make ([a-z][\w-]*)", document.read_text()))
    assert named <= targets


@each_document
def test_commands_and_options_that_are_named_are_there(document):
    text = document.read_text()
    for command, rest in re.findall(r"ambient-installer ([a-z]+)\b([^`\n]*)", text):
        if command not in COMMANDS:
            # Prose: "ambient-installer starts".
            assert not re.search(rf"[`$] ?(?:\S*/)?ambient-installer {command}", text), command
            continue
        usage = subprocess.run([INSTALLER, command, "--help"], capture_output=True, text=True, check=False)
        assert usage.returncode == 0, command
        for option in re.findall(r"\s(--[a-z-]+)", rest):
            assert option in usage.stdout or option == "--help", f"{command} {option}"


@each_document
def test_tests_that_are_named_are_there(document):
    for name in re.findall(r"`(tests/[\w/]+\.py::\w+)`", document.read_text()):
        find_test(name)


def test_each_claim_of_the_threat_model_names_a_test():
    """In the tables of docs/security.md: tests, and inputs that are fuzzed, that exist."""
    claims = rows((REPOSITORY / "docs/security.md").read_text())
    assert len(claims) > 20
    for claim, where in claims:
        named = re.findall(r"`([^`]+)`", where)
        assert named and re.sub(r"`[^`]+`|[ ,]", "", where) == "", claim
        for name in named:
            assert (REPOSITORY / name.partition("::")[0]).is_file(), name
            assert name.startswith(("tests/fuzz/", "tests/unit/")) or "::" in name, name


def test_the_plugins_keys_are_those_that_it_reads():
    """docs/plugin.md: the example and the table have every key, with its default, and the plugin takes the example."""
    text = (REPOSITORY / "docs/plugin.md").read_text()
    example = json.loads(re.search(r"```json\n(.*?)```", text, re.S).group(1))
    table = {name: default for key, default, _ in (row for row in rows(text) if len(row) == 3)
             for name, default in zip(key.split(", "), default.split(", ") if ", " in key else [default])}
    source = (REPOSITORY / "plugin/config.c").read_text()
    read = set(re.findall(r'(?:json_get_\w+|read_choice)\(json, "(\w+)"', source))
    assert {"enrollment", "runDir", "redirect"} < read
    assert set(table) == read - {"cniVersion", "name", "type"} and set(example) == read
    for key in set(table) - {"redirect", "logFile", "installerNamespace"}:
        assert str(example[key]).replace("'", '"') == table[key], key
    done = subprocess.run([INSTALLER.parent / "ambient-cni"], input=json.dumps(example), capture_output=True, text=True, check=False, env={
        "CNI_COMMAND": "DEL", "CNI_CONTAINERID": "none", "CNI_IFNAME": "eth0", "CNI_PATH": "/"})
    assert done.returncode == 0 and done.stdout == "", done.stdout
