"""A host, a pod with an application that listens on TCP 8080, and another pod."""
import pytest

from netns.traffic import Arrival, Listeners

from .host import Host

PORT = 8080


class Probes:
    def __init__(self):
        self.place = Host()
        self.host, self.pod, self.other = self.place.host, self.place.pod, self.place.other
        self.listeners = Listeners()
        self.listeners.add("application", self.pod, "::", PORT)
        self.kept = []

    def close(self):
        for arrival in self.kept:
            arrival.close()
        self.listeners.close()
        self.place.close()

    def connect(self, namespace, address, port=PORT, **options):
        """The connection's Arrival at the application."""
        arrival = self.listeners.reach(namespace, address, port, **options)
        assert isinstance(arrival, Arrival), f"{address} port {port}: {arrival}"
        self.kept.append(arrival)
        assert arrival.talks()
        return arrival

    def source(self, namespace, address, port=PORT, **options):
        """The address that the application sees."""
        return self.connect(namespace, address, port, **options).source[0]


@pytest.fixture
def probes():
    probes = Probes()
    yield probes
    probes.close()


@pytest.fixture(params=[4, 6], ids=["ipv4", "ipv6"])
def family(request):
    return request.param
