"""Random events on a whole node, seeded and replayable, with a model that says what each pod must be (model.py), judged all the
time from outside by the packets at every pod's veth (wire.py) and by the connections of every pod (traffic.py):

  - no TCP packet of a pod of the mesh leaves around the tunnel, and no pod outside is captured;
  - no connection breaks and none fails to open without a cause;
  - whenever the node comes to rest, each pod is what the model says, and nothing is left over: rules, routes, addresses of the
    host's sets, workloads of the tunnel, annotations, attachments, remembered pods, network namespaces, descriptors.

    make chaos SEED=7 TIME=600      the same events again; a run of make test is short and has a seed of its own"""
import json
import os
import random
import threading
import time

from agent.node import eventually

from .events import Events
from .model import Judge
from .wire import Wire
from .world import CONFLIST, World

# In make test the same every time: what fails there came with a change. make chaos without SEED draws one.
SEED = int(os.environ.get("CHAOS_SEED", "1") or random.randrange(1 << 32))
SECONDS = float(os.environ.get("CHAOS_TIME") or 6)
STEPS_UNTIL_REST = 12, 30
REST_WITHIN = float(os.environ.get("CHAOS_REST") or 60)
DESCRIPTORS_OF_A_POD = 6


def descriptors(node):
    return len(os.listdir(f"/proc/{node.agent.pid}/fd"))


class Failure(AssertionError):
    pass


class Chaos:
    def __init__(self, folder):
        self.folder = folder
        self.judge = Judge()
        self.world = World(folder, self.judge)
        self.events = Events(self.world, SEED)
        self.rests = 0
        self.is_ended = False
        eventually(lambda: self.world.api.has_told() and self.world.tunnel.is_ready, what=self.world.log)
        time.sleep(0.5)
        self.descriptors = descriptors(self.world)
        self.wire = Wire(self.world.host, self.judge.records, self.judge.packet)
        self.watcher = threading.Thread(target=self.watch, daemon=True)
        self.watcher.start()

    def watch(self):
        while not self.is_ended:
            for record in self.world.current():
                if not record.is_settled:
                    try:
                        self.world.watch(record)
                    except Exception as error:  # whatever it is, it is the test's failure
                        self.judge.violation(f"the watcher: {error!r}")
                        raise
            self.judge.judge_connections()
            time.sleep(0.1)

    def fail_on_violations(self):
        for tunnel in self.world.tunnels:
            self.judge.violations += tunnel.violations
        # Killed between the head of a request and its body.
        self.judge.violations += [text for text in self.world.api.violations if "the body is no JSON" not in text]
        if self.wire.failure:
            self.judge.violations.append(f"the capture: {self.wire.failure!r}")
        if self.world.is_agent_up and self.world.agent.poll() is not None:
            self.judge.violations.append(f"the agent ended with {self.world.agent.returncode}")
        if self.judge.violations:
            self.fail("\n".join(self.judge.violations[:20]))

    def fail(self, what):
        history = "\n".join(self.events.history)
        try:
            pods = "\n".join(json.dumps(pod) for pod in self.world.get("/pods"))
        except Exception as error:  # it may be down, or the reason
            pods = repr(error)
        raise Failure(f"seed {SEED} (make chaos SEED={SEED}), event {len(self.events.history)}:\n{what}\n\nhistory:\n{history}\n\n"
                      f"the agent's pods:\n{pods}\n\n"
                      f"the agent's last words:\n{self.world.log()[-12000:]}")

    def differences(self):
        """At rest; the records are settled."""
        world, found = self.world, []
        alive = {pod.uid: pod for pod in world.live}
        inside = {uid: pod for uid, pod in alive.items() if world.belongs(pod)}
        for record in world.current():
            if missing := record.sandbox.look(record.wanted()):
                found.append(f"{record.name}: {missing}")
            annotation = record.sandbox.annotation()
            if annotation != ("enabled" if record.wanted() else None):
                found.append(f"{record.name}: annotation {annotation}, wanted {record.wanted()}")
        if set(world.tunnel.workloads) != set(inside):
            found.append(f"the tunnel has {sorted(world.tunnel.workloads)}, must have {sorted(inside)}")
        addresses = {address for pod in inside.values() for address in pod.sandbox.addresses}
        if world.probes() != addresses:
            found.append(f"the host's sets have {sorted(world.probes())}, must have {sorted(addresses)}")
        if world.enrolled() != set(inside):
            found.append(f"remembered are {sorted(world.enrolled())}, must be {sorted(inside)}")
        # That of a sandbox that went without a DEL, since the chain lacked us then, goes with its pod.
        containers = {f"{container}:eth0.json" for pod in [*world.live, *self.events.ended]
                      for container in pod.containers}
        left = {path.name for path in (world.run_dir / "attachments").glob("*.json")} - containers
        if left:
            found.append(f"attachments of nobody: {sorted(left)}")
        if stayed := sorted(name for name in world.deleted if (world.run_dir / "attachments" / f"{name}:eth0.json").exists()):
            found.append(f"attachments whose DEL succeeded: {stayed}")
        interfaces = {pod.sandbox.interface for pod in alive.values()}
        there = {line.split()[1].split("@")[0] for line in world.host.run("ip", "-o", "link", "show", "type", "veth").splitlines()
                 for line in [line.replace(": ", " ")]}
        if there != interfaces:
            held = {sandbox.interface: world.holders(sandbox) for sandbox in world.gone if sandbox.interface in there}
            found.append(f"network namespaces that nobody needs are alive, their veths are there: {held}; missing: "
                         f"{sorted(interfaces - there)}")
        try:
            conflist = json.loads((world.conf_dir / CONFLIST).read_text())
            ours = conflist["plugins"].pop()
            if ours["type"] != "ambient-cni" or conflist != world.conflist():
                found.append(f"the conflist is {conflist}, then {ours}")
        except (OSError, ValueError, IndexError) as error:
            found.append(f"the conflist: {error!r}")
        if not world.has_binary():
            found.append("the plugin is not in the binary directory")
        now, most = descriptors(world), self.descriptors + DESCRIPTORS_OF_A_POD * len(alive)
        if now > most:
            found.append(f"{now} descriptors, {self.descriptors} before the first pod, with {len(alive)} pods at most {most}")
        return found

    def come_to_rest(self):
        self.events.history.append(f"{time.strftime('%T')} -- to rest")
        self.events.heal()
        self.world.join_threads()
        began, last = time.monotonic(), None
        while True:
            self.fail_on_violations()
            unsettled = [record for record in self.world.current() if not record.is_settled]
            last = [f"{record.name} is {record.state}, wanted {'in' if record.wanted() else 'out'}: {getattr(record, 'missing', None)}"
                    for record in unsettled] or self.differences()
            if not last:
                break
            if time.monotonic() - began > REST_WITHIN:
                self.fail(f"the node does not come to rest within {REST_WITHIN} s:\n" + "\n".join(last))
            time.sleep(0.1)
        self.rests += 1
        self.events.rest()
        with self.judge.lock:
            for namespace in self.world.was_flipped:
                self.world.was_flipped[namespace] = False
            for pod in self.world.live:
                pod.was_relabelled = False
        self.open_lasting()

    def open_lasting(self):
        """A connection between two pods outside that have a family in common: whatever becomes of them, it goes on."""
        outside = [pod for pod in self.world.live if not self.world.belongs(pod)]
        for one, other in zip(outside, outside[1:]):
            if any(None not in family for family in zip(one.addresses, other.addresses)):
                self.world.ask_traffic(("lasting", True), lasting=one.key, to=other.key)

    def run(self):
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            for _ in range(self.events.random.randrange(*STEPS_UNTIL_REST)):
                self.events.step()
                self.fail_on_violations()
                if time.monotonic() > end:
                    break
            self.come_to_rest()
        # At the end everything goes, and nothing is left.
        for pod in list(self.world.live):
            self.events.pod_goes(pod)
        while self.events.ended:
            self.events.ended_pod_goes()
        self.come_to_rest()
        self.world.tell_traffic(stop=True)
        self.world.reader.join(20)
        self.is_ended = True
        self.watcher.join()
        self.wire.end()
        self.judge.judge_connections()
        self.fail_on_violations()
        assert not self.wire.lost, f"the capture lost {self.wire.lost} packets"

    def report(self):
        return {"seed": SEED, "seconds": SECONDS, "events": len(self.events.history), "by kind": dict(sorted(self.events.counts.items())),
                "times at rest": self.rests, "packets of pods": self.wire.seen, "judged": dict(sorted(self.judge.counts.items())),
                "connections": self.world.totals}

    def close(self):
        self.is_ended = True
        self.watcher.join(20)
        self.world.close()


def test_chaos(tmp_path):
    chaos = Chaos(tmp_path)
    try:
        try:
            chaos.run()
        except Failure:
            raise
        except Exception as error:
            chaos.fail(repr(error))
        print(json.dumps(chaos.report(), indent=1))
    finally:
        chaos.close()
