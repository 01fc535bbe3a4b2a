"""A pod with a tunnel and an application in it, and a peer around it; see node.py, tunnel.py and traffic.py."""
import pytest

from .mesh import Mesh
from .namespace import Namespace


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def family(request):
    return request.param


@pytest.fixture
def mesh():
    mesh = Mesh()
    yield mesh
    mesh.close()


@pytest.fixture
def pod_alone():
    """A namespace with nothing in it but lo, which is down."""
    namespace = Namespace()
    yield namespace
    namespace.close()


@pytest.fixture
def make_mesh():
    made = []

    def make(**options):
        made.append(Mesh(**options))
        return made[-1]

    yield make
    for mesh in made:
        mesh.close()
