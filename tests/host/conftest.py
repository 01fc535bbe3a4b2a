import pytest

from .tool import Host


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path)


@pytest.fixture
def make_host(tmp_path):
    return lambda name="node", **options: Host(tmp_path / name, **options)
