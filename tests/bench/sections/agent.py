"""The node agent with many pods; its peers are the doubles of tests/peers, programs of their own that share the machine's cores."""
import os
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from agent.many import ManyPods  # noqa: E402

TITLE = "The node agent: flips, memory, restart"
DRAIN = 1  # seconds
PODS = [int(count) for count in os.environ.get("BENCH_PODS", "10 100 250 1000 2000").split()]  # that a namespace has
FLIPS = int(os.environ.get("BENCH_FLIPS", "40"))  # of 250 pods, for the growth of memory
IDLE_SECONDS = int(os.environ.get("BENCH_IDLE_SECONDS", "60"))
WARM_UP = 8  # times in and out, before the growth is measured
AT_REST = 12  # seconds: the API server's idle connections are closed after 10
ROUNDS = 3


class Bed:
    """Nodes for a section."""

    def __init__(self, bench):
        self.bench, self.numbers = bench, 0

    def folder(self):
        self.numbers += 1
        folder = self.bench.folder / f"agent{self.numbers}"
        folder.mkdir()
        return folder

    def many(self, count, drain=0):
        node = ManyPods(self.folder(), count, installer=self.bench.build / "static" / "ambient-installer", drain=drain)
        node.start()
        node.connect()
        return node


def flips(bench, bed):
    rows = []
    for count in PODS:
        node = bed.many(count, DRAIN)
        try:
            measured = [(node.flip(True), node.flip(False)) for _ in range(ROUNDS)]
            # A transaction in a pod costs the kernel a look at every socket that listens to nftables, wherever it is: who watches
            # the pods doubles their number. So the agent's processor time is that of rounds that nobody watches.
            unwatched = [(node.flip(True, watch=False), node.flip(False, watch=False)) for _ in range(ROUNDS)]
        finally:
            node.close()
        for way, name, waited in ((0, "in", 0), (1, f"out, rules and acks less the drain of {DRAIN} s", DRAIN)):
            values = {key: statistics.median(round_[way][key] for round_ in (unwatched if key == "cpu" else measured))
                      for key in ("rules", "acks", "patches", "cpu")}
            # The annotation goes before the drain, the rest after it.
            limits = (0.5, 0.5, 1 if way == 0 else None, 0.5) if count == 250 else (None,) * 4
            what = f"{count} pods {name}"
            shown = (values["rules"] - waited, values["acks"] - waited, values["patches"], values["cpu"])
            verdicts = [bench.judge(f"{what}, {part}", value, limit)
                        for part, value, limit in zip(("last rule", "last ack", "last annotation", "CPU"), shown, limits)]
            rows.append([what, *(f"{value:.3f}" for value in shown), f"{1000 * values['cpu'] / count:.2f}",
                         "; ".join(dict.fromkeys(filter(None, verdicts)))])
    bench.table(["namespace labelled (s)", "last rule", "last ack", "last annotation", "CPU", "CPU a pod (ms)", "target"], rows)


def flipped(node, rounds):
    """Resident memory at rest after so many times in and out."""
    for _ in range(rounds):
        node.flip(True, watch=False)
        node.flip(False, watch=False)
    time.sleep(AT_REST)
    return node.memory()


def memory(bench, bed):
    rows = []
    for count in (0, *sorted({250, *(count for count in PODS if count >= 250)})):
        node = bed.many(count)
        try:
            started = node.memory()
            row = [f"{count} pods", f"{started:.1f}"]
            if count:
                node.flip(True, watch=False)
                time.sleep(AT_REST)
                rest = node.memory()
                row += [f"{rest:.1f}", f"{node.memory('RssAnon'):.1f}"]
            else:
                rest = started
                row += [f"{rest:.1f}", f"{node.memory('RssAnon'):.1f}"]
            verdicts = [bench.judge(f"{count} pods at rest", rest, 7)] if count == 250 else []
            if count == 250:
                before = node.cpu()
                time.sleep(IDLE_SECONDS)
                idle = 100 * (node.cpu() - before) / IDLE_SECONDS
                restarts(bench, node)
                node.flip(False, watch=False)
                # The allocator's pieces take some flips to settle: that is no growth.
                settled = flipped(node, WARM_UP)
                growth = flipped(node, FLIPS // 2) - settled
            row.append(f"{node.memory('VmHWM'):.1f}")
            if count == 250:
                verdicts.append("peak " + bench.judge("250 pods, peak", node.memory("VmHWM"), 12))
            rows.append([*row, "; ".join(verdicts)])
        finally:
            node.close()
    bench.table(["resident memory, static build (MB)", "started", "enrolled, at rest", "of that anonymous", "peak", "target"], rows)
    bench.table(["250 pods", "measured", "target"], [
        [f"growth over {250 * (FLIPS // 2) * 2} changes of a pod (MB)", f"{growth:.2f}", bench.judge("growth", growth, 0.5)],
        [f"CPU at rest over {IDLE_SECONDS} s (%)", f"{idle:.3f}", bench.judge("idle CPU", idle, 0.1)]])


def restarts(bench, node):
    """kill -9 with 250 enrolled pods, and the next start."""
    from agent.netlink import Changes
    with Changes(*node.namespaces, routing=False) as changes:
        node.kill()
        time.sleep(2)  # the API server's double notices by its next bookmark that nobody listens any more
        began_events, began = len(node.tunnel.events), time.monotonic()
        node.start()
        listed = time.monotonic() - began
        while not any(event["event"] == "snapshot-sent" for event in node.tunnel.events[began_events:]):
            time.sleep(0.005)
        told = time.monotonic() - began
        time.sleep(0.5)
    bench.table(["restart with 250 enrolled pods", "measured"], [
        ["pods listed, and found in the kernel, after (s)", f"{listed:.3f}"],
        ["the tunnel has accepted them all again after (s)", f"{told:.3f}"],
        ["transactions in pods", len(changes.times)],
        ["CPU (s)", f"{node.cpu():.3f}"]])


def run(bench):
    bed = Bed(bench)
    flips(bench, bed)
    memory(bench, bed)
