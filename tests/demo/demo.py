"""The demonstration: what the plugin does to pods and their packets, step by step. Started by `run`, which makes the namespaces
that it happens in. Exit status 0 when every check held and no connection was lost."""
import argparse
import json
import os
import platform
import re
import sys
import time
from pathlib import Path

from machine import NAME_SERVER, OUTSIDE, PROBE, Machine, run
from report import Report
from traffic import Conversation, Stream, ask_name, ask_once

APPLICATION_PORT = 8080
TABLE = ("inet", "ambient-cni")


def show(address, port):
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


class Demonstration:
    def __init__(self, machine, report):
        self.machine = machine
        self.report = report
        self.tunnels = {}

    # What the steps are made of.

    def make_pod(self, name, network):
        """A sandbox, its network by cnitool, its tunnel and its application; in the order of a node with a running tunnel."""
        pod = self.machine.make_pod(name)
        self.machine.cni("add", network, pod)
        self.tunnels[name] = pod.start("tunnel.py", NAME_SERVER)
        pod.start("server.py", name, str(APPLICATION_PORT))
        self.report.note(f"pod {name}: {', '.join(pod.addresses[family] for family in self.machine.families)}")
        return pod

    def table(self, pod):
        """Our table as nft sees it, as a list of objects; empty when there is none."""
        done = pod.run("nft", "-j", "list", "table", *TABLE, check=False)
        return json.loads(done.stdout)["nftables"] if done.returncode == 0 else []

    def rules(self, pod):
        return [entry["rule"] for entry in self.table(pod) if "rule" in entry]

    def counters(self, pod):
        """Packets by outcome: the word before the colon of a rule's comment."""
        totals = {}
        for rule in self.rules(pod):
            outcome = rule.get("comment", "").partition(":")[0]
            for expression in rule["expr"]:
                if "counter" in expression and expression["counter"]:
                    totals[outcome] = totals.get(outcome, 0) + expression["counter"]["packets"]
        return totals

    def routing(self, pod):
        """Our policy rules and local routes, both families."""
        lines = []
        for family in self.machine.families:
            lines += [line for line in pod.run("ip", f"-{family}", "rule").stdout.splitlines() if "0x111" in line]
            lines += pod.run("ip", f"-{family}", "route", "show", "table", "100", check=False).stdout.splitlines()
        return [" ".join(line.split()) for line in lines]

    def saw(self, pod, listener, source, timeout=3):
        """The event of the pod's tunnel for the connection from this address and port."""
        return self.tunnels[pod.name].wait(lambda event: event["listener"] == listener and event.get("source") == source, timeout)

    def tunnel_events(self, pod, source):
        return self.tunnels[pod.name].matching(lambda event: event.get("source") == source)

    # The steps.

    def before(self):
        report = self.report
        report.step("A pod that runs outside the mesh")
        report.done("ip netns add bank; cnitool add plain /run/netns/bank   (bridge and host-local, not chained with ours)")
        report.expect("its connections go direct; no nftables table, no policy rule of ours")
        bank = self.make_pod("bank", "plain")
        for family in self.machine.families:
            answer, client = ask_once(bank.netns, OUTSIDE[family], 80)
            report.seen(not self.tunnel_events(bank, client) and bank.addresses[family] in answer,
                        f"bank -> {show(OUTSIDE[family], 80)}: \"{answer}\"; the tunnel heard nothing")
        report.seen(not self.table(bank) and not self.routing(bank), "nft list table: none; ip rule: only the kernel's own")
        return bank

    def enrol_running(self, bank):
        report, families = self.report, self.machine.families
        report.step("The pod that runs is enrolled")
        report.done("connections kept open and new ones every 5 ms, out and in, while: cnitool add mesh /run/netns/bank")
        report.expect("open connections go on; new ones reach the tunnel; none is refused, reset or lost")
        conversations = [Conversation(f"bank -> {show(OUTSIDE[family], 80)}", bank.netns, OUTSIDE[family], 80)
                         for family in families]
        conversations += [Conversation(f"node -> bank, IPv{family}", None, bank.addresses[family], APPLICATION_PORT)
                          for family in families]
        streams = [Stream(bank.netns, OUTSIDE[family], 80) for family in families]
        streams += [Stream(None, bank.addresses[family], APPLICATION_PORT) for family in families]
        for stream in streams:
            stream.wait_for(100)
        direct = len(self.tunnels["bank"].events)
        started = time.monotonic()
        self.machine.cni("add", "mesh", bank)
        took = time.monotonic() - started
        for stream in streams:
            stream.wait_for(200)
        for conversation in conversations:
            conversation.is_alive_after = conversation.wait_for_lines(50)
        for watched in streams + conversations:
            watched.stop()
        for conversation in conversations:
            captured = self.tunnel_events(bank, conversation.source)
            report.seen(conversation.is_alive_after and conversation.failure is None and not captured,
                        f"open connection {conversation.label}: {conversation.lines} lines, longest gap "
                        f"{conversation.longest * 1000:.0f} ms, past the tunnel"
                        + (f"; {conversation.failure}" if conversation.failure else ""))
        opened, lost = sum(stream.opened for stream in streams), sum(stream.lost for stream in streams)
        failures = sorted({failure for stream in streams for failure in stream.failures})
        report.connections(opened, lost)
        report.seen(lost == 0, f"{opened} new connections, {lost} lost; the slowest took "
                    f"{max(stream.longest for stream in streams) * 1000:.0f} ms" + (f"; {', '.join(failures)}" if failures else ""))
        outbound = self.tunnels["bank"].matching(lambda event: event["listener"] == "outbound")
        inbound = self.tunnels["bank"].matching(lambda event: event["listener"] == "inbound")
        wanted_outbound = [[OUTSIDE[family], 80] for family in families]
        wanted_inbound = [[bank.addresses[family], APPLICATION_PORT] for family in families]
        is_right = all(event["destination"] in wanted_outbound for event in outbound) and all(
            event["destination"] in wanted_inbound for event in inbound)
        report.seen(is_right and len(outbound) >= 100 and len(inbound) >= 100 and direct <= 1,
                    f"since the ADD ({took * 1000:.0f} ms with cnitool's start) {len(outbound)} outbound and {len(inbound)} inbound "
                    f"connections came through the tunnel, each with its own destination")

    def add_new(self):
        report = self.report
        report.step("Two new pods, through the whole chain")
        report.done("cnitool add podnet /run/netns/cart; the same for shop   (bridge, host-local, then ambient-cni)")
        report.expect("each has its addresses, our table, and the policy rule and local route of each family; CHECK passes")
        cart, shop = self.make_pod("cart", "podnet"), self.make_pod("shop", "podnet")
        for pod in (cart, shop):
            rules, routing = self.rules(pod), self.routing(pod)
            check = self.machine.cni("check", "podnet", pod, check=False)
            report.seen(len(rules) > 10 and len(routing) == 2 * len(self.machine.families) and check.returncode == 0,
                        f"{pod.name}: {len(rules)} rules, {', '.join(routing[:2])}; CHECK: "
                        + (check.stdout.strip() or check.stderr.strip() or "passes"))
        for pod in (cart, shop):
            self.tunnels[pod.name].tell([address for other in (cart, shop) for address in other.addresses.values()])
            self.tunnels[pod.name].wait(lambda event: event["listener"] == "mesh")
        return cart, shop

    def outbound(self, cart):
        report = self.report
        report.step("A connection that leaves a pod arrives at the tunnel")
        report.done("in cart: connect to a server outside, port 80")
        report.expect("the tunnel (15001) reads the original destination and carries it on")
        for family in self.machine.families:
            answer, client = ask_once(cart.netns, OUTSIDE[family], 80)
            event = self.saw(cart, "outbound", client)
            report.seen(bool(event) and event["destination"] == [OUTSIDE[family], 80],
                        f"tunnel: from {show(*client)}, SO_ORIGINAL_DST {show(*event['destination']) if event else 'nothing'}; "
                        f"answer \"{answer}\"")

    def inbound(self, shop):
        report = self.report
        report.step("A connection that enters a pod arrives at the tunnel, and the application sees its client")
        report.done(f"on the node: connect to shop, port {APPLICATION_PORT}")
        report.expect("the tunnel (15006) reads the original destination; the application sees the client's own address")
        for family in self.machine.families:
            answer, client = ask_once(None, shop.addresses[family], APPLICATION_PORT, source=OUTSIDE[family])
            event = self.saw(shop, "inbound", client)
            report.seen(bool(event) and event["destination"] == [shop.addresses[family], APPLICATION_PORT]
                        and f"shop sees {OUTSIDE[family]}" in answer,
                        f"tunnel: from {show(*client)}, SO_ORIGINAL_DST {show(*event['destination']) if event else 'nothing'}; "
                        f"answer \"{answer}\"")

    def within_mesh(self, cart, shop):
        report = self.report
        report.step("From pod to pod inside the mesh: tunnel to tunnel")
        report.done(f"in cart: connect to shop, port {APPLICATION_PORT}")
        report.expect("cart's tunnel dials shop's port 15008, which nothing redirects; shop sees cart's address")
        for family in self.machine.families:
            answer, client = ask_once(cart.netns, shop.addresses[family], APPLICATION_PORT)
            left = self.saw(cart, "outbound", client)
            arrived = self.tunnels["shop"].wait(lambda event, family=family: event["listener"] == "hbone" and
                                                event["source"][0] == cart.addresses[family])
            report.seen(bool(left and arrived) and left["onward"] == "tunnel" and f"shop sees {cart.addresses[family]}" in answer
                        and arrived["destination"] == [shop.addresses[family], APPLICATION_PORT],
                        f"cart's tunnel: {'onward by ' + left['onward'] if left else 'nothing'}; shop's tunnel on 15008: "
                        f"{arrived['verb'] + ' ' + show(*arrived['destination']) if arrived else 'nothing'}; answer \"{answer}\"")

    def dns(self, cart):
        report = self.report
        report.step("DNS queries are captured")
        report.done(f"in cart: ask {NAME_SERVER} for shop.example, by UDP and by TCP")
        report.expect("the tunnel (15053) gets the query and asks upstream; the answer comes from the address that was asked")
        for is_tcp, listener in ((False, "dns"), (True, "dns-tcp")):
            answer = ask_name(cart.netns, NAME_SERVER, is_tcp)
            events = self.tunnels["cart"].matching(lambda event, listener=listener: event["listener"] == listener)
            report.seen(answer == "192.0.2.1" and len(events) == 1,
                        f"{'TCP' if is_tcp else 'UDP'}: answer {answer}; the tunnel heard {len(events)} query from "
                        f"{show(*events[0]['source']) if events else 'nobody'}")

    def probe(self, shop):
        report = self.report
        report.step("A kubelet probe is let through")
        report.done(f"on the node: connect to shop, port {APPLICATION_PORT}, from the probe address")
        report.expect("the application answers, the tunnel hears nothing")
        for family in self.machine.families:
            answer, client = ask_once(None, shop.addresses[family], APPLICATION_PORT, source=PROBE[family])
            report.seen(f"shop sees {PROBE[family]}" in answer and not self.tunnel_events(shop, client),
                        f"\"{answer}\"; tunnel: nothing")

    def guard(self, cart):
        report = self.report
        report.step("Nobody talks to the tunnel's own ports directly")
        report.done("in cart: connect to cart's own address, port 15001")
        report.expect("reset: else the tunnel would dial itself without end")
        for family in self.machine.families:
            try:
                answer, _ = ask_once(cart.netns, cart.addresses[family], 15001)
                report.seen(False, f"accepted: {answer}")
            except OSError as error:
                report.seen(isinstance(error, ConnectionRefusedError), f"{show(cart.addresses[family], 15001)}: {error}")

    def count(self, pods):
        report = self.report
        report.step("Counters say what happened to packets")
        report.done("nft -j list table inet ambient-cni in each pod, summed by the rules' comments")
        report.expect("each pod's outcomes of the steps above, none at zero")
        for pod, outcomes in pods:
            counters = self.counters(pod)
            report.seen(all(counters.get(outcome, 0) > 0 for outcome in outcomes),
                        f"{pod.name}: " + ", ".join(f"{outcome} {packets}" for outcome, packets in sorted(counters.items())
                                                    if packets or outcome in outcomes))

    def render(self, cart):
        report = self.report
        report.step("The rules, for people")
        report.done("ambient-installer render | nft -c -f -")
        report.expect("nft accepts them; they are as many as in the pod")
        text = run(self.machine.installer, "render", "--redirect", json.dumps({"ipv6": self.machine.has_ipv6})).stdout
        accepted = run("nft", "-c", "-f", "-", stdin=text, check=False)
        rendered, standing = text.count(" comment \""), len(self.rules(cart))
        report.seen(accepted.returncode == 0, f"nft: {accepted.stderr.strip() or 'accepted'}")
        report.seen(rendered == standing > 10,
                    f"{rendered} rules in {len(text.splitlines())} lines, {standing} in cart; one chain of them:")
        chain = re.search(r"^\tchain output-redirect .*?^\t}", text, re.MULTILINE | re.DOTALL)
        report.note(chain.group(0).expandtabs(4) if chain else text[:600])

    def repair(self, bank):
        report, families = self.report, self.machine.families
        report.step("A rule that is taken away is missed, and put back without harm")
        conversations = [Conversation(f"bank -> {show(OUTSIDE[family], 80)}", bank.netns, OUTSIDE[family], 80)
                         for family in families]
        victim = next(rule for rule in self.rules(bank) if rule.get("comment", "").startswith("outbound"))
        report.done(f"nft delete rule inet ambient-cni {victim['chain']} handle {victim['handle']}   (\"{victim['comment']}\")")
        report.expect("cnitool check fails and names it; another ADD repairs; redirected connections go on")
        bank.run("nft", "delete", "rule", *TABLE, victim["chain"], "handle", victim["handle"])
        check = self.machine.cni("check", "mesh", bank, check=False)
        said = (check.stdout + check.stderr).strip().splitlines()
        report.seen(check.returncode != 0 and victim["comment"].partition(":")[2].strip() in " ".join(said) != "",
                    f"check: {said[-1] if said else 'nothing'}")
        self.machine.cni("add", "mesh", bank)
        check = self.machine.cni("check", "mesh", bank, check=False)
        report.seen(check.returncode == 0, f"after another ADD: check {'passes' if check.returncode == 0 else check.stderr.strip()}")
        for conversation in conversations:
            is_alive = conversation.wait_for_lines(50)
            conversation.stop()
            captured = self.tunnel_events(bank, conversation.source)
            report.seen(is_alive and conversation.failure is None and len(captured) == 1,
                        f"redirected connection {conversation.label}: {conversation.lines} lines, longest gap "
                        f"{conversation.longest * 1000:.0f} ms" + (f"; {conversation.failure}" if conversation.failure else ""))

    def remove(self, bank, new_pods):
        report = self.report
        report.step("DEL takes all of it away")
        report.done("cnitool del mesh /run/netns/bank; cnitool del podnet for cart and shop; each a second time")
        report.expect("no table, no policy rule, no route, no file; bank's connections go direct again")
        self.machine.cni("del", "mesh", bank)
        for pod in new_pods:
            self.machine.cni("del", "podnet", pod)
        for pod in (bank, *new_pods):
            report.seen(not self.table(pod) and not self.routing(pod),
                        f"{pod.name}: {len(self.rules(pod))} rules, {len(self.routing(pod))} rules and routes for the mark 0x111")
        again = [self.machine.cni("del", network, pod, check=False) for network, pod in
                 (("mesh", bank), *(("podnet", pod) for pod in new_pods))]
        report.seen(all(done.returncode == 0 for done in again), "a second DEL succeeds too")
        for family in self.machine.families:
            answer, client = ask_once(bank.netns, OUTSIDE[family], 80)
            report.seen(not self.tunnel_events(bank, client), f"bank -> {show(OUTSIDE[family], 80)}: \"{answer}\"; tunnel: nothing")
        self.machine.cni("del", "plain", bank)
        for pod in (bank, *new_pods):
            self.machine.remove_pod(pod)
        files = sorted(str(path.relative_to(self.machine.run_dir)) for path in self.machine.run_dir.rglob("*") if path.is_file())
        report.seen(not files, f"files left in runDir: {', '.join(files) or 'none'}")

    def all(self):
        bank = self.before()
        self.enrol_running(bank)
        cart, shop = self.add_new()
        self.outbound(cart)
        self.inbound(shop)
        self.within_mesh(cart, shop)
        self.dns(cart)
        self.probe(shop)
        self.guard(cart)
        self.count(((bank, ("inbound", "outbound")), (cart, ("outbound", "dns", "guard")), (shop, ("inbound", "hbone", "probe"))))
        self.render(cart)
        self.repair(bank)
        self.remove(bank, (cart, shop))


def main():
    parser = argparse.ArgumentParser()
    for name in ("build", "cni-plugins", "cnitool"):
        parser.add_argument(f"--{name}", type=Path, required=True)
    arguments = parser.parse_args()
    if os.getpid() != 1:
        sys.exit("demo.py mounts over /run and /var/lib: start it by tests/demo/run, which makes namespaces for it")
    report = Report()
    machine = Machine(arguments.build.resolve(), arguments.cni_plugins, arguments.cnitool)
    version = run(machine.installer, "version").stdout.strip()
    report.title(f"{version}, kernel {platform.release()}, {machine.cnitool.name}")
    report.note("Everything happens in namespaces of its own: the machine's network is not touched, and nothing is left behind."
                + ("" if machine.has_ipv6 else "\nThis kernel has no IPv6: IPv4 only."))
    try:
        Demonstration(machine, report).all()
    except Exception as error:  # a step that could not even be made is a failed check, and the last line is still printed
        report.seen(False, f"stopped: {type(error).__name__}: {error}")
    finally:
        machine.close()
    sys.exit(report.finish())


if __name__ == "__main__":
    main()
