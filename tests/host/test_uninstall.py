"""The binary stays as long as a runtime may call it: CRI-O runs DEL with the chain that it cached at ADD."""
import base64
import json

import pytest

from .configurations import CALICO, with_us

ENTRY = {"type": "ambient-cni", "enrollment": "installer"}


@pytest.fixture
def host(host):
    host.write("10-calico.conflist", CALICO)
    assert host.install()["ready"]
    return host


def cache(host, configuration, name="k8s-pod-network-abc-eth0"):
    """What libcni writes after an ADD."""
    host.results.mkdir(exist_ok=True)
    text = configuration if isinstance(configuration, bytes) else json.dumps(configuration).encode()
    (host.results / name).write_text(json.dumps({
        "kind": "cniCacheV1", "containerId": "abc", "config": base64.b64encode(text).decode(), "ifName": "eth0",
        "networkName": "k8s-pod-network", "cniArgs": [["K8S_POD_NAME", "x"]], "result": {"cniVersion": "0.3.1"}}))


def binary_stays(host):
    answer = host.uninstall()
    assert answer["configuration_gone"] and host.read("10-calico.conflist") == CALICO
    assert (host.bin_dir / "ambient-cni").exists() == (not answer["binary_gone"])
    if not answer["binary_gone"]:
        assert "stays" in answer["remark"] and str(host.bin_dir) in answer["remark"]
    return not answer["binary_gone"]


def test_nothing_was_ever_cached(host):
    assert not binary_stays(host)


def test_a_cached_result_names_us(host):
    cache(host, with_us(CALICO, ENTRY))
    assert binary_stays(host)
    next(host.results.iterdir()).unlink()
    assert not binary_stays(host)


@pytest.mark.parametrize("length", range(3))
def test_every_length_of_base64(host, length):
    cache(host, {**with_us(CALICO, ENTRY), "x": "y" * length})
    assert binary_stays(host)


def test_cached_results_of_others(host):
    cache(host, CALICO)
    cache(host, {"type": "bridge", "name": "x"}, "x-abc-eth0")
    (host.results / "old-abc-eth0").write_text(json.dumps({"cniVersion": "0.2.0", "ip4": {}}))  # before cniCacheV1
    (host.results / "directory").mkdir()
    assert not binary_stays(host)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"config": "***"}', '{"config": 7}', '{"config": "e30"}',
                                     '{"config": "' + base64.b64encode(b"{").decode() + '"}'])
def test_a_result_that_cannot_be_understood_may_be_ours(host, content):
    host.results.mkdir()
    (host.results / "x").write_text(content)
    expected = content != "[]"  # a list has no configuration
    assert binary_stays(host) == expected


def test_results_that_are_not_known(host):
    host.options["results_dir"] = None
    assert binary_stays(host)


def test_results_that_are_not_mounted(host):
    host.options["results_dir"] = str(host.folder / "not/mounted/results")
    assert binary_stays(host)


def test_nothing_was_ever_installed(make_host):
    host = make_host("other")
    assert host.uninstall() == {"configuration_gone": True, "binary_gone": True, "remark": ""}
    host.bin_dir.rmdir()
    host.conf_dir.rmdir()
    assert host.uninstall() == {"configuration_gone": True, "binary_gone": True, "remark": ""}


def test_the_runtime_never_sees_a_configuration_without_its_plugin(host):
    """In any order of what is gone already."""
    (host.bin_dir / "ambient-cni").unlink()
    assert not binary_stays(host)
    host.install()
    (host.conf_dir / "10-calico.conflist").unlink()
    assert host.uninstall()["binary_gone"]
