"""Values that were written for the istio-cni chart: each one has its effect, or is named with the reason why not."""
import itertools
import json
import subprocess

import pytest

from .conftest import CHART, SOURCE, run
from .istio_values import DEFAULTS, HONOURED, HONOURED_WITH, WITHOUT_EFFECT, leaves, nested

ENV_TRANSLATED = {
    "HOST_PROBE_SNAT_IP": ("169.254.9.9", 'ipv4: 169.254.9.9'),
    "HOST_PROBE_SNAT_IPV6": ("fd00::9", 'ipv6: fd00::9'),
    "AMBIENT_ENABLE_AWS_BRANCH_ENI_PROBE": ("false", 'awsBranchEni: "off"'),
    "AMBIENT_DISABLE_SAFE_UPGRADE": ("true", "safeUpgrade: false"),
    "SYSTEM_NAMESPACE": ("mesh", "systemNamespace: mesh"),
    "ZTUNNEL_UDS_ADDRESS": ("/var/run/other/z.sock", "tunnelSocket: /var/run/other/z.sock"),
    "CNI_CONF_GROUP_READ": ("true", 'confMode: "0640"'),
}


def remarks(rendered):
    lines = rendered.notes.splitlines()
    return [line.removeprefix("  - ") for line in lines if line.startswith("  - ")]


def test_every_key_of_istio_is_accounted_for():
    known = set(HONOURED) | set(HONOURED_WITH) | set(WITHOUT_EFFECT) | {"env"}
    for key in leaves(DEFAULTS):
        prefixes = [".".join(parts) for parts in itertools.accumulate([[p] for p in key.split(".")])]
        assert known & set(prefixes), f"nothing is said of {key}"


def test_honoured(render):
    keys = list(HONOURED)
    base, *results = render({}, *[{"values": nested(key, HONOURED[key])} for key in keys])
    for key, result in zip(keys, results):
        assert result.objects != base.objects, f"{key} changes nothing"
        assert not remarks(result), key


def test_honoured_together_with_another_key(render):
    for key, (value, others) in HONOURED_WITH.items():
        base, result = render({"values": others}, {"values": nested(key, value, others)})
        assert result.objects != base.objects, f"{key} changes nothing"
        assert not remarks(result), key


def test_without_effect(render):
    keys = list(WITHOUT_EFFECT)
    base, *results = render({}, *[{"values": nested(key, WITHOUT_EFFECT[key])} for key in keys])
    assert not remarks(base)
    for key, result in zip(keys, results):
        assert result.objects == base.objects, f"{key} is said to have no effect"
        (remark,) = remarks(result)
        named, _, why = remark.partition(": ")
        assert key == named or key.startswith(named + "."), remark
        assert len(why) > 20, remark


@pytest.mark.parametrize("wrapper", [None, "cni", "_internal_defaults_do_not_set"])
def test_a_copy_of_istios_defaults(render, wrapper):
    values = DEFAULTS if wrapper is None else {wrapper: DEFAULTS}
    base, result = render({}, {"values": values})
    assert result.container["image"] == base.container["image"]
    assert result.config_text == base.config_text
    assert result.container["resources"] == {"requests": {"cpu": "100m", "memory": "100Mi"}}
    if wrapper is None:
        assert "does not serve sidecars" in result.notes


def test_env(render):
    for name, (value, line) in ENV_TRANSLATED.items():
        base, result = render({}, {"values": {"env": {name: value}}})
        assert line not in [x.strip() for x in base.config_text.splitlines()], name
        assert line in [x.strip() for x in result.config_text.splitlines()], f"{name}:\n{result.config_text}"
        assert not remarks(result), name


def test_env_that_says_the_default(render):
    base, off, on = render({}, {"values": {"env": {"AMBIENT_DISABLE_SAFE_UPGRADE": "false", "CNI_CONF_GROUP_READ": False}}},
                           {"values": {"env": {"AMBIENT_ENABLE_AWS_BRANCH_ENI_PROBE": True}}})
    assert off.config_text == base.config_text
    assert "awsBranchEni: auto" in on.config_text


def test_env_of_another_tunnel_socket_moves_the_mount(render):
    (result,) = render({"values": {"env": {"ZTUNNEL_UDS_ADDRESS": "/var/run/other/z.sock"}}})
    assert result.host_paths["cni-ztunnel-sock-dir"] == "/var/run/other"
    assert "/var/run/other" in [m["mountPath"] for m in result.container["volumeMounts"]]


def test_env_without_effect(render):
    base, result = render({}, {"values": {"env": {"GODEBUG": "x", "AMBIENT_DNS_CAPTURE": "false"}}})
    assert result.objects == base.objects
    assert [r.split(":")[0] for r in remarks(result)] == ["env.AMBIENT_DNS_CAPTURE", "env.GODEBUG"]


def test_istios_image_is_never_run(render):
    (result,) = render({"values": {"global": {"hub": "docker.io/istio", "tag": "1.27.1", "variant": "distroless"}}})
    assert "istio" not in result.container["image"].split(":")[0]
    named, whole, digest = render(
        {"values": {"hub": "mirror.example/net", "image": "ambient-cni", "tag": "v7", "variant": "debug"}},
        {"values": {"hub": "mirror.example/net", "image": "mirror.example:5000/other/ambient-cni:v8", "tag": "v7"}},
        {"values": {"agentImage": {"repository": "mirror.example/ambient-cni", "tag": "v9", "digest": "sha256:" + "a" * 64}}})
    assert named.container["image"] == "mirror.example/net/ambient-cni:v7-debug"
    assert whole.container["image"] == "mirror.example:5000/other/ambient-cni:v8"
    assert digest.container["image"] == "mirror.example/ambient-cni@sha256:" + "a" * 64


def test_empty_values_win_over_defaults(render):
    result, null = render({"values": {"excludeNamespaces": [], "tolerations": [], "resources": {}, "priorityClassName": "",
                                      "terminationGracePeriodSeconds": 0}},
                          {"values": {"excludeNamespaces": None, "tolerations": None, "updateStrategy": None,
                                      "cniConfFileName": None, "cniNetnsDir": None}})
    for r in (result, null):
        assert "excludeNamespaces: []" in r.config_text
        assert "tolerations" not in r.pod["spec"]
    assert "priorityClassName" not in result.pod["spec"]
    assert result.pod["spec"]["terminationGracePeriodSeconds"] == 0
    assert "updateStrategy" not in null["DaemonSet"]["spec"]


def test_null(render):
    """For a part of the pod it means without; a group of keys keeps its defaults."""
    keys = [key for key, value in yaml_defaults().items() if isinstance(value, dict)]
    base, *results = render({}, *[{"values": {key: None}} for key in keys])
    assert len(keys) > 20
    for key, result in zip(keys, results):
        if key in ("updateStrategy", "seccompProfile"):
            assert result.objects != base.objects
        else:
            assert result.objects == base.objects, key
    assert "seccompProfile" not in results[keys.index("seccompProfile")].container["securityContext"]
    assert results[keys.index("resources")].container["resources"], "global.defaultResources"


def yaml_defaults():
    """The chart's defaults; Helm's tool reads YAML, and Python's own library has none."""
    shown = subprocess.run([run(SOURCE / "tests/deploy/charttool.sh").strip(), "values", CHART], capture_output=True, text=True,
                           check=True)
    return json.loads(shown.stdout)["_internal_defaults_do_not_set"]


def test_precedence(render):
    """Defaults, then the platform's values, then what the user says."""
    default, platform, user, both = render(
        {}, {"values": {"platform": "k3s"}},
        {"values": {"platform": "k3s", "cniBinDir": "/mine"}},
        {"values": {"cni": {"cniBinDir": "/under", "cniConfDir": "/under.d"}, "cniBinDir": "/top"}})
    paths = [(r.host_paths["cni-bin-dir"], r.host_paths["cni-net-dir"]) for r in (default, platform, user, both)]
    k3s = "/var/lib/rancher/k3s/agent/etc/cni/net.d"
    assert paths == [("/opt/cni/bin", "/etc/cni/net.d"), ("/var/lib/rancher/k3s/data/cni", k3s), ("/mine", k3s),
                     ("/top", "/under.d")]


def test_unknown_keys_are_named(render):
    base, result = render({}, {"values": {"cniBinDirectory": "/x", "ambient": {"dnscapture": False},
                                          "global": {"meshID": "of another chart"}}})
    assert result.objects == base.objects
    assert remarks(result) == ["ambient.dnscapture: no such key is known", "cniBinDirectory: no such key is known"]


@pytest.mark.parametrize("values, words", [
    ({"cniBinDir": "opt/cni/bin"}, ["cniBinDir"]),
    ({"ambient": {"dnsCapture": "false"}}, ["ambient.dnsCapture", "boolean"]),
    ({"chained": "true"}, ["chained", "boolean"]),
    ({"excludeNamespaces": "kube-system"}, ["excludeNamespaces", "array"]),
    ({"global": {"resourceScope": "everything"}}, ["global.resourceScope"]),
    ({"ambient": {"enablementSelectors": [{"podSelectors": {}}]}}, ["podSelectors"]),
    ({"profile": "platform-moon"}, ["no profile platform-moon", "platform-k3s"]),
    ({"platform": "moon"}, ["no profile platform-moon"]),
    ({"logging": {"level": "default:loud"}}, ["logging.level", "loud", "debug"]),
    ({"agentImage": {"digest": "abc"}}, ["agentImage.digest"]),
    ({"updateStrategy": {"rollingUpdate": {"maxUnavailable": "many"}}}, ["maxUnavailable"]),
    ({"cniConfFileName": "/etc/cni/net.d/10-x.conflist"}, ["cniConfFileName"]),
    ({"cniBinDir": ""}, ["cniBinDir must name a directory"]),
])
def test_refused_with_a_reason(render_any, values, words):
    (result,) = render_any({"values": values})
    for word in words:
        assert word in result.error, result.error


@pytest.mark.parametrize("level, expected", [
    ("info", "info"), ("debug", "debug"), ("default:warn", "warn"), ("default:info,cni:debug", "debug"),
    ("all:error", "error"), ("ads:debug", "info"), ("none", "error"), ("default:info,cni:debug,controller:warn", "debug")])
def test_log_levels(render, level, expected):
    (result,) = render({"values": {"global": {"logging": {"level": level}}}})
    assert f"level: {expected}" in [line.strip() for line in result.config_text.splitlines()]


def test_config_wins(render):
    (result,) = render({"values": {"ambient": {"dnsCapture": True}, "config": {
        "redirect": {"dnsCapture": False, "exclude": {"outboundPorts": ["8000-9000"]}}, "releaseDrainSeconds": 60}}})
    lines = [line.strip() for line in result.config_text.splitlines()]
    assert "dnsCapture: false" in lines and "ipv6: true" in lines and "releaseDrainSeconds: 60" in lines
