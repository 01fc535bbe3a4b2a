"""What happens to the node, at random but by a seed: which event comes next hangs on the seed and on the model alone, never on what
was seen, so that a run can be made again. Each event tells the judge what it is about to do, then does it."""
import collections
import random
import signal
import time

from .world import MODE, Pod, World

PODS = 7
EDITS = {
    "table flushed": "nft flush table inet ambient-cni",
    "table deleted": "nft delete table inet ambient-cni",
    "everything flushed": "nft flush ruleset",
    "chain flushed": "nft flush chain inet ambient-cni output-redirect",
    "rule inserted": "nft insert rule inet ambient-cni output-redirect accept",
    "policy rule deleted": "ip rule del pref 32764",
    "policy rule of IPv6 deleted": "ip -6 rule del pref 32764",
    "route flushed": "ip route flush table 100",
    "route of IPv6 flushed": "ip -6 route flush table 100",
    "lo down and up": "ip link set lo down; ip link set lo up",
}
# A pod that no ADD brought is known by its table and by what is remembered: where both are taken, nothing tells of it.
TAKES_THE_TABLE = {"table deleted", "everything flushed"}
HOST_EDITS = ["flush set inet ambient-cni-host pods-ipv4", "flush set inet ambient-cni-host pods-ipv6",
              "flush table inet ambient-cni-host", "delete table inet ambient-cni-host", "flush ruleset"]


class Events:
    def __init__(self, world: World, seed):
        self.world, self.judge, self.random = world, world.judge, random.Random(seed)
        self.history, self.counts = [], collections.Counter()
        self.numbers = 0
        self.is_corrupt = False  # what is remembered, since the agent started last
        self.taken = set()    # since the last rest: "table" of some pod, or "memory"; never both
        self.freed = []       # sandboxes that are gone or about to go: their addresses are free
        self.left = []        # sandboxes, and [IPv4, IPv6] that they had before those changed in place: free at rest
        self.moves = 0
        self.ended = []       # pods whose object is still there
        self.unreported = []  # pods that are gone while their objects say that they run

    # Which.
    def step(self):
        world = self.world
        choices = [self.pause] * 6 + [self.namespace_is_labelled] * 2 + [self.tunnel_reconnects, self.watches_have_trouble,
                                                                         self.patches_fail, self.configuration_is_rewritten,
                                                                         self.plugin_is_removed, self.state_is_corrupted,
                                                                         self.host_is_edited, self.setting_changes]
        if world.refused:
            choices += [self.tunnel_takes_again] * 3
        if world.live:
            choices += [self.pod_is_annotated, self.tunnel_refuses]
            choices += [self.pod_is_labelled] * 3 + [self.pod_is_edited] * 5 + [self.sandbox_is_made_anew, self.addresses_change]
            if len(world.live) > 3:
                choices += [self.pod_goes] * 2 + [self.pod_ends]
        if self.unreported:
            choices += [self.end_of_a_pod_is_reported]
        if self.ended:
            choices += [self.ended_pod_goes] * 2
        if len(world.live) < PODS:
            choices += [self.pod_comes] * 5 + [self.pod_is_found]
        choices += [self.agent_is_killed, self.agent_is_stopped, self.agent_is_replaced] if world.is_agent_up else [self.agent_starts] * 12
        choices += [self.tunnel_is_killed, self.tunnel_stops] if world.is_tunnel_up else [self.tunnel_starts] * 8
        if world.is_tunnel_up:
            choices += [self.tunnel_is_slow]
            choices += [self.tunnel_leaves] * 3 if len(world.tunnels_up) > 1 else [self.tunnel_joins]
        choices += [self.api_server_dies] if world.is_api_up else [self.api_server_returns] * 8
        self.make(self.random.choice(choices))

    def make(self, event):
        self.history.append(f"{time.strftime('%T')} {event.__name__}")
        self.counts[event.__name__] += 1
        detail = event()
        if detail:
            self.history[-1] += f": {detail}"

    def pause(self):
        seconds = self.random.uniform(0, 0.8)
        time.sleep(seconds)
        return f"{seconds:.2f} s"

    # Labels.
    def namespace_is_labelled(self):
        world, name = self.world, self.random.choice(["shop", "office"])
        with self.judge.lock:
            self.judge.touch([record for record in world.current() if record.pod.namespace == name and record.pod.label is None])
            world.was_flipped[name] = True
            world.labelled[name] = not world.labelled[name]
        world.label(name, **({MODE: "ambient"} if world.labelled[name] else {}))
        return f"{name} {'in' if world.labelled[name] else 'out'}"

    def change(self, pod, **members):
        """What its object says of it."""
        with self.judge.lock:
            self.judge.touch([pod.record])
            pod.was_relabelled = True
            vars(pod).update(members)
        self.world.show(pod)

    def pod_is_labelled(self):
        pod, label = self.random.choice(self.world.live), self.random.choice(["ambient", "none", None])
        self.change(pod, label=label)
        return f"{pod.key} {label}"

    def pod_is_annotated(self):
        """What is no boolean is passed over."""
        pod, value = self.random.choice(self.world.live), self.random.choice(["true", "false", "maybe"])
        self.change(pod, dns_capture=value)
        return f"{pod.key} DNS capture {value}"

    # Pods.
    def new_pod(self):
        self.numbers += 1
        pod = Pod(self.numbers, self.random.choice(["shop", "office"]), self.random.choice([None, None, None, "ambient", "none"]))
        pod.dns_capture = self.random.choice([None, None, None, "true", "false"])
        return pod

    def addresses(self):
        """Of a sandbox whose DEL has ended: before that no IPAM would give them. Or that a pod had which lives on."""
        if self.random.random() >= 0.4:
            return None
        if self.world.moved and self.random.random() < 0.5:
            return [*self.world.moved.pop(0), None]
        if not self.freed:
            return None
        pod, sandbox, has_both = self.freed.pop(0)
        pod.thread.join()
        return [sandbox.address, sandbox.address6, sandbox.number_of_link] if has_both else None

    def pod_comes(self):
        pod, addresses = self.new_pod(), self.addresses()
        sandbox = self.world.make_sandbox(pod, addresses=addresses)
        self.world.live.append(pod)
        self.world.show(pod)
        self.world.in_a_thread(pod, lambda: self.world.bring_up(pod, sandbox))
        return f"{pod.key} {pod.label} {sandbox.interface} {sandbox.address}{' taken over' if addresses else ''}"

    def pod_is_found(self):
        """It runs already, and no ADD told of it."""
        pod = self.new_pod()
        sandbox = self.world.make_sandbox(pod, runs=True)
        self.world.live.append(pod)
        self.world.show(pod)
        self.world.in_a_thread(pod, lambda: self.world.begin_traffic(pod, sandbox))
        return f"{pod.key} {pod.label} {sandbox.interface} {sandbox.address}"

    def pod_goes(self, pod=None):
        world, pod = self.world, pod or self.random.choice(self.world.live)
        is_first, is_told = self.random.random() < 0.5, self.random.random() < 0.8
        with self.judge.lock:
            self.judge.touch([pod.record])
            pod.is_gone = True
        world.live.remove(pod)
        sandbox = pod.sandbox
        self.freed.append((pod, sandbox, None not in pod.addresses))
        if is_first:
            sandbox.hide()

        def end():
            world.tear_down(pod, sandbox, is_told)
            if not is_first and is_told:
                sandbox.hide()
        world.in_a_thread(pod, end)
        if not is_first and not is_told:
            # Its object says for a while that it runs, with the address that another one may have by now.
            self.unreported.append(pod)
        told = f"{pod.key} {sandbox.interface}{', its object first' if is_first else ''}{'' if is_told else ', without a DEL'}"
        if not is_first or self.random.random() < 0.5:
            return told
        pod.thread.join()
        return f"{told}, waited for"

    def end_of_a_pod_is_reported(self):
        pod = self.unreported.pop(self.random.randrange(len(self.unreported)))
        pod.thread.join()
        pod.sandbox.hide()
        return pod.key

    def pod_ends(self):
        """Its sandbox goes; its object stays, with the address in its status that the next pod may have."""
        world, pod, is_told = self.world, self.random.choice(self.world.live), self.random.random() < 0.7
        with self.judge.lock:
            self.judge.touch([pod.record])
            pod.has_ended = True
        world.live.remove(pod)
        self.ended.append(pod)
        sandbox = pod.sandbox
        # The kubelet calls a pod ended when its processes are.
        world.in_a_thread(pod, lambda: (world.end_processes(pod, sandbox), world.show(pod), world.tear_down(pod, sandbox, is_told)))
        pod.thread.join()
        self.freed.insert(0, (pod, sandbox, None not in pod.addresses))
        return f"{pod.key} {sandbox.interface}{'' if is_told else ', without a DEL'}"

    def ended_pod_goes(self):
        pod = self.ended.pop(self.random.randrange(len(self.ended)))
        pod.is_gone = True
        pod.sandbox.hide()
        return pod.key

    def sandbox_is_made_anew(self):
        world, pod = self.world, self.random.choice(self.world.live)
        is_late = self.random.random() < 0.5
        old = pod.sandbox
        with self.judge.lock:
            self.judge.touch([pod.record])
        new = world.make_sandbox(pod)

        def change():
            if is_late:
                world.end_processes(pod, old)
                world.bring_up(pod, new)
                world.tear_down(pod, old)
            else:
                world.tear_down(pod, old)
                world.bring_up(pod, new)
        world.in_a_thread(pod, change)
        return f"{pod.key} {old.interface} {new.interface}{', DEL of the old one late' if is_late else ''}"

    def addresses_change(self):
        """In place: the pod, its sandbox and its network namespace stay."""
        world, pod = self.world, self.random.choice(self.world.live)
        old, sandbox = pod.addresses, pod.sandbox
        self.moves += 1
        new = [f"10.91.{128 + (self.moves >> 8)}.{self.moves & 255}", f"fd91::80:{self.moves:x}"]
        # One family may go; what went comes back.
        kept = self.random.choice([[None, None], [old[0], None], [None, old[1]], [old[0], False], [False, old[1]]])
        pod.addresses = [None if one is False else one or another for one, another in zip(kept, new)]
        if None not in old and None not in pod.addresses and not set(old) & set(pod.addresses):
            self.left.append((sandbox, old))
        address, address6 = pod.addresses
        world.in_a_thread(pod, lambda: world.move(pod, sandbox, address, address6))
        return f"{pod.key} {sandbox.interface} {address} {address6}"

    def rest(self):
        """All that was told has happened, and all that was taken is there again."""
        self.taken.clear()
        for sandbox, addresses in self.left:
            sandbox.left -= set(addresses)
            self.world.moved.append(addresses)
        self.left = []

    # Force.
    def pod_is_edited(self):
        pod, name = self.random.choice(self.world.live), self.random.choice(list(EDITS))
        if name in TAKES_THE_TABLE:
            if "memory" in self.taken:
                name = "table flushed"
            else:
                self.taken.add("table")
        self.judge.touch([pod.record], cause="edited", changes=False)
        pod.sandbox.netns.run("sh", "-c", EDITS[name], check=False)
        self.counts[f"edit: {name}"] += 1
        return f"{pod.key} {pod.sandbox.interface} {name}"

    def host_is_edited(self):
        edit = self.random.choice(HOST_EDITS)
        for cause in ("edited", "host"):
            self.judge.touch(self.world.current(), cause=cause, changes=False)
        self.world.host.run("nft", *edit.split(), check=False)
        self.counts["edit of the host"] += 1
        return edit

    def configuration_is_rewritten(self):
        world = self.world
        world.conflist_number += 1
        how = self.random.choice(["renamed", "in place", "removed and written"])
        if how == "removed and written":
            (world.conf_dir / "10-podnet.conflist").unlink()
            time.sleep(0.05)
        world.write_conflist(in_place=how == "in place")
        return how

    def plugin_is_removed(self):
        path = self.world.bin_dir / "ambient-cni"
        if self.random.random() < 0.5:
            path.unlink(missing_ok=True)
            return "removed"
        (self.world.bin_dir / ".new").write_text("another program")
        (self.world.bin_dir / ".new").rename(path)
        return "replaced by something else"

    def state_is_corrupted(self):
        name = self.random.choice(["enrolled.json", "outside.json", "attachments"])
        content = self.random.choice(["", "{", "[]", '{"version":1}', "\0\0\0", None])
        if "table" in self.taken:
            return "not now"
        self.taken.add("memory")
        self.world_changes()
        paths = [self.world.run_dir / name]
        if name == "attachments":
            paths = sorted(paths[0].glob("*.json"))[:2] if paths[0].exists() else []
        for path in paths:
            if content is None:
                path.unlink(missing_ok=True)
            elif path.exists():
                path.write_text(content)
        self.is_corrupt = True
        return f"{name} {content!r}"

    # The agent.
    def world_changes(self):
        self.world.touched = time.time()

    def agent_is_killed(self):
        self.world_changes()
        self.world.is_agent_up = False
        self.world.kill()

    def agent_is_stopped(self):
        self.world_changes()
        self.world.is_agent_up = False
        is_new = "starts on node" not in self.world.log()[self.world.log_begins:]
        self.world.stop(status=-signal.SIGTERM if is_new else 0)

    def agent_starts(self):
        self.world.start(wait=False)
        self.world.is_agent_up, self.is_corrupt = True, False
        self.world_changes()

    def agent_is_replaced(self):
        """An upgrade that surges. Of two that start at once either may be the successor; the other one serves when that is stopped."""
        self.world_changes()
        before = self.world.agent
        self.world.is_setting_in_doubt = self.world.dns_capture_in_force != self.world.dns_capture
        self.world.start(wait=False)
        seconds = self.random.uniform(0.1, 1)
        time.sleep(seconds)
        self.world.is_changing_hands = True
        self.world_changes()
        before.terminate()
        status = before.wait(30)
        # It may not have got as far as to take a signal.
        assert status in (0, -signal.SIGTERM), f"the predecessor ended with {status}"
        if self.world.is_setting_in_doubt:
            self.judge.touch(self.world.current())
            self.world.is_setting_in_doubt = False
        self.world_changes()
        self.world.is_changing_hands = False
        return f"{seconds:.2f} s"

    def setting_changes(self):
        """In the agent's file, which it reads when it starts."""
        self.world.dns_capture = not self.world.dns_capture
        return f"redirect.dnsCapture {self.world.dns_capture}"

    # The tunnel.
    def tunnel_reconnects(self):
        if self.world.is_tunnel_up:
            self.world_changes()
            self.world.tunnels_up[-1].disconnect()

    def tunnel_is_killed(self):
        """And comes back at once, knowing nothing."""
        self.world_changes()
        self.judge.touch(self.world.current(), cause="tunnel", changes=False)
        self.world.tunnels_up[-1].kill()

    def tunnel_stops(self):
        self.world_changes()
        self.judge.touch(self.world.current(), cause="tunnel", changes=False)
        self.world.is_tunnel_up = False
        while self.world.tunnels_up:
            self.world.end_tunnel(self.world.tunnels_up[0])
        self.world_changes()

    def tunnel_starts(self):
        self.world.connect()
        self.world.is_tunnel_up = True
        self.world_changes()

    def tunnel_joins(self):
        """Another one beside it, as in an upgrade: Adds go to the newest connection, Dels to both."""
        self.world_changes()
        self.world.connect()
        self.world_changes()

    def tunnel_leaves(self, which=None):
        """What it carries breaks with it, what it alone was told of is told to the other."""
        tunnel = self.world.tunnels_up[self.random.randrange(2) if which is None else which]
        is_newest = tunnel is self.world.tunnels_up[-1]
        self.world_changes()
        self.judge.touch(self.world.current(), cause="tunnel", changes=False)
        self.world.end_tunnel(tunnel)
        self.world_changes()
        return "the newer" if is_newest else "the older"

    def tunnel_is_slow(self, delay=None):
        """Or is not any more."""
        world = self.world
        world.tunnel_delay = self.random.choice([0, 0.05, 0.3]) if delay is None else delay
        self.world_changes()
        for tunnel in world.tunnels_up:
            tunnel.delay = world.tunnel_delay
        return f"{world.tunnel_delay} s"

    def tunnel_refuses(self):
        """One pod's Adds."""
        pod = self.random.choice(self.world.live)
        with self.judge.lock:
            self.judge.touch([pod.record], changes=False)
            pod.was_refused = True
            self.world.refused[pod.uid] = "told to refuse"
        return pod.key

    def tunnel_takes_again(self):
        self.world.refused.clear()

    # The API server.
    def api_server_dies(self):
        self.world_changes()
        self.world.is_api_up = False
        self.world.stop_api()

    def api_server_returns(self):
        if self.random.random() < 0.5:
            self.world.api.compact()
        self.world.start_api()
        self.world.is_api_up = True
        self.world_changes()

    def watches_have_trouble(self):
        order = self.random.choice(["end", "close", "reset", "truncate", "expire", "cut", "compact"])
        self.world_changes()
        if order == "cut":
            self.world.api.cut_connections()
        elif order == "compact":
            self.world.api.compact()
        else:
            self.world.api.order_watchers(order)
        return order

    def patches_fail(self):
        """The next ones, and a pod needs one just then."""
        status = self.random.choice([500, 429, 409, 0])
        self.world.api.fail("PATCH", status, times=self.random.randrange(1, 4))
        if not self.world.live:
            return status
        pod = self.random.choice(self.world.live)
        label = "none" if self.world.belongs(pod) else "ambient"
        self.change(pod, label=label)
        return f"{status}, {pod.key} {label}"

    # All is well again.
    def heal(self):
        if not self.world.is_api_up:
            self.api_server_returns()
        with self.world.api.changed:
            self.world.api.faults.clear()
        # A running agent writes its files when something changes, not before.
        if self.world.is_agent_up and self.is_corrupt:
            self.agent_is_killed()
        if not self.world.is_agent_up:
            self.agent_starts()
        if not self.world.is_tunnel_up:
            self.tunnel_starts()
        while self.unreported:
            self.end_of_a_pod_is_reported()
        self.tunnel_is_slow(0)
        while len(self.world.tunnels_up) > 1:
            self.tunnel_leaves()
        self.tunnel_takes_again()
        # Nothing that is told of the pod afterwards gives occasion for another try.
        if self.random.random() < 0.3:
            self.make(self.patches_fail)
        # Nor does another's change of the host's rules wait for one of ours, which would put them right by the way.
        if self.random.random() < 0.3:
            self.make(self.host_is_edited)
        self.world_changes()
