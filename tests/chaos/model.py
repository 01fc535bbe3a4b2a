"""What each pod must be, when, and the verdict on everything that was seen from outside.

A sandbox (one network namespace of a pod) has a Record: in the mesh, outside, or changing, each from a moment on. "in" and "out"
are settled: its packets and connections are judged. It is "changing" from the moment before an event that concerns it until it was
seen to be what the events ask for.

A cause is a time during which something was taken away by force, from the moment before until it was seen to be put right:
    edited    rules, routes or interfaces in the pod (or the host's rules): packets may go around the tunnel, new connections may
              fail, and those that the tunnel carries may break
    host      the host's rules, in the same time: what the node itself has open loses its translation
    moved     the pod's addresses changed in place: until the node has learned of it, a probe may go through the tunnel
    tunnel    the tunnel died: new connections of pods of the mesh may fail, and those that it carried break; nothing goes around it
And what uses an address that a pod has lost comes to its end, whenever. What the agent's or the API server's end breaks has no cause."""
import bisect
import collections
import ipaddress
import threading
import time

from .wire import RST

NODE = {"10.91.0.1", "fd91::1"}
KERNEL_REMEMBERS = 130  # seconds, a flow of UDP that was answered (nf_conntrack_udp_timeout_stream)
PROBES = {"169.254.7.127", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff"}


class Record:
    def __init__(self, name, wanted):
        self.name = name
        self.wanted = wanted      # called: whether it belongs to the mesh now
        self.times, self.states = [0.0], ["changing"]
        self.asks_tunnel = [(0.0, None)]  # whom its names are asked of, from a moment on; None: of either
        self.causes = []          # [kind, start, end or None]
        self.lost = set()         # addresses that it had
        self.generation = 0
        self.touched = time.time()
        self.right = None         # (generation, time): it was seen to be right, with nothing done to it since
        self.look_lock = threading.Lock()

    @property
    def state(self):
        return self.states[-1]

    def becomes(self, state):
        self.times.append(time.time())
        self.states.append(state)

    def asks(self, tunnel):
        if self.asks_tunnel[-1][1] != tunnel:
            self.asks_tunnel.append((time.time(), tunnel))

    def asks_between(self, since, until):
        first = bisect.bisect_right(self.asks_tunnel, since, key=lambda entry: entry[0]) - 1
        return {tunnel for moment, tunnel in self.asks_tunnel[first:] if moment <= until}

    def state_at(self, moment):
        return self.states[bisect.bisect_right(self.times, moment) - 1]

    def states_between(self, since, until):
        first = bisect.bisect_right(self.times, since) - 1
        return set(self.states[first:bisect.bisect_right(self.times, until)])

    def begin(self, kind):
        if not any(cause[0] == kind and cause[2] is None for cause in self.causes):
            self.causes.append([kind, time.time(), None])

    def end_causes(self):
        for cause in self.causes:
            if cause[2] is None:
                cause[2] = time.time()

    def has_cause(self, kinds, since, until):
        return any(kind in kinds and start <= until and (end is None or end >= since) for kind, start, end in self.causes)

    @property
    def is_settled(self):
        return self.state != "changing" and all(cause[2] is not None for cause in self.causes)


class Judge:
    def __init__(self):
        self.lock = threading.RLock()
        self.records = {}      # interface on the host: Record
        self.pods = {}         # key of a pod: the Record of its sandbox
        self.asked_from = {}   # (address, port) that a name server was asked from: when
        self.carried = set()   # (address, port) of who opened a connection that a tunnel took
        self.violations = []
        self.counts = collections.Counter()
        self.recent = collections.deque(maxlen=30000)  # packets
        self.failed = []       # reports of connections, until they are judged
        self.asked = []        # of questions to the name server

    def violation(self, text):
        with self.lock:
            self.violations.append(f"{time.strftime('%T')}: {text}")

    # Events tell what they are about to do.
    def touch(self, records, cause=None, changes=True):
        with self.lock:
            for record in records:
                record.generation += 1
                record.touched = time.time()
                if cause and (cause != "tunnel" or record.state != "out"):
                    record.begin(cause)
                if changes:
                    record.asks(None)
                    if record.state != "changing":
                        record.becomes("changing")

    def settle(self, record, state, asks_tunnel):
        with self.lock:
            record.end_causes()
            record.asks(asks_tunnel)
            if record.state != state:
                record.becomes(state)

    def connection_failed(self, report):
        """The sandboxes are those of this moment; the verdict comes a little later."""
        with self.lock:
            source, target = self.pods.get(report["from"]), self.pods.get(report["to"])
            report["records"] = [record for record in (source, target) if record]
            report["lost"] = bool(target and report["address"] in target.lost or
                                  source and report["source"] and str(ipaddress.ip_address(report["source"][0])) in source.lost)
            self.failed.append(report)

    def name_asked(self, report):
        with self.lock:
            report["record"] = self.pods.get(report["from"])
            self.asked.append(report)

    # What is seen.
    def packet(self, packet, is_first, opens):
        with self.lock:
            record = self.records.get(packet.interface)
            self.recent.append(packet)
            if record is None or packet.flags & RST:
                return
            state = record.state_at(packet.time)
            self.counts[f"packets, {state}"] += 1
            if is_first is False:
                return
            # Asked in one state and answered in another it may be either.
            if packet.asked and record.state_at(packet.asked) != state:
                state = "changing"
            if record.has_cause(("edited",), packet.asked or packet.time, packet.time):
                self.counts["packets with a cause"] += 1
                return
            what = (f"{packet.source} {packet.sport} > {packet.destination} {packet.dport} flags {packet.flags:#x}, {packet.length} "
                    f"bytes, at {packet.time:.3f} (asked at {packet.asked or 0:.3f}), {record.name} is {state} since {record.times[-1]:.3f}")
            if is_first is None:
                if state == "in" and not packet.marked and packet.length > 0:
                    self.violation(f"a connection left the tunnel in its middle: {what}")
                return
            self.counts["connections at the wire" if opens else "connections accepted at the wire"] += 1
            if not opens and packet.destination in PROBES:
                if state == "out":
                    self.violation(f"a pod outside is probed as one of the mesh: {what}")
                return
            if state == "in" and not opens and packet.destination in NODE:
                if record.has_cause(("moved",), packet.asked or packet.time, packet.time):
                    self.counts["probes through the tunnel of a pod that has moved just then"] += 1
                    return
                self.violation(f"a probe goes through the tunnel: {what}")
                return
            if state == "in" and not packet.marked:
                self.violation(f"a connection of a pod of the mesh goes around the tunnel: {what}")
            if state == "out" and packet.marked:
                self.violation(f"a pod outside is captured: {what}")

    def tunnel_event(self, event):
        if event["event"] == "carried":
            address, port = event["source"]
            self.carried.add((str(ipaddress.ip_address(address)), port))

    def connection(self, report):
        """A connection that could not be opened, or that broke."""
        with self.lock:
            ends = report.pop("records")
            since, until = report["last"] or report["opened"], report["at"]
            source = report["source"] and (str(ipaddress.ip_address(report["source"][0])), report["source"][1])
            is_carried = source in self.carried
            if report["kind"] == "scan":
                if not any(record.has_cause(("edited", "moved"), since, until) for record in ends):
                    self.violation(f"the tunnel's own port took a connection that the rules had not sent there: {report}")
                return
            causes = ("edited", "tunnel") if report["last"] is None or is_carried else ("host",) if report["from"] == "host" else ()
            if report["lost"]:
                self.counts["connections that broke with their address"] += 1
                return
            # What the node opened to a pod of the mesh is translated as long as it lives, also when the pod has left.
            began = report["opened"] if causes == ("host",) else since
            for record in ends:
                if record.has_cause(causes, since, until) and record.states_between(began, until) != {"out"}:
                    self.counts["connections that broke with a cause"] += 1
                    return
            states = {record.name: sorted(record.states_between(since, until)) for record in ends}
            self.violation(f"a connection {'could not be opened' if report['last'] is None else 'broke'} without a cause: {report}, "
                           f"carried {is_carried}, states meanwhile {states}, causes {[record.causes[-2:] for record in ends]}, packets {self.packets_of(report['source'])}")

    def question(self, report):
        """Who had to answer a question to the name server, and whether somebody did."""
        record = report.pop("record")
        if record is None:
            return
        since, until = report["asked"], report["at"]
        wanted, states = record.asks_between(since, until), record.states_between(since, until)
        self.counts[f"names asked, {report['answered']} answered"] += 1
        source = tuple(report["source"] or ())
        is_again, self.asked_from[source] = since - self.asked_from.get(source, 0) < KERNEL_REMEMBERS, since
        if is_again and report["answered"]:  # by chance: it belongs to the flow that was there before
            return
        if source and str(ipaddress.ip_address(source[0])) in record.lost:
            return
        if record.has_cause(("edited", "tunnel"), since, until) and states != {"out"}:
            return
        if report["answered"] is None or (len(wanted) == 1 and wanted != {None} and report["answered"] != ("tunnel" if True in wanted else "server")):
            self.violation(f"a name was answered by {report['answered']}: {report}, {record.name}, states meanwhile {sorted(states)}, asks the tunnel {wanted}")

    def packets_of(self, end):
        return [(f"{packet.time:.3f}", packet.interface, f"{packet.source} {packet.sport} > {packet.destination} {packet.dport}",
                 f"flags {packet.flags:#x}", packet.length, "of the tunnel" if packet.marked else "plain")
                for packet in self.recent if end and tuple(end) in ((packet.source, packet.sport), (packet.destination, packet.dport))]

    def judge_connections(self):
        """Those that failed a moment ago: by now everybody has told what concerns them."""
        with self.lock:
            ripe = [report for report in self.failed if report["at"] < time.time() - 0.5]
            for report in ripe:
                self.failed.remove(report)
                self.connection(report)
            ripe = [report for report in self.asked if report["at"] < time.time() - 0.5]
            self.asked = [report for report in self.asked if report not in ripe]
            for report in ripe:
                self.question(report)
