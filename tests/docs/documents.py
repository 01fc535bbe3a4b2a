"""The documents, and what tests ask of them: tables, commands in blocks and in the text, functions and tests by name."""
import ast
import pathlib
import re

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
DOCUMENTS = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
MAN_PAGES = sorted((REPOSITORY / "docs/man").glob("*.8"))


def rows(text):
    """Every row of every table, as a list of cells; not heads."""
    found = []
    lines = text.splitlines()
    for at, line in enumerate(lines):
        is_rule = re.fullmatch(r"\|[-| ]+\|", line)
        is_head = at + 1 < len(lines) and re.fullmatch(r"\|[-| ]+\|", lines[at + 1])
        if line.startswith("|") and not is_rule and not is_head:
            found.append([cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]])
    return found


def find_function(file, name):
    """The text of a C function."""
    text = (REPOSITORY / file).read_text()
    found = re.search(rf"^[a-z][^\n;]*\b{name}\([^;{{]*\)\n\{{.*?^\}}", text, re.S | re.M)
    assert found, f"{file} has no function {name}"
    return found.group(0)


def find_test(name):
    """The text of FILE::FUNCTION, or FILE::CLASS.METHOD, of Python."""
    file, _, function = name.partition("::")
    path = REPOSITORY / file
    assert path.is_file(), f"{file} is not there"
    text = path.read_text()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef) and node.name == function:
            return ast.get_source_segment(text, node)
    raise AssertionError(f"{file} has no function {function}")
