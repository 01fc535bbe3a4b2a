"""What the running agent may still ask of the kernel, and what is left of it when it dies: docs/security.md, "A process that was
taken over". tests/unit/test_seccomp.c tries the calls themselves."""
import re


def fields(node, name):
    with open(f"/proc/{node.agent.pid}/{name}", encoding="ascii") as file:
        return file.read()


def test_system_calls_are_filtered(node):
    status = dict(re.findall(r"^(\w+):\s*(.*)$", fields(node, "status"), re.MULTILINE))
    assert status["Seccomp"] == "2" and status["NoNewPrivs"] == "1", status


def test_nothing_secret_is_in_a_core(node):
    """A core of the agent would hold the API server's token. A program that cores are piped to gets none of its memory."""
    limit = next(line for line in fields(node, "limits").splitlines() if line.startswith("Max core file size"))
    assert limit.split()[4:6] == ["0", "0"], limit
    assert int(fields(node, "coredump_filter"), 16) == 0
