"""Others who write in the same directory at the same time: nothing of theirs is lost, and nobody fights."""
import json
import subprocess
import threading
import time

from .configurations import BRIDGE, CALICO, CILIUM, ISTIO_ENTRY, KINDNET, with_us
from .tool import TOOL, Watcher

ENTRY = {"type": "ambient-cni", "enrollment": "installer", "runDir": "/run/x"}


def has_us(host, name):
    try:
        return "ambient-cni" in host.types(name)
    except (OSError, ValueError, KeyError):
        return False


def test_a_thousand_rewrites_by_a_hostile_neighbour(host):
    host.write("10-calico.conflist", CALICO)
    with host.watch() as watcher:
        watcher.wait_ready()
        for number in range(1000):
            host.write("10-calico.conflist", {**CALICO, "number": number})
            watcher.read(0.001)
        event = watcher.wait_event("ConfigurationFight")
        assert "again and again" in event["message"] and event["level"] == "warn"
        assert watcher.state["results"]["configuration"]["written"] <= 15
        # It gives up at last, and its last word counts, with us behind it.
        watcher.wait(lambda: has_us(host, "10-calico.conflist") and watcher.state["ready"], "the entry put back")
        assert host.read("10-calico.conflist") == with_us({**CALICO, "number": 999}, ENTRY)
        assert [event["event"] for event in watcher.events].count("ConfigurationFight") == 1
    assert host.names() == ["10-calico.conflist"]


def test_no_rewrite_is_ever_lost(make_host):
    """A neighbour writes at the very moment at which we do: what it wrote is what stands at the end, again and again."""
    host = make_host()
    stop, lost = threading.Event(), []

    def look():
        while not stop.is_set():
            host.run("install")

    host.write("10-calico.conflist", CALICO)
    thread = threading.Thread(target=look)
    thread.start()
    try:
        for number in range(60):
            for step in range(3):
                host.write("10-calico.conflist", {**CALICO, "number": [number, step]})
            time.sleep(0.003 * (number % 5))
            if host.read("10-calico.conflist").get("number") != [number, 2]:
                lost.append(number)
    finally:
        stop.set()
        thread.join()
    assert lost == []
    assert host.install()["ready"]


def test_two_agents_at_once(host):
    """An upgrade: the successor starts before the predecessor is gone."""
    host.write("10-bridge.conf", BRIDGE)
    with host.watch() as one, host.watch() as two:
        one.wait_ready()
        two.wait_ready()
        host.write("10-bridge.conf", {**BRIDGE, "mtu": 1400})
        for watcher in (one, two):
            watcher.wait(lambda: host.names() == ["10-bridge.conflist"] and has_us(host, "10-bridge.conflist")
                         and host.read("10-bridge.conflist")["plugins"][0].get("mtu") == 1400, "following")
        (host.bin_dir / "ambient-cni").unlink()
        one.wait(lambda: (host.bin_dir / "ambient-cni").exists(), "the plugin put back")
        for watcher in (one, two):
            watcher.wait_ready()
            assert not [event for event in watcher.events if event["event"] in ("ConfigurationFight", "BinaryFailed")]
    assert host.names() == ["10-bridge.conflist"]


def test_many_starts_at_once(host):
    host.write("10-bridge.conf", BRIDGE)
    processes = [subprocess.Popen([str(TOOL), "install", json.dumps(host.options)], stdout=subprocess.PIPE, text=True)
                 for _ in range(12)]
    assert all(json.loads(process.communicate()[0].splitlines()[-1])["binary_ready"] for process in processes)
    assert host.install()["ready"]
    assert host.names() == ["10-bridge.conflist"]
    assert host.read("10-bridge.conflist")["plugins"][0] == BRIDGE
    assert [path.name for path in host.bin_dir.iterdir()] == ["ambient-cni"]


def test_two_agents_with_different_settings_are_told_of_and_not_let_loose(host):
    host.write("10-calico.conflist", CALICO)
    with host.watch() as one:
        one.wait_ready()
        two = Watcher(host.command("watch", plugin={"enrollment": "installer", "runDir": "/run/other"}))
        try:
            deadline = time.monotonic() + 20
            while not any(event["event"] == "ConfigurationFight" for event in one.events + two.events):
                assert time.monotonic() < deadline
                one.read(0.02)
                two.read(0.02)
            time.sleep(0.5)
            one.read(0.01)
            two.read(0.01)
            written = sum(watcher.state["results"]["configuration"]["written"] for watcher in (one, two))
            assert written <= 24
        finally:
            two.stop()
        one.wait(lambda: host.read("10-calico.conflist") == with_us(CALICO, ENTRY), "ours again")
        one.wait_ready()


def fight(host, watcher, name, configuration):
    for number in range(40):
        watcher.wait(lambda: has_us(host, name) or any(event["event"] == "ConfigurationFight" for event in watcher.events), "ours")
        host.write(name, {**configuration, "number": number})
        watcher.read(0.01)
        if any(event["event"] == "ConfigurationFight" for event in watcher.events):
            break
    return watcher.wait_event("ConfigurationFight")["message"]


def test_cilium_is_named_with_its_setting(host):
    host.write("05-cilium.conflist", CILIUM)
    with host.watch() as watcher:
        watcher.wait_ready()
        assert "cni.exclusive=false" in fight(host, watcher, "05-cilium.conflist", CILIUM)


def test_istio_cnis_agent_is_named(host):
    host.write("10-kindnet.conflist", KINDNET)
    with host.watch() as watcher:
        watcher.wait_ready()
        configuration = {**KINDNET, "plugins": [*KINDNET["plugins"], ISTIO_ENTRY]}
        assert "istio-cni's node agent still runs" in fight(host, watcher, "10-kindnet.conflist", configuration)


def test_cilium_that_puts_our_own_configuration_away(host):
    host.write("05-cilium.conflist", CILIUM)
    with host.watch(own_config=True) as watcher:
        watcher.wait_ready()
        own = host.conf_dir / "02-ambient-cni.conflist"
        own.rename(own.with_name(own.name + ".cilium_bak"))
        watcher.wait(own.exists, "ours again")
        watcher.wait_ready()
    host.uninstall(own_config=True)
    assert host.names() == ["05-cilium.conflist"]


def test_a_neighbour_in_place_and_not_atomically(host):
    """Multus does so: what is half written is not taken for the truth."""
    host.write("10-kindnet.conflist", KINDNET)
    with host.watch() as watcher:
        watcher.wait_ready()
        for number in range(8):
            text = json.dumps({**KINDNET, "number": number})
            with open(host.conf_dir / "10-kindnet.conflist", "w", encoding="utf-8") as file:
                file.write(text[:100])
                file.flush()
                watcher.read(0.05)
                file.write(text[100:])
            watcher.read(0.05)
        watcher.wait(lambda: has_us(host, "10-kindnet.conflist") and watcher.state["ready"], "the entry put back")
        assert host.read("10-kindnet.conflist") == with_us({**KINDNET, "number": 7}, ENTRY)


def test_a_quiet_host_is_left_in_peace(host):
    host.write("10-calico.conflist", CALICO)
    with host.watch() as watcher:
        watcher.wait_ready()
        time.sleep(0.2)
        ticks = _ticks(watcher)
        before = (host.conf_dir.stat().st_mtime_ns, host.bin_dir.stat().st_mtime_ns)
        time.sleep(1)
        assert (host.conf_dir.stat().st_mtime_ns, host.bin_dir.stat().st_mtime_ns) == before
        assert _ticks(watcher) - ticks <= 2
        assert len(watcher.states) <= 2


def _ticks(watcher):
    with open(f"/proc/{watcher.process.pid}/stat", encoding="ascii") as file:
        fields = file.read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])
