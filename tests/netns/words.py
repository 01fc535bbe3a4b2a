"""Questions that more than one test file asks."""
import select

from .traffic import PATIENCE, SILENT, open_datagram, receive, send_datagram


def ask(mesh, address, port=53, **options):
    """A query from the application: who answers, "tunnel" or "peer"."""
    with open_datagram(mesh.peer, address, port, transparent=True) as server, \
            send_datagram(mesh.pod, address, port, **options) as client:
        answering = mesh.dns[6 if ":" in address else 4]
        # Whoever hears it first: on a busy machine the neighbour discovery of a first packet takes its time.
        for sock in select.select((answering, server), (), (), PATIENCE)[0]:
            _, sender = receive(sock)
            sock.sendto(b"answer", sender)
            assert receive(client) == (b"answer", (address, port))
            return "tunnel" if sock is answering else "peer"
    return SILENT
