"""mutations.py keeps up with the sources and with docs/security.md; `make mutants` tries what stands there."""
import re

import pytest

from docs.documents import REPOSITORY, find_test, rows

from .mutations import MUTATIONS, NOT_TRIED

TEXT = (REPOSITORY / "docs/security.md").read_text()
NAMED = r"`(tests/(?:unit|fuzz)/\w+\.c|tests/\w+/\w+\.py(?:::\w+)?)`"


def plain(text):
    return " ".join(text.split())


def covers(mutated, named):
    """The document may name a whole file."""
    return mutated == named or mutated.partition("::")[0] == named


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: f"{mutation.file}-{plain(mutation.claim)[:30]}")
def test_it_can_be_applied(mutation):
    assert mutation.problem() is None
    assert plain(mutation.claim) in plain(TEXT), "docs/security.md claims no such thing"
    for name in mutation.tests:
        assert name.endswith(".c") and (REPOSITORY / name).is_file() or find_test(name)
        assert any(covers(name, named) for named in re.findall(NAMED, TEXT)), f"docs/security.md does not name {name}"


def test_each_claim_of_the_tables_and_each_of_its_tests_has_a_mutation():
    claims = rows(TEXT)
    assert len(claims) > 20
    for claim, where in claims:
        here = [mutation for mutation in MUTATIONS if plain(mutation.claim) in plain(claim)]
        assert here, f"nothing breaks this claim: {claim}"
        named = re.findall(NAMED, where)
        for name in named:
            assert any(name in mutation.tests for mutation in here), f"{name}: no mutation shows that it can fail for: {claim}"
        for mutation in here:
            assert set(mutation.tests) <= set(named), (mutation.claim, mutation.tests)


def test_each_test_of_the_text_has_a_mutation():
    tried = {name for mutation in MUTATIONS for name in mutation.tests}
    named = set(re.findall(NAMED, TEXT))
    missing = [name for name in named - set(NOT_TRIED) if not any(covers(one, name) for one in tried)]
    assert not missing
    assert set(NOT_TRIED) <= named
