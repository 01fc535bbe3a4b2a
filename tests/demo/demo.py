"""The demonstration: a node without a cluster. Pods that run enter the mesh and leave it while connections go on; what the node
agent, the plugin and the kernel do is shown step by step. Started by `run`, which makes the namespaces that it happens in. Exit
status 0 when every check held and no connection was lost."""
import argparse
import json
import os
import platform
import re
import sys
import time
from pathlib import Path

from machine import LABEL, LASTING_PORT, NAME_SERVER, ONCE_PORT, OUTSIDE, PROBE, STREAM_PORT, Machine, run
from report import Report
from traffic import Conversation, Stream, ask_name, ask_once

APPLICATION_PORT = 8080
TABLE = ("inet", "ambient-cni")
HOST_TABLE = ("inet", "ambient-cni-host")


def show(address, port):
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def until(condition, seconds=10):
    """How long it took until it was true; None: it was not, in time."""
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        if condition():
            return time.monotonic() - started
        time.sleep(0.002)
    return None


def milliseconds(seconds):
    return "never" if seconds is None else f"{seconds * 1000:.0f} ms"


class Demonstration:
    def __init__(self, machine, report):
        self.machine, self.report = machine, report
        self.conversations, self.streams = [], []

    # What the steps are made of.

    def pods(self):
        return list(self.machine.pods.values())

    def make_pod(self, name):
        """What a kubelet and its runtime do: the object first, then the sandbox and its network, then the container."""
        pod = self.machine.make_pod(name)
        self.machine.put_pod(pod)
        time.sleep(0.05)
        started = time.monotonic()
        self.machine.cni("add", "podnet", pod)
        took = time.monotonic() - started
        self.machine.put_pod(pod)
        pod.start("server.py", name, str(APPLICATION_PORT))
        return pod, took

    def rules(self, pod, table=TABLE):
        done = run("nft", "-j", "list", "table", *table, netns=pod.netns if pod else None, check=False)
        listing = json.loads(done.stdout)["nftables"] if done.returncode == 0 else []
        return [entry["rule"] for entry in listing if "rule" in entry]

    def has_redirects(self, pod):
        return any(rule["chain"] == "output-redirect" for rule in self.rules(pod))

    def routing(self, pod):
        """Our policy rules and local routes, both families."""
        lines = []
        for family in self.machine.families:
            lines += [line for line in pod.run("ip", f"-{family}", "rule").stdout.splitlines() if "0x111" in line]
            lines += pod.run("ip", f"-{family}", "route", "show", "table", "100", check=False).stdout.splitlines()
        return [" ".join(line.split()) for line in lines]

    def view(self, pod):
        return json.loads(self.machine.ask_agent("explain", f"demo/{pod.name}", "-o", "json").stdout)

    def state(self, pod):
        done = self.machine.ask_agent("explain", f"demo/{pod.name}", "-o", "json", check=False)
        return json.loads(done.stdout or "{}").get("state") if done.stdout.startswith("{") else None

    def ask_through_tunnel(self, pod, address):
        """A connection of its own to a server outside. Returns the answer and what the tunnel tells of it; None: nothing."""
        since = self.machine.tunnel.count()
        answer, _ = ask_once(pod.netns, address, ONCE_PORT)
        return answer, self.machine.tunnel.wait(lambda event: (event.get("listener"), event.get("destination")) == (
            "outbound", [address, ONCE_PORT]), since=since)

    def events_from(self, source, destination):
        return self.machine.tunnel.matching(
            lambda event: event.get("source") == source and event.get("destination") == destination)

    def converse(self, pod, family):
        """A connection to a server outside that stays open."""
        return Conversation(f"{pod.name} -> {show(OUTSIDE[family], LASTING_PORT)}", pod.netns, OUTSIDE[family], LASTING_PORT)

    def watch_traffic(self, pod):
        """Kept open, and opened anew every 5 ms: out of the pod and into it, in each family."""
        for family in self.machine.families:
            self.conversations.append(self.converse(pod, family))
            self.conversations.append(Conversation(f"node -> {pod.name}, IPv{family}", None, pod.addresses[family],
                                                   APPLICATION_PORT))
            self.streams.append(Stream(pod.netns, OUTSIDE[family], STREAM_PORT))
            # Not from the node itself: what its own sockets send is taken for a kubelet's probe.
            other = next(other for other in self.pods() if other is not pod)
            self.streams.append(Stream(other.netns, pod.addresses[family], APPLICATION_PORT))

    def judge_conversations(self, conversations, way):
        for conversation in conversations:
            is_alive = conversation.wait_for_lines(20)
            if way == "past the tunnel":
                is_as_said = not self.events_from(conversation.source, conversation.destination)
            else:
                is_as_said = len(self.machine.tunnel.matching(
                    lambda event, conversation=conversation: event.get("destination") == conversation.destination)) == 1
            self.report.seen(is_alive and conversation.failure is None and is_as_said,
                             f"open connection {conversation.label}: {conversation.lines} lines, longest gap "
                             f"{conversation.longest * 1000:.0f} ms, {way}"
                             + (f"; {conversation.failure}" if conversation.failure else ""))

    def judge_streams(self):
        opened, lost = sum(stream.opened for stream in self.streams), sum(stream.lost for stream in self.streams)
        failures = sorted({failure for stream in self.streams for failure in stream.failures})
        self.report.seen(lost == 0, f"{opened} new connections so far, {lost} lost; the slowest took "
                         f"{max(stream.longest for stream in self.streams) * 1000:.0f} ms"
                         + (f"; {', '.join(failures)}" if failures else ""))

    def flow_on(self, count=60):
        for stream in self.streams:
            stream.wait_for(count)

    # The steps.

    def start(self):
        report, machine = self.report, self.machine
        report.step("A node starts: the agent, then its tunnel")
        report.done("ambient-installer run --set source=folder:objects …   (a folder of objects in the API server's place)")
        report.expect("the tunnel connects, is told of no pod and is ready; status says that all is well")
        machine.put_namespace()
        machine.start_agent()
        until(machine.tunnel_socket.exists)
        machine.start_tunnel()
        took = until(lambda: machine.tunnel.matching(lambda event: event["event"] == "ready"))
        report.seen(took is not None, f"the tunnel is ready after {milliseconds(took)}")
        status = machine.ask_agent("status", check=False)
        report.seen(status.returncode == 0, "ambient-installer status:")
        report.note(status.stdout or status.stderr)

    def add_outside(self):
        report = self.report
        report.step("Two pods start outside the mesh")
        report.done("cnitool add podnet /run/netns/cart; the same for shop   (bridge, host-local, then ambient-cni)")
        report.expect("the plugin asks the agent and does nothing: their namespace has no label")
        for name in ("cart", "shop"):
            pod, took = self.make_pod(name)
            addresses = ", ".join(pod.addresses[family] for family in self.machine.families)
            report.seen(not self.rules(pod) and not self.routing(pod),
                        f"{name} ({addresses}) after {milliseconds(took)}: no table, no policy rule of ours")

    def label(self):
        report, machine = self.report, self.machine
        cart, shop = self.pods()[:2]
        report.step("The namespace is labelled: running pods enter the mesh")
        report.done(f"connections kept open and new ones every 5 ms, out and in, while the namespace gets {LABEL}=ambient")
        report.expect("both are enrolled in a moment; open connections go on past the tunnel, new ones go through it; none is lost")
        self.watch_traffic(cart)
        self.watch_traffic(shop)
        self.flow_on()
        machine.put_namespace(**{LABEL: "ambient"})
        took = until(lambda: all(self.has_redirects(pod) for pod in (cart, shop)))
        report.seen(took is not None, f"the last redirect stands {milliseconds(took)} after the label")
        took = until(lambda: all(self.state(pod) == "enabled" for pod in (cart, shop)))
        self.flow_on(120)
        self.judge_conversations(self.conversations, "past the tunnel")
        through = machine.tunnel.matching(lambda event: event["event"] == "carried")
        report.seen(len(through) >= 100, f"{len(through)} new connections came through the tunnel")
        self.judge_streams()

    def explain(self):
        report, machine = self.report, self.machine
        report.step("What the agent says of it")
        report.done("ambient-installer status; ambient-installer explain demo/cart")
        report.expect("both pods are enabled, and why")
        for command, *arguments in (("status",), ("explain", "demo/cart")):
            done = machine.ask_agent(command, *arguments, check=False)
            report.seen(done.returncode == 0, f"ambient-installer {' '.join((command, *arguments))}:")
            report.note(done.stdout or done.stderr)

    def packets(self):
        report, machine = self.report, self.machine
        cart, shop = self.pods()[:2]
        report.step("Where packets go")
        report.done("from cart to a server outside; from cart to shop; a DNS query; a probe from the node; cart to its own port 15001")
        report.expect("the tunnel reads each original destination; it hears nothing of the probe; the last one is reset")
        for family in machine.families:
            answer, event = self.ask_through_tunnel(cart, OUTSIDE[family])
            report.seen(bool(event), f"outbound (15001): SO_ORIGINAL_DST {show(*event['destination']) if event else 'nothing'}; answer \"{answer}\"")
            answer, _ = ask_once(cart.netns, shop.addresses[family], APPLICATION_PORT)
            event = machine.tunnel.wait(lambda event, family=family: event.get("listener") == "inbound" and event.get("destination") ==
                                        [shop.addresses[family], APPLICATION_PORT])
            report.seen(bool(event) and f"shop sees {cart.addresses[family]}" in answer,
                        f"inbound (15006): SO_ORIGINAL_DST {show(*event['destination']) if event else 'nothing'}; answer \"{answer}\"")
            answer, client = ask_once(None, shop.addresses[family], APPLICATION_PORT)
            heard = self.events_from(client, [shop.addresses[family], APPLICATION_PORT])
            report.seen(f"shop sees {PROBE[family]}" in answer and not heard, f"probe: \"{answer}\"; tunnel: nothing")
            try:
                answer, _ = ask_once(cart.netns, cart.addresses[family], 15001)
                report.seen(False, f"guard: accepted: {answer}")
            except OSError as error:
                report.seen(isinstance(error, ConnectionRefusedError), f"guard: {show(cart.addresses[family], 15001)}: {error}")
        answer = ask_name(cart.netns, NAME_SERVER, False)
        heard = machine.tunnel.wait(lambda event: event["event"] == "dns")
        report.seen(answer is not None and bool(heard), f"DNS (15053): the tunnel answered {answer}")

    def add_new(self):
        report = self.report
        report.step("A new pod of a labelled namespace is in the mesh before it runs")
        report.done("cnitool add podnet /run/netns/bank")
        report.expect("when the ADD returns, rules stand, the tunnel has accepted it and its probe address is known")
        bank, took = self.make_pod("bank")
        accepted = self.machine.tunnel.matching(lambda event: bank.uid in json.dumps(event))
        host = run("nft", "list", "table", *HOST_TABLE, check=False).stdout
        report.seen(self.has_redirects(bank) and len(self.routing(bank)) == 2 * len(self.machine.families) and bool(accepted)
                    and bank.addresses[4] in host, f"after {milliseconds(took)}, cnitool's and bridge's time included: "
                    f"{len(self.rules(bank))} rules; {', '.join(self.routing(bank)[:2])}")
        answer, event = self.ask_through_tunnel(bank, OUTSIDE[4])
        report.seen(bool(event), f"its first connection: \"{answer}\", tunnelled")
        check = self.machine.cni("check", "podnet", bank, check=False)
        report.seen(check.returncode == 0, f"cnitool check: {check.stderr.strip() or 'passes'}")

    def counters_and_rules(self):
        report, cart = self.report, self.pods()[0]
        report.step("Counters and rules, for people")
        report.done("ambient-installer explain demo/cart -o json; ambient-installer render | nft -c -f -")
        report.expect("packets by outcome; nft accepts the rules, and they are as many as in the pod")
        packets = self.view(cart)["rules"]["packets"]
        report.seen(all(packets.get(outcome, 0) > 0 for outcome in ("inbound", "outbound", "dns", "guard")),
                    ", ".join(f"{outcome} {count:.0f}" for outcome, count in packets.items()))
        text = run(self.machine.installer, "render", "--redirect", json.dumps({"ipv6": self.machine.has_ipv6})).stdout
        accepted = run("nft", "-c", "-f", "-", stdin=text, check=False)
        rendered, standing = text.count(" comment \""), len(self.rules(cart))
        report.seen(accepted.returncode == 0 and rendered == standing > 10,
                    f"nft: {accepted.stderr.strip() or 'accepted'}; {rendered} rules, {standing} in cart; one chain of them:")
        chain = re.search(r"^\tchain output-redirect .*?^\t}", text, re.MULTILINE | re.DOTALL)
        report.note(chain.group(0).expandtabs(4) if chain else text[:600])

    def repair(self):
        report, cart = self.report, self.pods()[0]
        report.step("A rule is deleted by hand, and comes back")
        victim = next(rule for rule in self.rules(cart) if rule.get("comment", "").startswith("outbound"))
        report.done(f"nft delete rule inet ambient-cni {victim['chain']} handle {victim['handle']}   (\"{victim['comment']}\")")
        report.expect("the agent hears it, puts it right within 100 ms and says so; connections go on")
        cart.run("nft", "delete", "rule", *TABLE, victim["chain"], "handle", victim["handle"])
        took = until(lambda: any(rule.get("comment") == victim["comment"] for rule in self.rules(cart)), 3)
        listing = time.monotonic()
        self.rules(cart)
        listing = time.monotonic() - listing
        # On a busy machine nft takes longer to start and to list than the agent to repair: that is not counted.
        report.seen(took is not None and took < 0.1 + 2 * listing, f"\"{victim['comment']}\" is back after {milliseconds(took)} (nft's own start included)")
        said = [line for line in self.machine.log.read_text(encoding="utf-8").splitlines() if "step=repair" in line]
        report.seen(bool(said), said[-1].partition("\t")[2] if said else "the log says nothing")
        self.judge_streams()

    def restart(self):
        report, machine, cart = self.report, self.machine, self.pods()[0]
        report.step("The agent is killed and starts again")
        report.done("kill -9; ambient-installer run")
        report.expect("the rules that stand are adopted, not written anew; connections go on")
        handles = [rule["handle"] for rule in self.rules(cart)]
        conversations = [self.converse(cart, family) for family in machine.families]
        connected = len(machine.tunnel.matching(lambda event: event["event"] == "connected"))
        machine.agent.kill()
        machine.agent.wait()
        machine.start_agent()
        took = until(lambda: len(machine.tunnel.matching(lambda event: event["event"] == "connected")) > connected)
        until(lambda: self.state(cart) == "enabled")
        report.seen(took is not None and [rule["handle"] for rule in self.rules(cart)] == handles,
                    f"the tunnel is back after {milliseconds(took)}; the rules bear the handles that they had")
        self.judge_conversations(conversations, "through the tunnel")
        self.judge_streams()
        return conversations

    def unlabel(self, conversations):
        report, machine = self.report, self.machine
        report.step("The label goes: running pods leave the mesh")
        report.done(f"the namespace loses {LABEL}")
        report.expect("new connections go direct at once; what the tunnel carries comes to its own end; then all of it is gone")
        machine.put_namespace()
        took = until(lambda: not any(self.has_redirects(pod) for pod in self.pods()))
        report.seen(took is not None, f"the last redirect is gone after {milliseconds(took)}")
        time.sleep(3.5)
        self.judge_conversations(conversations, "through the tunnel")
        self.judge_conversations(self.conversations, "past the tunnel")
        self.flow_on(60)
        for watched in self.streams + self.conversations + conversations:
            watched.stop()
        self.judge_streams()
        report.connections(sum(stream.opened for stream in self.streams), sum(stream.lost for stream in self.streams))
        took = until(lambda: not any(self.rules(pod) or self.routing(pod) for pod in self.pods()), 20)
        report.seen(took is not None, f"{milliseconds(took)} after the last connection: no table, no policy rule, no route in any pod")
        until(lambda: all(self.state(pod) == "none" for pod in self.pods()), 3)
        elements = run("nft", "list", "table", *HOST_TABLE, check=False).stdout
        report.seen("elements" not in elements, "the host's probe sets are empty")
        since = machine.tunnel.count()
        answer, _ = ask_once(self.pods()[0].netns, OUTSIDE[4], ONCE_PORT)
        report.seen(not machine.tunnel.events[since:], f"cart -> {show(OUTSIDE[4], ONCE_PORT)}: \"{answer}\"; tunnel: nothing")

    def remove(self):
        report, machine = self.report, self.machine
        report.step("Everything is removed")
        report.done("cnitool del for each pod, a second time too; the agent stops; ambient-installer uninstall")
        report.expect("nothing is left: no table, no file")
        for _ in range(2):
            done = [machine.cni("del", "podnet", pod, check=False) for pod in self.pods()]
        report.seen(all(one.returncode == 0 for one in done), "DEL succeeds, twice")
        for pod in self.pods():
            machine.remove_pod(pod)
        machine.agent.terminate()
        status = machine.agent.wait(10)
        machine.agent = None
        done = machine.ask_agent("uninstall", "--set=host.install=false", "--set=host.procDir=/proc", "--set=host.netnsDir=/run/netns",
                                 check=False)
        tables = run("nft", "list", "tables").stdout.strip()
        report.seen(status == 0 and done.returncode == 0 and "ambient" not in tables,
                    f"agent: exit status {status}; uninstall: {done.stderr.strip() or 'done'}; nft list tables: {tables or 'none'}")
        attachments = sorted(path.name for path in machine.run_dir.rglob("attachments/*"))
        report.seen(not attachments, f"remembered attachments: {', '.join(attachments) or 'none'}")
        machine.tunnel.process.stdin.close()
        status = machine.tunnel.process.wait(10)
        report.seen(status == 0, "the tunnel saw no breach of its protocol" if status == 0 else "the tunnel saw a breach of its protocol")
        machine.tunnel = None

    def all(self):
        self.start()
        self.add_outside()
        self.label()
        self.explain()
        self.packets()
        self.add_new()
        self.counters_and_rules()
        self.repair()
        conversations = self.restart()
        self.unlabel(conversations)
        self.remove()


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
        report.note(machine.log.read_text(encoding="utf-8")[-3000:] if machine.log.exists() else "")
    finally:
        machine.close()
    sys.exit(report.finish())


if __name__ == "__main__":
    main()
