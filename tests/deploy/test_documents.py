"""What docs/compatibility.md and docs/operate.md say of the chart is so."""
import re

import pytest

from .conftest import CHART, SOURCE
from .istio_values import HONOURED, HONOURED_WITH
from .test_chart_objects import PLATFORMS
from .test_chart_values import ENV_TRANSLATED

COMPATIBILITY = (SOURCE / "docs/compatibility.md").read_text()
PLATFORMS_TABLE = (SOURCE / "docs/platforms.md").read_text().splitlines()
OPERATE = (SOURCE / "docs/operate.md").read_text()


def test_keys_without_effect():
    lines = (CHART / "files/without-effect.yaml").read_text().splitlines()
    for line in lines:
        if not line.startswith("#"):
            key, why = line.split(": ", 1)
            assert f"| `{key}` | {why} |" in COMPATIBILITY, key


def test_keys_that_are_honoured():
    for key in [*HONOURED, *HONOURED_WITH]:
        parents = [key, key.rpartition(".")[0]]
        assert any(f"`{name}`" in COMPATIBILITY for name in parents if name), key


def test_translated_variables():
    for name in ENV_TRANSLATED:
        assert f"`{name}`" in COMPATIBILITY


def test_platforms():
    for name, (binaries, configuration, _) in PLATFORMS.items():
        # By the name that is set, or, of those that need none, by their own.
        (row,) = [line for line in PLATFORMS_TABLE if f"| `{name}` |" in line or re.match(rf"\| ([^|]*, )?{name}[, ][^|]*\| \|", line, re.I)]
        assert binaries in row or "as k3s" in row, row
        assert configuration in row or "the same" in row, row


def test_capabilities(render):
    (result,) = render({})
    documented = re.findall(r"^\| ([A-Z_]+) \|", OPERATE, re.M)
    assert sorted(documented) == sorted(result.container["securityContext"]["capabilities"]["add"])


@pytest.mark.parametrize("document", ["compatibility.md", "operate.md", "install.md", "migrate.md"])
def test_links(document):
    text = (SOURCE / "docs" / document).read_text()
    for target in re.findall(r"\]\(([^)#]+)\)", text):
        assert (SOURCE / "docs" / target).exists(), target
    for path in re.findall(r"\b(deploy/[\w/.-]+\.\w+)", text):
        assert (SOURCE / path).exists(), path
