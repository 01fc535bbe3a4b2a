"""Random events on a whole node, seeded and replayable, with a model that says what each pod must be. Whenever the node comes to
rest, every pod is what the model says, as seen from outside: its rules, the host's probe sets, what the tunnel was told.

    make chaos SEED=7 TIME=600      the same events again; a run of make test is short and has a seed of its own"""
import os
import pathlib
import random
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
from agent.node import Node, eventually  # noqa: E402

SEED = int(os.environ.get("CHAOS_SEED") or random.randrange(1 << 32))
SECONDS = float(os.environ.get("CHAOS_TIME") or 12)
PODS = 6


class Chaos:
    def __init__(self, node):
        self.node, self.random = node, random.Random(SEED)
        self.namespace_is_in, self.history, self.rests = False, [], 0
        self.shown = {}  # pod: its own label, or None
        for _ in range(PODS):
            self.shown[node.pod()] = None

    def wanted(self, pod):
        label = self.shown.get(pod, "gone")
        return label == "ambient" or (label is None and self.namespace_is_in)

    # Events.
    def flip_namespace(self):
        self.namespace_is_in = not self.namespace_is_in
        (self.node.join if self.namespace_is_in else self.node.leave)()

    def relabel(self):
        pod = self.random.choice(self.node.pods_made)
        label = self.random.choice(["ambient", "none", None])
        pod.labels = {} if label is None else {"istio.io/dataplane-mode": label}
        pod.show()
        self.shown[pod] = label

    def go(self):
        shown = [pod for pod in self.node.pods_made if pod in self.shown]
        if len(shown) > PODS // 2:
            pod = self.random.choice(shown)
            pod.hide()
            del self.shown[pod]

    def come(self):
        hidden = [pod for pod in self.node.pods_made if pod not in self.shown]
        if hidden:
            pod = self.random.choice(hidden)
            pod.labels = {}
            pod.show()
            self.shown[pod] = None

    def edit_table(self):
        pod = self.random.choice(self.node.pods_made)
        pod.netns.run("nft", "delete", "table", "inet", "ambient-cni", check=False)

    def edit_rule(self):
        pod = self.random.choice(self.node.pods_made)
        pod.netns.run("ip", "rule", "del", "pref", "32764", check=False)

    def edit_host(self):
        self.node.host.run("nft", "flush", "table", "inet", "ambient-cni-host", check=False)

    def kill_agent(self):
        self.node.kill()
        self.node.start()

    def restart_agent(self):
        self.node.stop()
        self.node.start()

    def kill_tunnel(self):
        self.node.tunnel.kill()

    def disconnect_tunnel(self):
        self.node.tunnel.disconnect()

    def pause(self):
        time.sleep(self.random.uniform(0, 0.3))

    EVENTS = [flip_namespace, relabel, relabel, go, come, edit_table, edit_rule, edit_host, kill_agent, restart_agent, kill_tunnel,
              disconnect_tunnel, pause, pause]

    def step(self):
        event = self.random.choice(self.EVENTS)
        self.history.append(event.__name__)
        event(self)

    # At rest.
    def differences(self):
        found, pods = [], self.node.pods()
        probes = self.node.probes()
        for pod in self.node.pods_made:
            state = (pods.get(pod.key) or {"state": "none"})["state"]
            if self.wanted(pod):
                if state != "enabled" or not pod.redirects():
                    found.append(f"{pod.key} is {state}, must be in the mesh")
                if pod.uid not in self.node.tunnel.workloads:
                    found.append(f"the tunnel does not have {pod.key}")
            else:
                # A pod that is gone from the list while its sandbox lives loses its rules too, in time.
                if state != "none" or pod.has_table():
                    found.append(f"{pod.key} is {state}, must be outside; table: {pod.has_table()}")
                if pod.uid in self.node.tunnel.workloads:
                    found.append(f"the tunnel still has {pod.key}")
            for address in (pod.address, pod.address6):
                if (address in probes) != self.wanted(pod):
                    found.append(f"{address} of {pod.key} is {'' if address in probes else 'not '}in the probe sets")
        return found

    def come_to_rest(self):
        last = None

        def rests():
            nonlocal last
            last = self.differences()
            return not last
        eventually(rests, 40, what=lambda: f"seed {SEED}, after {self.history}: {last}\n{self.node.log()[-8000:]}")
        self.rests += 1


def test_chaos(tmp_path):
    node = Node(tmp_path)
    try:
        chaos = Chaos(node)
        end = time.monotonic() + SECONDS
        while time.monotonic() < end:
            for _ in range(chaos.random.randrange(1, 8)):
                chaos.step()
            chaos.come_to_rest()
        print(f"seed {SEED}: {len(chaos.history)} events, {chaos.rests} times at rest")
        node.tunnel.check()
    finally:
        node.close()
