"""ambient-installer render, verify and version: what needs no running agent."""
import json
import subprocess

import pytest

from . import redirect

PROGRAM = redirect.BUILD / "ambient-installer"
REDIRECTION = {"dnsCapture": False, "exclude": {"outboundPorts": ["1-5"]}}


def call(*arguments, stdout=subprocess.PIPE):
    done = subprocess.run([str(PROGRAM), *arguments], stdin=subprocess.DEVNULL, stdout=stdout, stderr=subprocess.PIPE, text=True,
                          check=False, timeout=20)
    return done.returncode, done.stdout, done.stderr


@pytest.mark.parametrize("stage", ["full", "guard"])
def test_render(pod_alone, stage):
    status, text, _ = call("render", "--stage", stage, "--redirect", json.dumps(REDIRECTION))
    assert status == 0 and text == redirect.render(stage, **REDIRECTION)
    pod_alone.run("nft", "-c", "-f", "-", stdin=text)
    pod_alone.nft(text)
    (redirect.apply if stage == "full" else redirect.guard)(pod_alone, **REDIRECTION)
    assert redirect.difference(pod_alone, stage, **REDIRECTION) == ""


def test_verify(pod_alone):
    path = ("--netns", pod_alone.path)
    status, text, _ = call("verify", *path)
    assert status == 3 and "table inet ambient-cni is missing" in text
    redirect.apply(pod_alone, **REDIRECTION)
    status, text, _ = call("verify", *path, "--redirect", json.dumps(REDIRECTION))
    assert status == 0 and "as it should be" in text
    assert call("verify", *path)[0] == 3
    assert call("verify", *path, "--stage", "guard")[0] == 3
    redirect.guard(pod_alone)
    assert call("verify", *path, "--stage", "guard")[0] == 0


@pytest.mark.parametrize("arguments, words", [
    (("verify", "--netns", "/no/where"), "/no/where"),
    (("verify", "--netns", "/dev/null"), "not a network namespace"),
    (("render", "--redirect", "{"), "--redirect, line 1"),
    (("render", "--redirect", "[]"), "expected an object"),
    (("render", "--redirect", '{"exclude": {"outboundPorts": [0]}}'), "redirect.exclude.outboundPorts[0]"),
])
def test_what_fails_is_said(arguments, words):
    status, text, problem = call(*arguments)
    assert status == 1 and text == "" and words in problem


@pytest.mark.parametrize("arguments", [("render", "--stage", "half"), ("render", "more"), ("verify", "--netns"), ("render", "--what")])
def test_usage(arguments):
    status, text, problem = call(*arguments)
    assert status == 2 and text == "" and problem


def test_a_full_disk_is_said():
    with open("/dev/full", "wb") as full:
        status, _, problem = call("render", stdout=full)
    assert status == 1 and "No space left" in problem


def test_version():
    assert call("version")[1].strip()
