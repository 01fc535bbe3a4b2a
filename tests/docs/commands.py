"""Every command of the documents: of blocks marked sh, and in the text between backticks.

    commands.py newcomer    prints what a newcomer types who follows the README in its order, on a machine without a cluster"""
import re
import sys

try:
    from .documents import DOCUMENTS, MAN_PAGES, REPOSITORY
except ImportError:  # as a program
    from documents import DOCUMENTS, MAN_PAGES, REPOSITORY

PROGRAMS = ("ambient-installer", "helm", "kubectl", "istioctl", "skopeo", "curl", "nft", "nsenter", "grep", "ip", "iptables", "journalctl",
            "crictl", "ctr", "crio", "containerd", "cnitool", "systemctl", "make", "man", "strace", "perf", "nice", "git", "docker", "buildah",
            "python3", "pytest", "sysctl", "cat", "ls", "rm", "cp", "apt-get", "unshare")
# Words of a shell that go on over several lines, and what ends them.
COMPOUND = {"for": "done", "while": "done", "if": "fi"}


def without_remark(line):
    """A remark begins with # at the beginning or behind a blank, outside quotes."""
    quote = None
    for at, sign in enumerate(line):
        if quote:
            quote = None if sign == quote else quote
        elif sign in "'\"":
            quote = sign
        elif sign == "#" and (at == 0 or line[at - 1].isspace()):
            return line[:at].rstrip()
    return line.rstrip()


def blocks(text):
    """Every block marked sh, without the indentation of a list that it stands in."""
    for indentation, block in re.findall(r"^( *)```sh\n(.*?)^ *```", text, re.S | re.M):
        yield re.sub(rf"^{indentation}", "", block, flags=re.M)


def of_block(block):
    """The commands of a block, each as it is typed, over several lines where it is one of several lines."""
    found, lines = [], block.splitlines()
    while lines:
        line = without_remark(lines.pop(0))
        while line.endswith("\\"):
            line = line[:-1].rstrip() + " " + without_remark(lines.pop(0)).lstrip()
        if not line.strip():
            continue
        if here := re.search(r"<<'?(\w+)'?$", line):
            while not line.endswith(f"\n{here.group(1)}"):
                line += "\n" + lines.pop(0)
        elif line.split()[0] in COMPOUND:
            while line.split()[-1] != COMPOUND[line.split()[0]]:
                line += "\n" + without_remark(lines.pop(0))
        found.append(line)
    return found


def in_text(text):
    """What stands between backticks and is a program with arguments."""
    text = re.sub(r"^ *```.*?^ *```", "", text, flags=re.S | re.M)
    for span in re.findall(r"`([^`]+)`", text):
        command = " ".join(span.split())
        if " " in command and command.split()[0] in PROGRAMS:
            yield command


def of_document(document):
    """[(the command, whether it stands in a block)]"""
    text = document.read_text()
    return [(command, True) for block in blocks(text) for command in of_block(block)] + [(command, False) for command in in_text(text)]


def of_page(page):
    """The commands that a manual page shows on a line of their own."""
    return [line.replace("\\-", "-") for line in re.findall(r"^\.Dl (.*)$", page.read_text(), re.M)]


def of_all():
    """[(the document or page, the command)], each once."""
    found = [(document, command) for document in DOCUMENTS for command, _ in of_document(document)]
    return list(dict.fromkeys(found + [(page, command) for page in MAN_PAGES for command in of_page(page)]))


def of_program(program):
    """Every command that begins with this program, once: what is piped behind it is part of it."""
    return list(dict.fromkeys(command for _, command in of_all() if command.split()[0] == program))


def newcomer():
    """The README up to the part that needs a cluster. The tests are a target of their own."""
    text = (REPOSITORY / "README.md").read_text()
    found = [command for block in blocks(text.partition("\n## Install")[0]) for command in of_block(block)]
    return [command for command in found if command != "make test"]


def typed(commands):
    """For a shell that reads them one after the other, as from a keyboard, and so hands the rest to a shell that one of them
    starts; who fails ends all of it."""
    lines = []
    for command in commands:
        lines.append(f"echo '+' {quoted(command)}")
        if command.endswith(" bash"):
            lines.append(f"exec {command}")
        else:
            # What asks questions must not take the commands that follow for an answer.
            lines += [command + (" </dev/null" if command.startswith("make ") else ""), "[ $? = 0 ] || exit 1"]
    return "\n".join(lines) + "\n"


def quoted(command):
    return "'" + command.splitlines()[0].replace("'", "'\\''") + "'"


if __name__ == "__main__":
    if sys.argv[1:] != ["newcomer"]:
        sys.exit(__doc__)
    print(typed(newcomer()), end="")
