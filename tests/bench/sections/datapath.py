"""What each packet and each new connection pays for the rules in two pods: between plain network namespaces, between redirected
ones, and between ones with rules of the same meaning, written by hand after istio-cni's in-pod layout. The ports that are used
are excluded in both pods, so that no tunnel stands between: the rules are all that differs.

The three are measured one right after the other, in another order each round, and what counts is the median of the rounds' own
ratios: whatever else the machine does for longer than a round is in both parts of a ratio, and what is shorter is in few rounds."""
import json
import pathlib
import shutil
import statistics
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2]))
from agent.node import die_with_parent  # noqa: E402
from netns.namespace import Namespace  # noqa: E402

TITLE = "The data path: pod to pod, rules only, no tunnel"
IPERF_PORT, PORT = 5201, 5202
ROUNDS, SECONDS, REQUESTS, CONNECTIONS = 21, 1, 10000, 3000

# Chains and order as istio-cni's iptables has them in a pod (raw, mangle, nat; its own chains jumped to), and the two ports let out
# first, as its exclusion annotations for sidecars do.
BY_HAND = """
table ip by-hand-raw {
	chain prert { udp sport 53 meta mark & 0xfff != 0x539 counter ct zone set 1; }
	chain out { udp dport 53 meta mark & 0xfff == 0x539 counter ct zone set 1; }
	chain PREROUTING { type filter hook prerouting priority raw; jump prert; }
	chain OUTPUT { type filter hook output priority raw; jump out; }
}
table ip by-hand-mangle {
	chain prert { meta mark & 0xfff == 0x539 counter ct mark set ct mark & 0xfffff000 | 0x111; }
	chain out { ct mark & 0xfff == 0x111 counter meta mark set ct mark; }
	chain PREROUTING { type filter hook prerouting priority mangle; counter jump prert; }
	chain OUTPUT { type route hook output priority mangle; counter jump out; }
}
table ip by-hand-nat {
	chain prert {
		tcp dport { 5201, 5202 } counter accept
		ip saddr 169.254.7.127 meta l4proto tcp counter accept
		ip daddr != 127.0.0.1 tcp dport != 15008 meta mark & 0xfff != 0x539 counter redirect to :15006
	}
	chain out {
		tcp dport { 5201, 5202 } counter accept
		ip daddr 169.254.7.127 meta l4proto tcp counter accept
		oifname != "lo" udp dport 53 meta mark & 0xfff != 0x539 counter redirect to :15053
		ip daddr != 127.0.0.1 tcp dport 53 meta mark & 0xfff != 0x539 counter redirect to :15053
		meta l4proto tcp meta mark & 0xfff == 0x111 counter accept
		ip daddr != 127.0.0.1 oifname "lo" counter accept
		ip daddr != 127.0.0.1 meta l4proto tcp meta mark & 0xfff != 0x539 counter redirect to :15001
	}
	chain PREROUTING { type nat hook prerouting priority dstnat; counter jump prert; }
	chain OUTPUT { type nat hook output priority -100; counter jump out; }
}
"""


class Pods:
    """Two pods and the wire between them, a server in each way of measuring in the second."""

    def __init__(self, bench, number):
        self.bench, self.address = bench, f"10.99.{number}.2"
        self.client, self.server = Namespace(), Namespace()
        self.client.ip(f"link add eth0 type veth peer name eth0 netns {self.server.path}\nlink set lo up\nlink set eth0 up\n"
                       f"addr add 10.99.{number}.1/24 dev eth0\n")
        self.server.ip(f"link set lo up\nlink set eth0 up\naddr add {self.address}/24 dev eth0\n")
        self.servers = []

    def start(self):
        for command, word in (([self.bench.program("traffic"), "serve", str(PORT)], "listening"),
                              (["iperf3", "--server", "--forceflush", "--port", str(IPERF_PORT)], "listening")):
            with self.server:
                process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=die_with_parent)
            self.servers.append(process)
            while word not in process.stdout.readline():
                pass
        return self

    def throughput(self):
        """Bits a second."""
        done = self.client.run("iperf3", "--client", self.address, "--port", str(IPERF_PORT), "--time", str(SECONDS), "--json")
        return json.loads(done)["end"]["sum_received"]["bits_per_second"]

    def traffic(self, what, count):
        """Nanoseconds for one."""
        return int(self.client.run(self.bench.program("traffic"), what, self.address, str(PORT), str(count)))

    def close(self):
        for process in self.servers:
            process.kill()
            process.wait()
        self.client.close()
        self.server.close()


def redirect(bench, namespace, number):
    """The real plugin, as a runtime calls it."""
    ports = [IPERF_PORT, PORT]
    configuration = {"cniVersion": "1.1.0", "name": "bench", "type": "ambient-cni", "enrollment": "always",
                     "runDir": str(bench.folder / "datapath"), "redirect": {"exclude": {"outboundPorts": ports, "inboundPorts": ports}},
                     "prevResult": {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": "/x"}], "ips": []}}
    subprocess.run([bench.plugin()], input=json.dumps(configuration), check=True, stdout=subprocess.DEVNULL, text=True, env={
        "CNI_COMMAND": "ADD", "CNI_CONTAINERID": f"pod{number}", "CNI_NETNS": namespace.path, "CNI_IFNAME": "eth0",
        "CNI_PATH": "/nowhere"})


def run(bench):
    if not shutil.which("iperf3"):
        sys.exit("tests/bench/run: the section datapath needs iperf3 (make deps, or tests/deps iperf3)")
    plain, ours, by_hand = pods = [Pods(bench, number) for number in range(3)]
    try:
        for number, namespace in enumerate((ours.client, ours.server)):
            redirect(bench, namespace, number)
        for namespace in (by_hand.client, by_hand.server):
            namespace.nft(BY_HAND)
        for pair in pods:
            pair.start()
        measured = {what: {pair: [] for pair in pods} for what in ("throughput", "requests", "connections")}
        for number in range(ROUNDS):
            order = pods[number % 3:] + pods[:number % 3]
            for what, measure in (("throughput", Pods.throughput),
                                  ("requests", lambda pair: pair.traffic("requests", REQUESTS)),
                                  ("connections", lambda pair: pair.traffic("connections", CONNECTIONS))):
                for pair in order:
                    measured[what][pair].append(measure(pair))
    finally:
        for pair in pods:
            pair.close()
    rows = []
    for what, name, unit, is_more_better in (("throughput", "one TCP stream, Gbit/s", 1e9, True),
                                             ("requests", "a request and its answer, one connection, µs", 1e3, False),
                                             ("connections", "a new connection, a request, its answer, µs", 1e3, False)):
        # Times: how many times longer; throughput: how many times less.
        over = {other: statistics.median(theirs / own if is_more_better else own / theirs
                                         for own, theirs in zip(measured[what][ours], measured[what][other])) for other in (plain, by_hand)}
        rows.append([name, *(f"{statistics.median(measured[what][pair]) / unit:.2f}" for pair in pods), f"{over[plain]:.2f}",
                     f"{over[by_hand]:.2f}", bench.judge(f"{name}: ours over rules by hand", over[by_hand], 1.1)])
    bench.table([f"median of {ROUNDS} rounds", "plain", "ambient-cni", "by hand", "ours over plain, median of the rounds",
                 "ours over by hand, median of the rounds", "target: over by hand"], rows)
