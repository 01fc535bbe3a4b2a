"""The configuration that the chart renders is one that the agent accepts, whole and without a warning, and understands as meant."""
import json
import subprocess

import pytest

from .conftest import BUILD
from .istio_values import DEFAULTS, HONOURED, nested

CASES = {
    "default": {},
    "a copy of istio's defaults": DEFAULTS,
    **{f"{key} as in istio": nested(key, value) for key, value in HONOURED.items() if key != "global.resourceScope"},
    **{f"platform {name}": {"platform": name} for name in ("k3s", "k3d", "microk8s", "gke", "openshift", "minikube")},
    "env": {"env": {"HOST_PROBE_SNAT_IP": "169.254.9.9", "HOST_PROBE_SNAT_IPV6": "fd00::9", "SYSTEM_NAMESPACE": "mesh",
                    "AMBIENT_ENABLE_AWS_BRANCH_ENI_PROBE": "false", "AMBIENT_DISABLE_SAFE_UPGRADE": "true",
                    "ZTUNNEL_UDS_ADDRESS": "/var/run/other/z.sock", "CNI_CONF_GROUP_READ": "true"}},
    "config": {"config": {"releaseDrainSeconds": 60, "allowPodExclusions": True, "whenAway": "closed", "removeTaint": "a.b/c",
                          "redirect": {"exclude": {"outboundPorts": ["8000-9000"], "outboundRanges": ["169.254.169.254/32"]}},
                          "listen": {"admin": ""}}},
}


def settings_of(text, tmp_path):
    """What `ambient-installer config` says is in force, from a file as the pod sees it."""
    file = tmp_path / "config.yaml"
    file.write_text(text)
    done = subprocess.run([BUILD / "ambient-installer", "config", "--config", file, "-o", "json"], text=True, capture_output=True,
                          env={"NODE_NAME": "node-1", "POD_NAME": "istio-cni-node-x", "POD_NAMESPACE": "istio-system"})
    assert done.returncode == 0, f"{text}\n{done.stderr}"
    said = json.loads(done.stdout)
    assert said["warnings"] == [], said["warnings"]
    return {key: setting["value"] for key, setting in said["settings"].items()}


@pytest.fixture(scope="module")
def rendered(render):
    return dict(zip(CASES, render(*[{"values": values} for values in CASES.values()])))


@pytest.mark.parametrize("case", CASES)
def test_accepted(rendered, case, tmp_path):
    settings = settings_of(rendered[case].config_text, tmp_path)
    assert settings["nodeName"] == "node-1" and settings["daemonSetName"] == "istio-cni-node"


def test_paths_are_those_that_are_mounted(rendered, tmp_path):
    result = rendered["default"]
    settings = settings_of(result.config_text, tmp_path)
    mounts = {mount["mountPath"] for mount in result.container["volumeMounts"]}
    for key in ("host.binDir", "host.confDir", "host.procDir", "host.netnsDir", "runDir"):
        assert settings[key] in mounts, key
    assert settings["tunnelSocket"].rpartition("/")[0] in mounts
    assert settings["listen.health"] == ":8000" and settings["listen.metrics"] == ":15014"


def test_env_reaches_the_agent(rendered, tmp_path):
    settings = settings_of(rendered["env"].config_text, tmp_path)
    assert settings["redirect.hostProbe.ipv4"] == "169.254.9.9" and settings["redirect.hostProbe.ipv6"] == "fd00::9"
    assert settings["systemNamespace"] == "mesh" and settings["awsBranchEni"] == "off" and settings["safeUpgrade"] is False
    assert settings["host.confMode"] == "0640"


def test_defaults_are_those_of_the_agent(rendered, tmp_path):
    """Where the chart says nothing special it says what the agent would have taken anyway."""
    with_file = settings_of(rendered["default"].config_text, tmp_path)
    without = settings_of("{}", tmp_path)
    changed = {key for key in with_file if with_file[key] != without[key]}
    assert changed == {"host.networkNamespace"}
