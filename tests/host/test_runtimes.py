"""What the libraries of containerd and CRI-O load, as the judge of what we think that they load, and of what we install."""
import json
import pathlib
import random
import subprocess

import pytest

from .configurations import BRIDGE, CALICO, CILIUM, FLANNEL, ISTIO_ENTRY, KINDNET, with_istio
from .test_configuration import INVALID

PLUGIN = """#!/bin/sh
echo '{"cniVersion":"1.0.0","supportedVersions":["0.1.0","0.2.0","0.3.0","0.3.1","0.4.0","1.0.0"]}'
"""
TYPES = ("calico", "portmap", "bandwidth", "flannel", "cilium-cni", "bridge", "ptp", "istio-cni", "multus", "host-local",
         "calico-ipam", "loopback")


@pytest.fixture(scope="session")
def judge_program():
    done = subprocess.run([pathlib.Path(__file__).with_name("judge.sh")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.fixture
def judge(host, judge_program):
    for name in TYPES:
        path = host.bin_dir / name
        path.write_text(PLUGIN)
        path.chmod(0o755)

    def ask():
        done = subprocess.run([judge_program, str(host.conf_dir), str(host.bin_dir)], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)
    return ask


def network_of(host, name):
    return None if name is None else host.read(name).get("name", "")


def agree(host, verdict):
    """Ours and the libraries' judgement of the directory."""
    ours = host.choose()
    assert (ours["containerd"] is None) == (verdict["containerd"]["error"] != ""), (ours, verdict)
    if ours["containerd"]:
        assert verdict["containerd"]["network"] == network_of(host, ours["containerd"]), (ours, verdict)
    assert (ours["crio"] is None) == (verdict["crio"]["error"] != ""), (ours, verdict)
    if ours["crio"]:
        # ocicni names a network without a name by its file.
        assert verdict["crio"]["network"] == (network_of(host, ours["crio"]) or ours["crio"]), (ours, verdict)
    if ours["stops_at"]:
        assert verdict["files"][ours["stops_at"]] != "" or "type" in verdict["containerd"]["error"], (ours, verdict)


@pytest.mark.parametrize("case", INVALID)
def test_an_invalid_file_is_what_the_libraries_take_for_one(host, judge, case):
    name, text = INVALID[case]
    host.write(name, text)
    host.write("10-flannel.conflist", FLANNEL)
    verdict = judge()
    assert verdict["containerd"]["error"] != "" and verdict["crio"] == {"network": "cbr0", "error": ""}
    agree(host, verdict)


@pytest.mark.parametrize("name, configuration", [
    ("10-calico.conflist", CALICO), ("10-flannel.conflist", FLANNEL), ("05-cilium.conflist", CILIUM), ("10-bridge.conf", BRIDGE),
    ("10-bridge.json", BRIDGE), ("10-kindnet.conflist", with_istio(KINDNET)), (".dot.conflist", FLANNEL)])
@pytest.mark.parametrize("own", [False, True], ids=["chained", "own"])
def test_what_is_installed_is_loaded_by_both(host, judge, name, configuration, own):
    plugins = [plugin["type"] for plugin in configuration.get("plugins", [configuration])]
    host.write(name, configuration)
    state = host.install(own_config=own, own_config_file=".02-ambient-cni.conflist")
    assert state["ready"]
    verdict = judge()
    expected = [plugin for plugin in plugins if plugin != "istio-cni"] + ["ambient-cni"]
    assert verdict["containerd"] == {"network": configuration["name"], "plugins": expected, "error": ""}
    assert verdict["crio"] == {"network": configuration["name"], "error": ""}
    host.uninstall(own_config=own, own_config_file=".02-ambient-cni.conflist")
    verdict = judge()
    assert verdict["containerd"]["plugins"] == [plugin for plugin in plugins if plugin != "istio-cni"]


# disableCheck "true", as a text, is of newer versions of libcni than this judge's.
VARIATIONS = [
    {"name": "x"}, {"name": ""}, {"name": None}, {"name": 7}, {"cniVersion": 1}, {"cniVersion": None},
    {"disableCheck": True}, {"disableCheck": "x"}, {"disableCheck": 1}, {"plugins": None}, {"plugins": {}}, {"plugins": [None]}, {"plugins": ["bridge"]},
    {"plugins": [{"type": 7}]}, {"plugins": [{"type": ""}]}, {"plugins": [{"type": "bridge", "ipam": []}]},
    {"plugins": [{"type": "bridge", "ipam": None}]}, {"plugins": [{"type": "bridge", "dns": "x"}]},
    {"plugins": [{"type": "bridge", "capabilities": {"a": 1}}]}, {"plugins": [{"type": "bridge", "capabilities": []}]},
    {"plugins": [{"type": "bridge", "name": 1}]}, {"plugins": [{"type": "bridge", "cniVersion": 2}]}, {"unknown": [1, {}]}]


@pytest.mark.parametrize("variation", VARIATIONS, ids=lambda value: json.dumps(value)[:40])
def test_variations_of_a_list(host, judge, variation):
    host.write("10-x.conflist", {**FLANNEL, **variation})
    host.write("20-y.conflist", KINDNET)
    agree(host, judge())


@pytest.mark.parametrize("text", [
    "\ufeff" + json.dumps(FLANNEL), " \n" + json.dumps(FLANNEL) + "\n\n", json.dumps(FLANNEL)[:-1], json.dumps(FLANNEL) + "{}",
    json.dumps(FLANNEL).replace("true", "TRUE"), "null", "7", '"x"', "[]", "// x\n" + json.dumps(FLANNEL),
    json.dumps({**FLANNEL, "x": 1}).replace('"x": 1', '"x": 1e999')])
def test_variations_of_text(host, judge, text):
    host.write("10-x.conflist", text)
    host.write("20-y.conflist", KINDNET)
    agree(host, judge())


def test_any_directory(host, judge):
    """Layouts by chance: what we would choose is what the libraries load."""
    chance = random.Random(20261124)
    contents = [json.dumps(value) for value in (CALICO, FLANNEL, CILIUM, KINDNET, BRIDGE, ISTIO_ENTRY)] + ["", "{", "[]"]
    names = [f"{number}-{word}{ending}" for number in ("05", "10", "9", "a", ".x") for word in ("net", "NET", "net.d")
             for ending in (".conf", ".conflist", ".json", ".bak", ".conflist.cilium_bak", "")]
    for _ in range(25):
        for path in host.conf_dir.iterdir():
            path.unlink()
        for number, name in enumerate(chance.sample(names, chance.randint(0, 6))):
            content = chance.choice(contents)
            if content.startswith("{\""):
                content = json.dumps({**json.loads(content), "name": f"net-{number}"})
            host.write(name, content)
        agree(host, judge())
