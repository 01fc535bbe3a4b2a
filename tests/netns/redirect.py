"""The redirection library, as tests drive it: a program that applies, verifies, renders, counts and removes."""
import json
import os
import pathlib
import subprocess

from . import node as places

BUILD = pathlib.Path(os.environ.get("AMBIENT_BUILD", pathlib.Path(__file__).resolve().parents[2] / "build"))
TOOL = BUILD / "tests" / "redirect_tool"
TABLE = "ambient-cni"


def run(verb, namespace=None, redirect=None, allowed=(0,)):
    """Returns (exit status, standard output, standard error)."""
    command = [str(TOOL), verb]
    if namespace is not None:
        command += ["--netns", namespace.path]
    if redirect is not None:
        command += ["--redirect", json.dumps(redirect)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode in allowed, f"redirect_tool {verb}: exit status {done.returncode}: {done.stderr}{done.stdout}"
    return done.returncode, done.stdout, done.stderr


def apply(namespace, **redirect):
    run("apply", namespace, redirect)


def guard(namespace, **redirect):
    run("guard", namespace, redirect)


def remove(namespace):
    run("remove", namespace)


def difference(namespace, stage="full", **redirect):
    """The first difference in words, or an empty string."""
    status, text, _ = run("verify" if stage == "full" else "verify-guard", namespace, redirect, allowed=(0, 3))
    assert (status == 3) == (text != ""), f"verify: exit status {status} with {text!r}"
    return text.strip()


def render(stage="full", **redirect):
    return run("render" if stage == "full" else "render-guard", None, redirect)[1]


def counters(namespace):
    return json.loads(run("counters", namespace)[1])


def counted(namespace):
    """The counters that are not 0."""
    return {outcome: packets for outcome, packets in counters(namespace).items() if packets}


def rules(namespace):
    """Our rules as the kernel has them: a list of (chain, handle, name)."""
    listing = json.loads(namespace.run("nft", "-j", "-a", "list", "table", "inet", TABLE))
    return [(entry["rule"]["chain"], entry["rule"]["handle"], entry["rule"].get("comment", ""))
            for entry in listing["nftables"] if "rule" in entry]


OTHER_PROBES = {"ipv4": places.OTHER_PROBE[4], "ipv6": places.OTHER_PROBE[6]}
