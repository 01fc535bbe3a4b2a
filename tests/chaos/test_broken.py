"""broken.py keeps up with the sources; `make chaos-judge` tries what stands there."""
import pytest

from .broken import PRODUCTS


@pytest.mark.parametrize("product", PRODUCTS, ids=lambda product: product.claim)
def test_it_can_be_applied(product):
    assert product.problem() is None
