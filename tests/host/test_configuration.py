"""The configuration that a runtime would use is chained into, stays its owner's in everything else, and goes back."""
import json
import os
import stat
import time

import pytest

from .configurations import BRIDGE, CALICO, CILIUM, FLANNEL, ISTIO_ENTRY, KINDNET, with_istio, with_us

ENTRY = {"type": "ambient-cni", "enrollment": "installer", "runDir": "/run/x"}


def ordered(value):
    """Dictionaries compared with the order of their keys."""
    return json.dumps(value)


def test_a_chain_gets_our_entry_at_its_end_and_keeps_all_else(host):
    host.write("10-calico.conflist", CALICO)
    state = host.install()
    assert state["ready"] and state["file"] == "10-calico.conflist" and state["reason"] == ""
    assert ordered(host.read("10-calico.conflist")) == ordered(with_us(CALICO, ENTRY))
    assert host.names() == ["10-calico.conflist"]


def test_uninstalling_gives_the_chain_back(host):
    host.write("10-calico.conflist", CALICO)
    host.install()
    assert host.uninstall() == {"configuration_gone": True, "binary_gone": True, "remark": ""}
    assert ordered(host.read("10-calico.conflist")) == ordered(CALICO)
    assert list(host.bin_dir.iterdir()) == []
    assert host.uninstall()["configuration_gone"]


@pytest.mark.parametrize("extension", ["conf", "json"])
def test_a_single_plugins_file_becomes_a_list_and_goes_back(host, extension):
    host.write(f"10-bridge.{extension}", BRIDGE)
    assert host.install()["ready"]
    assert host.names() == ["10-bridge.conflist"]
    made = host.read("10-bridge.conflist")
    assert made == {"cniVersion": "1.0.0", "name": "podnet",
                    "plugins": [BRIDGE, {**ENTRY, "ambient-cni.io/original": f"10-bridge.{extension}"}]}
    assert host.install()["results"]["configuration"]["written"] == 0
    assert host.uninstall()["configuration_gone"]
    assert host.names() == [f"10-bridge.{extension}"]
    assert ordered(host.read(f"10-bridge.{extension}")) == ordered(BRIDGE)


@pytest.mark.parametrize("extension", ["conf", "json"])
def test_a_single_plugins_file_that_its_owner_writes_again_is_the_truth(host, extension):
    host.write(f"10-bridge.{extension}", BRIDGE)
    host.install()
    host.write(f"10-bridge.{extension}", {**BRIDGE, "mtu": 1400})
    assert host.install()["ready"]
    assert host.names() == ["10-bridge.conflist"]
    assert host.read("10-bridge.conflist")["plugins"][0]["mtu"] == 1400
    # And at uninstallation as well.
    host.write(f"10-bridge.{extension}", {**BRIDGE, "mtu": 1300})
    host.uninstall()
    assert host.names() == [f"10-bridge.{extension}"] and host.read(f"10-bridge.{extension}")["mtu"] == 1300


def test_a_list_that_somebody_extended_stays_a_list(host):
    host.write("10-bridge.conf", BRIDGE)
    host.install()
    made = host.read("10-bridge.conflist")
    made["plugins"].insert(1, {"type": "portmap"})
    host.write("10-bridge.conflist", made)
    host.uninstall()
    assert host.names() == ["10-bridge.conflist"] and host.types("10-bridge.conflist") == ["bridge", "portmap"]


def test_nothing_is_written_when_nothing_is_to_be_done(host):
    host.write("10-calico.conflist", CALICO)
    host.install()
    before = (host.conf_dir / "10-calico.conflist").stat()
    state = host.install()
    after = (host.conf_dir / "10-calico.conflist").stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)
    assert state["results"] == {"binary": {"written": 0, "failed": 0, "deferred": 0},
                                "configuration": {"written": 0, "failed": 0, "deferred": 0}}


def test_changed_keys_of_ours_are_written(host):
    host.write("10-calico.conflist", CALICO)
    host.install()
    host.options["plugin"] = {"enrollment": "installer", "whenAway": "closed"}
    assert host.install()["ready"]
    assert host.read("10-calico.conflist")["plugins"][-1] == {"type": "ambient-cni", **host.options["plugin"]}
    assert host.types("10-calico.conflist").count("ambient-cni") == 1


def test_the_mode_is_never_looser_than_it_was(host):
    host.write("10-calico.conflist", CALICO)
    host.install()
    path = host.conf_dir / "10-calico.conflist"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    host.uninstall()
    path.chmod(0o640)
    host.install(conf_mode=0o644)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_numbers_are_kept_exactly(host):
    numbers = [0, -1, 9007199254740992, 9007199254740991, -9007199254740992, 1000000000000000, 100000000000000000000, 0.1,
               1e-7, 123456.789, 0.30000000000000004, 1.7976931348623157e308]
    host.write("10-x.conflist", {**FLANNEL, "numbers": numbers})
    host.install()
    text = (host.conf_dir / "10-x.conflist").read_text()
    assert json.loads(text)["numbers"] == numbers
    for number in numbers[:6]:
        assert f"{number}," in text  # an integer is written as one: Go reads 1e+15 into no int


def test_text_of_others_is_kept(host):
    odd = {"a\"b\\c": "é \u2028 \n\t/", "": [], "empty": {}, "null": None, "twice": [True, False]}
    host.write("10-x.conflist", {**FLANNEL, "odd": odd})
    host.install()
    assert ordered(host.read("10-x.conflist")["odd"]) == ordered(odd)


def test_the_first_in_the_order_of_names_is_chained_into(host):
    for name in ("20-b.conflist", "10-a.conflist", "9-c.conflist"):
        host.write(name, FLANNEL)
    assert host.install()["file"] == "10-a.conflist"
    host.write(".hidden.conflist", CALICO)  # a dot file counts too
    assert host.install()["file"] == ".hidden.conflist"
    assert [name for name in host.names() if "ambient-cni" in host.types(name)] == [".hidden.conflist"]


def test_files_of_no_interest_are_left_alone(host):
    host.write("10-a.conflist", FLANNEL)
    for name in ("00-a.conflist.bak", "00-b.txt", "00-c.conflist~", "README", "calico-kubeconfig"):
        host.write(name, "x")
    (host.conf_dir / "00-directory.conflist").mkdir()
    state = host.install()
    assert state["ready"] and state["file"] == "10-a.conflist"


@pytest.mark.parametrize("name", ["nerdctl-bridge.conflist", "87-podman-bridge.conflist", "100-crio-bridge.conflist"])
def test_another_tools_network_is_not_chained_into_unless_named(host, name):
    host.write(name, {**FLANNEL, "name": "other"})
    state = host.install()
    assert not state["ready"] and name in state["reason"] and "host.confFile" in state["reason"]
    assert host.types(name) == ["flannel", "portmap"]
    assert host.install(conf_file=name)["ready"]
    assert host.types(name) == ["flannel", "portmap", "ambient-cni"]


def test_another_tools_network_before_ours_keeps_us_from_being_ready(host):
    host.write("100-crio-bridge.conflist", {**FLANNEL, "name": "other"})
    host.write("200-flannel.conflist", FLANNEL)
    state = host.install()
    assert not state["ready"] and "100-crio-bridge.conflist" in state["reason"] and "another tool" in state["reason"]
    assert host.types("200-flannel.conflist")[-1] == "ambient-cni"


def test_a_named_file_that_is_missing_is_waited_for(host):
    host.write("05-other.conflist", FLANNEL)
    state = host.install(conf_file="10-calico.conflist")
    assert not state["ready"] and "10-calico.conflist" in state["reason"] and "waiting" in state["reason"]
    host.write("10-calico.conflist", CALICO)
    state = host.install(conf_file="10-calico.conflist")
    # The runtime would use the other one.
    assert not state["ready"] and "05-other.conflist" in state["reason"] and "before" in state["reason"]
    assert host.types("10-calico.conflist")[-1] == "ambient-cni"


@pytest.mark.parametrize("named, there", [("10-a.conf", "10-a.conflist"), ("10-a.conflist", "10-a.conf")])
def test_a_named_file_is_found_under_its_other_ending(host, named, there):
    host.write(there, FLANNEL if there.endswith("list") else BRIDGE)
    assert host.install(conf_file=named)["file"] == "10-a.conflist"


INVALID = {
    "bad JSON": ("05-x.conflist", "{"),
    "empty": ("05-x.conflist", ""),
    "a list in a .conf": ("05-x.conf", json.dumps(FLANNEL)),
    "a list in a .json": ("05-x.json", json.dumps(FLANNEL)),
    "no plugins": ("05-x.conflist", '{"cniVersion":"1.0.0","name":"x"}'),
    "an empty list of plugins": ("05-x.conflist", '{"cniVersion":"1.0.0","name":"x","plugins":[]}'),
    "a plugin without a type": ("05-x.conflist", '{"cniVersion":"1.0.0","name":"x","plugins":[{"name":"y"}]}'),
    "no name": ("05-x.conflist", '{"cniVersion":"1.0.0","plugins":[{"type":"y"}]}'),
    "something behind": ("05-x.conflist", json.dumps(FLANNEL) + "x"),
    "no object": ("05-x.conf", "[]"),
}


@pytest.mark.parametrize("case", INVALID)
def test_an_invalid_file_before_ours_is_named_and_keeps_us_from_being_ready(host, case):
    name, text = INVALID[case]
    host.write("10-flannel.conflist", FLANNEL)
    host.write(name, text)
    state = host.install()
    assert not state["ready"] and name in state["reason"]
    assert "containerd" in state["reason"] and "CRI-O passes it over" in state["reason"]
    assert host.types("10-flannel.conflist")[-1] == "ambient-cni"  # CRI-O uses it
    (host.conf_dir / name).unlink()
    assert host.install()["ready"]


def test_the_only_configuration_being_invalid_is_named(host):
    host.write("10-flannel.conflist", "{")
    state = host.install()
    assert not state["ready"] and "10-flannel.conflist" in state["reason"] and "invalid" in state["reason"]


def test_our_own_configuration_stays_while_the_primarys_is_invalid(host):
    host.write("10-calico.conflist", CALICO)
    host.install(own_config=True)
    host.write("10-calico.conflist", "{")
    host.install(own_config=True)
    assert host.types("02-ambient-cni.conflist")[0] == "calico"


def test_an_invalid_file_behind_ours_is_nobodys_business(host):
    host.write("10-flannel.conflist", FLANNEL)
    host.write("20-x.conflist", "{")
    assert host.install()["ready"]


def test_a_link_to_nowhere_is_an_invalid_file(host):
    host.write("10-flannel.conflist", FLANNEL)
    (host.conf_dir / "05-x.conflist").symlink_to("/nonexistent/file")
    state = host.install()
    assert not state["ready"] and "link to nowhere" in state["reason"]


def test_a_fifo_holds_nobody(host):
    host.write("10-flannel.conflist", FLANNEL)
    os.mkfifo(host.conf_dir / "05-x.conflist")
    assert "not a regular file" in host.install()["reason"]


@pytest.mark.parametrize("version, words", [(None, "no cniVersion"), ("0.1.0", "0.1.0"), ("0.2.0", "0.2.0"), ("2.0.0", "2.0.0")])
def test_a_version_that_cannot_be_chained_is_refused(host, version, words):
    configuration = dict(FLANNEL)
    del configuration["cniVersion"]
    if version:
        configuration["cniVersion"] = version
    host.write("10-flannel.conflist", configuration)
    state = host.install()
    assert not state["ready"] and words in state["reason"] and "10-flannel.conflist" in state["reason"]
    assert host.types("10-flannel.conflist") == ["flannel", "portmap"]


def test_a_new_node_waits_for_the_primary_plugin(host):
    with host.watch() as watcher:
        watcher.wait_reason("waiting for the primary network's configuration")
        assert watcher.state["binary_ready"]  # the binary need not wait
        host.write("10-calico.conflist", CALICO)
        watcher.wait_ready()
    assert host.types("10-calico.conflist")[-1] == "ambient-cni"


def test_what_the_primary_plugin_does_is_followed(host):
    host.write("10-calico.conflist", CALICO)
    with host.watch() as watcher:
        watcher.wait_ready()
        # Rewritten.
        host.write("10-calico.conflist", {**CALICO, "new": 1})
        watcher.wait(lambda: host.types("10-calico.conflist")[-1] == "ambient-cni", "the entry put back")
        assert host.read("10-calico.conflist")["new"] == 1
        # Renamed.
        (host.conf_dir / "10-calico.conflist").rename(host.conf_dir / "20-calico.conflist")
        watcher.wait(lambda: watcher.state["ready"] and watcher.state["file"] == "20-calico.conflist", "following the rename")
        # Preceded.
        host.write("05-cilium.conflist", CILIUM)
        watcher.wait(lambda: watcher.state["ready"] and watcher.state["file"] == "05-cilium.conflist", "following precedence")
        assert host.types("20-calico.conflist") == ["calico", "portmap", "bandwidth"]
        # Removed.
        for name in host.names():
            (host.conf_dir / name).unlink()
        watcher.wait_reason("waiting for the primary network's configuration")
        host.write("10-flannel.conf", BRIDGE)
        watcher.wait_ready()
        assert host.names() == ["10-flannel.conflist"]


def test_a_file_written_in_place_and_slowly_makes_nobody_unready(host):
    host.write("10-calico.conflist", CALICO)
    with host.watch() as watcher:
        watcher.wait_ready()
        text = json.dumps({**CALICO, "slow": True})
        began = time.monotonic()
        with open(host.conf_dir / "10-calico.conflist", "w", encoding="utf-8") as file:
            for start in range(0, len(text), 200):
                file.write(text[start:start + 200])
                file.flush()
                watcher.read(0.05)
        watcher.wait(lambda: "slow" in (host.conf_dir / "10-calico.conflist").read_text()
                     and host.types("10-calico.conflist")[-1] == "ambient-cni", "the entry put back")
        # On a machine that stood still for a second meanwhile it is right to tell.
        assert time.monotonic() - began > 1 or all(state["ready"] for state in watcher.states)


# A configuration of our own.

def test_our_own_configuration_is_first_and_equal_to_the_primarys_chain(host):
    host.write("10-calico.conflist", CALICO)
    state = host.install(own_config=True)
    assert state["ready"] and state["file"] == "02-ambient-cni.conflist"
    assert host.read("10-calico.conflist") == CALICO
    assert host.read("02-ambient-cni.conflist") == with_us(CALICO, {**ENTRY, "ambient-cni.io/copy-of": "10-calico.conflist"})
    assert host.choose()["containerd"] == "02-ambient-cni.conflist"
    host.uninstall(own_config=True)
    assert host.names() == ["10-calico.conflist"] and host.read("10-calico.conflist") == CALICO


def test_our_own_configuration_of_a_single_plugin(host):
    host.write("10-bridge.conf", BRIDGE)
    assert host.install(own_config=True)["ready"]
    assert host.names() == ["02-ambient-cni.conflist", "10-bridge.conf"]
    assert host.read("02-ambient-cni.conflist")["plugins"][0] == BRIDGE
    assert host.read("02-ambient-cni.conflist")["name"] == "podnet"


def test_our_own_configuration_follows_the_primary_and_goes_with_it(host):
    host.write("10-calico.conflist", CALICO)
    with host.watch(own_config=True) as watcher:
        watcher.wait_ready()
        host.write("10-calico.conflist", {**CALICO, "new": 2})
        watcher.wait(lambda: host.read("02-ambient-cni.conflist").get("new") == 2, "following the primary")
        # A short absence is none.
        (host.conf_dir / "10-calico.conflist").unlink()
        watcher.read(0.3)
        assert "02-ambient-cni.conflist" in host.names()
        host.write("10-calico.conflist", CALICO)
        watcher.wait(lambda: "new" not in host.read("02-ambient-cni.conflist"), "following the primary")
        (host.conf_dir / "10-calico.conflist").unlink()
        watcher.wait(lambda: host.names() == [], "the copy gone with the primary")
        watcher.wait_reason("waiting for the primary")


def test_our_own_configuration_must_come_first(host):
    host.write("01-first.conflist", FLANNEL)
    state = host.install(own_config=True)
    assert not state["ready"] and "lower number" in state["reason"] and host.names() == ["01-first.conflist"]


def test_changing_between_the_two_ways_leaves_one_entry(host):
    host.write("10-calico.conflist", CALICO)
    host.install()
    assert host.install(own_config=True)["ready"]
    assert host.read("10-calico.conflist") == CALICO
    assert host.install()["file"] == "10-calico.conflist"
    assert host.names() == ["10-calico.conflist"]


# Stand-alone, for a meta plugin.

@pytest.mark.parametrize("name", ["ambient-cni.conf", "30-mesh.conflist"])
def test_a_stand_alone_configuration(host, name):
    state = host.install(chained=False, conf_file=name)
    assert state["ready"] and host.names() == [name]
    made = host.read(name)
    entry = made if name.endswith(".conf") else made["plugins"][0]
    assert made["name"] == ("ambient-cni" if name.endswith(".conf") else "mesh") and made["cniVersion"] == "1.0.0"
    assert entry["type"] == "ambient-cni" and entry["enrollment"] == "installer"
    host.uninstall(chained=False, conf_file=name)
    assert host.names() == []


def test_a_stand_alone_configuration_without_a_name(host):
    assert host.install(chained=False)["file"] == "02-ambient-cni.conflist"
    assert host.read("02-ambient-cni.conflist")["name"] == "ambient-cni"


@pytest.mark.parametrize("options", [{"chained": False, "conf_file": "05-other.conflist"},
                                     {"own_config": True, "own_config_file": "05-other.conflist"}])
def test_another_plugins_file_is_never_overwritten(host, options):
    host.write("05-other.conflist", FLANNEL)
    host.write("10-calico.conflist", CALICO)
    state = host.install(**options)
    assert not state["ready"] and "another plugin's" in state["reason"]
    assert host.read("05-other.conflist") == FLANNEL and host.read("10-calico.conflist") == CALICO
    host.uninstall(**options)
    assert host.read("05-other.conflist") == FLANNEL


# Multus.

def multus(delegate):
    return {"cniVersion": "0.3.1", "name": "multus-cni-network", "type": "multus", "delegates": [delegate]}


def test_multus_is_waited_for_until_it_embeds_us(host):
    host.write("00-multus.conf", multus(FLANNEL))
    host.write("10-flannel.conflist", FLANNEL)
    state = host.install()
    assert not state["ready"] and "Multus" in state["reason"] and state["file"] == "10-flannel.conflist"
    assert host.read("00-multus.conf") == multus(FLANNEL)
    host.write("00-multus.conf", multus(host.read("10-flannel.conflist")))
    assert host.install()["ready"]
    host.uninstall()
    assert host.read("10-flannel.conflist") == FLANNEL
    assert "ambient-cni" in json.dumps(host.read("00-multus.conf"))  # it follows by itself


def test_multus_that_names_the_primarys_file(host):
    host.write("00-multus.conf", {"cniVersion": "1.0.0", "name": "m", "type": "multus-shim",
                                  "clusterNetwork": "/host/etc/cni/net.d/10-bridge.conf"})
    host.write("10-bridge.conf", BRIDGE)
    assert "Multus" in host.install()["reason"]  # the .conf has become a .conflist
    host.write("00-multus.conf", {"cniVersion": "1.0.0", "name": "m", "type": "multus-shim",
                                  "clusterNetwork": "/host/etc/cni/net.d/10-bridge.conflist"})
    assert host.install()["ready"]


# Drop-in directories.

def test_a_chain_whose_plugins_are_all_drop_ins_is_named(host):
    (host.conf_dir / "net").mkdir()
    host.write("net/10-ptp.conf", {"type": "ptp"})
    host.write("10-net.conflist", {"cniVersion": "1.0.0", "name": "net"})
    state = host.install()
    assert not state["ready"] and "drop-ins" in state["reason"]


def test_a_drop_in_that_names_us_again_is_told(host):
    host.write("10-flannel.conflist", FLANNEL)
    (host.conf_dir / "cbr0").mkdir()
    host.write("cbr0/99-ambient.conf", {"type": "ambient-cni"})
    state = host.install()
    assert state["ready"]
    assert any("drop-ins" in event["message"] for event in state["events"])


def test_an_invalid_drop_in_is_an_invalid_configuration(host):
    host.write("10-flannel.conflist", FLANNEL)
    (host.conf_dir / "cbr0").mkdir()
    host.write("cbr0/99-x.conf", "{")
    assert "99-x.conf" in host.install()["reason"]
    host.write("10-flannel.conflist", {**FLANNEL, "loadOnlyInlinedPlugins": True})
    assert host.install()["ready"]


# istio-cni.

def test_istio_cnis_entry_is_replaced_and_its_kubeconfig_removed(host):
    host.write("10-kindnet.conflist", with_istio(KINDNET))
    host.write("ZZZ-istio-cni-kubeconfig", "token: secret")
    state = host.install()
    assert state["ready"]
    assert host.read("10-kindnet.conflist") == with_us(KINDNET, ENTRY)
    assert host.names() == ["10-kindnet.conflist"]
    assert [event["event"] for event in state["events"]].count("IstioCNIReplaced") == 1


@pytest.mark.parametrize("name", ["02-istio-cni.conflist", "YYY-istio-cni.conf", "YYY-istio-cni.conflist"])
@pytest.mark.parametrize("own", [False, True])
def test_istio_cnis_own_configuration_is_replaced(host, name, own):
    host.write("10-kindnet.conflist", KINDNET)
    host.write(name, ISTIO_ENTRY if name.endswith(".conf") else with_istio(KINDNET))
    host.write("ZZZ-istio-cni-kubeconfig", "token: secret")
    assert host.install(own_config=own)["ready"]
    expected = ["10-kindnet.conflist"] + (["02-ambient-cni.conflist"] if own else [])
    assert host.names() == sorted(expected)


def test_istio_cnis_own_configuration_stays_until_ours_stands(host):
    host.write("02-istio-cni.conflist", with_istio(KINDNET))
    state = host.install()
    assert not state["ready"] and host.names() == ["02-istio-cni.conflist"]


def test_a_kubeconfig_under_another_name_is_removed_and_nothing_else(host):
    entry = {**ISTIO_ENTRY, "kubernetes": {"kubeconfig": "/etc/cni/net.d/my-kubeconfig"}}
    host.write("10-kindnet.conflist", {**KINDNET, "plugins": [*KINDNET["plugins"], entry]})
    host.write("my-kubeconfig", "x")
    host.write("calico-kubeconfig", "x")
    host.install()
    assert host.names() == ["10-kindnet.conflist", "calico-kubeconfig"]


def test_no_credentials_are_written(host):
    host.write("10-kindnet.conflist", with_istio(KINDNET))
    host.install()
    text = (host.conf_dir / "10-kindnet.conflist").read_text()
    for word in ("kubeconfig", "token", "secret", "certificate", "KUBERNETES_SERVICE"):
        assert word not in text


def test_a_meta_plugins_istio_configuration_of_the_same_name_becomes_ours(host):
    host.write("istio-cni.conf", {"cniVersion": "0.3.1", "name": "istio-cni", **ISTIO_ENTRY})
    assert host.install(chained=False, conf_file="istio-cni.conf")["ready"]
    assert host.names() == ["istio-cni.conf"]
    assert host.read("istio-cni.conf")["type"] == "ambient-cni" and host.read("istio-cni.conf")["name"] == "istio-cni"


# Cilium.

def test_what_cilium_put_away_names_us_no_more_after_uninstallation(host):
    host.write("05-cilium.conflist", CILIUM)
    host.write("10-kindnet.conflist.cilium_bak", with_us(KINDNET, ENTRY))
    host.write("02-ambient-cni.conflist.cilium_bak", with_us(CILIUM, {**ENTRY, "ambient-cni.io/copy-of": "05-cilium.conflist"}))
    host.install()
    host.uninstall()
    assert host.names() == ["05-cilium.conflist", "10-kindnet.conflist.cilium_bak"]
    assert host.read("10-kindnet.conflist.cilium_bak") == KINDNET


@pytest.mark.parametrize("original", ["../../evil.conf", "/etc/passwd", "other.conf", "10-x.conflist", ""])
def test_an_original_that_is_none_leads_nowhere(host, original):
    host.write("10-x.conflist", with_us(CILIUM, {**ENTRY, "ambient-cni.io/original": original}))
    done = host.run("uninstall", check=False)
    assert done.returncode == 1 and "edit it by hand" in done.stdout
    assert host.names() == ["10-x.conflist"]
    assert not (host.conf_dir / "../../evil.conf").exists()


@pytest.mark.parametrize("options, words", [
    ({"conf_file": "../x.conflist"}, "host.confFile"), ({"conf_file": "x.txt"}, "host.confFile"),
    ({"own_config": True, "own_config_file": "a/b.conflist"}, "host.ownConfigFile"),
    ({"own_config": True, "own_config_file": "b.conf"}, "host.ownConfigFile")])
def test_bad_file_names_are_refused(host, options, words):
    done = host.run("install", check=False, **options)
    assert done.returncode == 1 and words in done.stderr
