"""Instructions of one call of the plugin, and of the agent's own code for one pod, counted by valgrind, and bytes of the agent's
heap for one pod that is in: numbers that do not depend on what else the machine does.

    PYTHONPATH=tests python3 -m budgets.instructions        writes tests/bench/budgets.json anew

What the agent does is counted in tests/bench/flips.c and apply.c, which hold its rooms: the difference of two runs of different
length, divided by what the longer one does more, so that start and end are not in it.

The start of any dynamic program, which the C library alone pays, is a floor of its own: /bin/true's. What is counted is the
development build of Debian 12; another compiler, or other libraries, count otherwise."""
import json
import os
import pathlib
import re
import subprocess
import tempfile

from netns.namespace import Namespace

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("AMBIENT_BUILD", REPOSITORY / "build"))
BUDGETS = REPOSITORY / "tests" / "bench" / "budgets.json"
OTHERS = "beside 500 remembered others"
# Name: (verb, pod's namespace, more configuration). "skip" asks nobody: the namespace is excluded.
CALLS = {
    "VERSION": ("VERSION", None, {}),
    "ADD of an excluded namespace": ("ADD", "kube-system", {"enrollment": "installer"}),
    "ADD, enrollment always": ("ADD", "shop", {"enrollment": "always"}),
    "DEL after it": ("DEL", "shop", {"enrollment": "always"}),
    f"ADD, enrollment always, {OTHERS}": ("ADD", "shop", {"enrollment": "always"}),
    f"DEL after it, {OTHERS}": ("DEL", "shop", {"enrollment": "always"}),
}


# Name: (program, arguments of a short run, of a long one, what the long one does more).
AGENT = {
    "a redirection applied": ("apply", ["10"], ["40"], 30),
    "a pod into the mesh and out again, beside 20": ("flips", ["20", "1", "0", "0"], ["20", "3", "0", "0"], 40),
    "a pod into the mesh and out again, beside 80": ("flips", ["80", "1", "0", "0"], ["80", "3", "0", "0"], 160),
    "an ADD, beside 20": ("flips", ["20", "0", "10", "0"], ["20", "0", "40", "0"], 30),
    "an ADD, beside 80": ("flips", ["80", "0", "10", "0"], ["80", "0", "40", "0"], 30),
    "a pod in a save of what is remembered": ("flips", ["80", "0", "0", "5"], ["80", "0", "0", "15"], 800),
}


def count(command, stdin="", environment=None):
    """Of the program alone, the loader included."""
    done = subprocess.run(["valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null", *command], input=stdin, text=True,
                          capture_output=True, check=False, env={"PATH": os.environ["PATH"], **(environment or {})})
    assert done.returncode == 0, (done.stdout, done.stderr)
    return int(re.search(r"Collected : (\d+)", done.stderr)[1])


def measure_agent():
    found = {}
    for name, (program, short, long, more) in AGENT.items():
        command = str(BUILD / "bench" / program)
        found[name] = (count([command, *long]) - count([command, *short])) // more
    return found


def heap(pods, wrapper=(), **options):
    """In use with so many pods at rest. What is free, but kept at hand by malloc (tcache), would count as in use."""
    return int(subprocess.run([*wrapper, str(BUILD / "bench" / "flips"), str(pods), "0", "0", "0"], check=True, text=True,
                              stdout=subprocess.PIPE, env={**os.environ, "GLIBC_TUNABLES": "glibc.malloc.tcache_count=0"},
                              **options).stdout)


def measure_memory():
    """What the agent's own code holds for a pod at rest: 300 more than 20."""
    return {"heap of a pod at rest": (heap(320) - heap(20)) // 300}


def remember_others(folder):
    """So many enrolled attachments, each of a namespace of its own."""
    (folder / "run/attachments").mkdir(parents=True, exist_ok=True)
    for number in range(500):
        other = {"network": "podnet", "containerID": f"other-{number}", "interface": "eth0", "netnsPath": f"/proc/{number}/ns/net",
                 "podNamespace": "shop", "podName": f"other-{number}", "podUID": f"00000000-0000-4000-9000-{number:012}",
                 "enrolled": True, "netns": {"device": "4", "inode": str(number + 1)}, "addresses": ["10.244.0.8"],
                 "redirect": {}, "version": 1}
        (folder / f"run/attachments/other-{number}:eth0.json").write_text(json.dumps(other), encoding="utf-8")


def measure_plugin():
    found = {}
    with tempfile.TemporaryDirectory(prefix="ambient-budget-", dir="/dev/shm") as folder:
        netns = Namespace()
        try:
            netns.ip("link set lo up\n")
            for name, (verb, pod_namespace, more) in CALLS.items():
                configuration = {"cniVersion": "1.1.0", "name": "podnet", "type": "ambient-cni", "runDir": f"{folder}/run", **more,
                                 "prevResult": {"cniVersion": "1.1.0", "interfaces": [{"name": "eth0", "sandbox": "/x"}],
                                                "ips": [{"address": "10.244.0.7/24", "interface": 0}], "dns": {}}}
                environment = {"CNI_COMMAND": verb}
                if OTHERS in name:
                    remember_others(pathlib.Path(folder))
                if pod_namespace:
                    environment.update(
                        CNI_CONTAINERID="sandbox-1", CNI_NETNS=netns.path, CNI_IFNAME="eth0", CNI_PATH="/nowhere",
                        CNI_ARGS=f"IgnoreUnknown=1;K8S_POD_NAMESPACE={pod_namespace};K8S_POD_NAME=pod-1;"
                                 "K8S_POD_UID=00000000-0000-4000-8000-000000000001")
                found[name] = count([str(BUILD / "ambient-cni")], json.dumps(configuration), environment)
        finally:
            netns.close()
    return found


# What the budgets are for, and by how much each may be off: a part of it.
MEASURES = {"plugin instructions": (measure_plugin, 0.04), "agent instructions": (measure_agent, 0.05),
            "agent bytes": (measure_memory, 0.03)}


def main():
    counts = {what: measure() for what, (measure, _) in MEASURES.items()}
    BUDGETS.write_text(json.dumps(counts, indent=1) + "\n", encoding="utf-8")
    print(BUDGETS.read_text(encoding="utf-8"), end="")


if __name__ == "__main__":
    main()
