"""Helm's and kustomize's own commands on the chart: what tests/deploy renders with Helm's engine is what people get."""
import json
import os
import pathlib
import re
import shlex
import sys

import pytest

from .conftest import CHART, HELM, SOURCE, run, tool
from .people_api import PeopleApi

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from deploy.istio_values import DEFAULTS, HONOURED, nested  # noqa: E402
from docs.commands import of_program  # noqa: E402


def test_lint(helm, tmp_path):
    cases = [{}, DEFAULTS] + [nested(key, value) for key, value in HONOURED.items() if key != "global.resourceScope"]
    for values in cases:
        file = tmp_path / "values.yaml"
        file.write_text(json.dumps(values))
        output = helm("lint", "--strict", CHART, "-f", file)
        assert "0 chart(s) failed" in output, output


def documents(text):
    return [part.strip() for part in re.split(r"^---\n", text, flags=re.M) if re.sub(r"^#.*\n?", "", part, flags=re.M).strip()]


@pytest.mark.parametrize("values", [{}, {"platform": "openshift", "podMonitor": {"enabled": True}}], ids=["default", "more"])
def test_template_prints_what_the_engine_renders(helm, values, tmp_path):
    charttool = run(SOURCE / "tests/deploy/charttool.sh").strip()
    asked = [{"chart": str(CHART), "values": values, "kubeVersion": "v1.34.0"}]
    (rendered,) = json.loads(run(charttool, "render", input=json.dumps(asked)))
    file = tmp_path / "values.yaml"
    file.write_text(json.dumps(values))
    printed = helm("template", "ambient-cni", CHART, "-n", "istio-system", "--kube-version", "v1.34.0", "-f", file, "--no-hooks")
    without_paths = [re.sub(r"^# Source: .*\n", "", document) for document in documents(printed)]
    assert without_paths == documents(rendered["text"])


def test_package(helm, tmp_path):
    run("make", "-s", "-C", SOURCE, "chart", f"BUILD={tmp_path}", "VERSION=v1.2.3+x")
    (package,) = (tmp_path / "chart").glob("*.tgz")
    shown = helm("show", "chart", package)
    assert "appVersion: v1.2.3-x" in shown
    printed = helm("template", "ambient-cni", package, "-n", "istio-system")
    assert 'image: "localhost/ambient-cni:v1.2.3-x"' in printed
    assert helm("show", "values", package).startswith("# Defaults.")


def test_set_on_the_command_line(helm):
    printed = helm("template", "x", CHART, "--set", "profile=platform-k3s,ambient.dnsCapture=false", "--set-json",
                   'config.redirect.exclude.outboundPorts=["8000-9000"]')
    assert "path: /var/lib/rancher/k3s/data/cni" in printed and "dnsCapture: false" in printed and "- 8000-9000" in printed


def test_kustomize_base(kustomize, tmp_path):
    built = kustomize("build", SOURCE / "deploy/manifests")
    assert built.count("\nkind: ") + built.startswith("kind: ") == 7
    (tmp_path / "kustomization.yaml").write_text(f"""\
resources: [{"../" * len(tmp_path.parts[1:])}{str(SOURCE / "deploy/manifests")[1:]}]
namespace: kube-system
images: [{{name: localhost/ambient-cni, newName: mirror.example/ambient-cni, newTag: v7}}]
""")
    built = kustomize("build", tmp_path)
    assert "image: mirror.example/ambient-cni:v7" in built
    assert "namespace: istio-system" not in built


def documented():
    """Of the documents: what is typed, and what is only named."""
    return of_program("helm")


@pytest.fixture
def helm_in_a_cluster(tmp_path):
    """Helm against an API server with a release of istio-cni's chart."""
    api = PeopleApi()
    api.put("v1", "namespaces", "istio-system")
    api.put("v1", "configmaps", "istio-cni-config", "istio-system")
    api.put_release("istio-cni", "istio-system", {"cniBinDir": "/opt/cni/bin"},
                    "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: istio-cni-config\n  namespace: istio-system\n")
    program = tool("helm", HELM)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/helm").symlink_to(program)
    environment = {**os.environ, "KUBECONFIG": str(api.write_kubeconfig(tmp_path / "kubeconfig")), "HOME": str(tmp_path),
                   "PATH": f"{tmp_path}/bin:{os.environ['PATH']}"}

    yield api, lambda command: run("bash", "-c", command, cwd=tmp_path, env=environment)
    api.close()
    assert not api.faults


INSTALLS = [command for command in documented() if re.match(r"helm (install|upgrade) istio-cni deploy/helm/ambient-cni", command)]


@pytest.mark.parametrize("command", INSTALLS)
def test_installations_of_the_documents(helm, command, tmp_path):
    """`helm template` takes the same arguments, but for those that are about what stands in the cluster. (`helm install` itself:
    tests/node.)"""
    (tmp_path / "values.yaml").write_text(json.dumps(DEFAULTS))
    words = [word for word in shlex.split(command)[2:] if word != "--take-ownership"]
    words = [str(tmp_path / word) if word == "values.yaml" else word for word in words]
    printed = helm("template", *words, cwd=SOURCE)
    assert "kind: DaemonSet" in printed
    if "REGISTRY" in command:
        assert 'image: "REGISTRY/ambient-cni:0.1.0"' in printed
    if "outboundRanges" in command:
        assert "- 169.254.169.254/32" in printed and "releaseDrainSeconds: 60" in printed
    if "seLinuxOptions" in command:
        assert re.search(r"seLinuxOptions:\s+type: super_t", printed)


@pytest.mark.parametrize("command", [command for command in documented() if command not in INSTALLS])
def test_other_commands_of_the_documents(helm, helm_in_a_cluster, command, tmp_path):
    api, shell = helm_in_a_cluster
    if command.startswith("helm get values"):
        shell(command)
        assert (tmp_path / "values.yaml").read_text() == "cniBinDir: /opt/cni/bin\n"
    elif command.startswith("helm show values"):
        assert helm(*shlex.split(command)[1:], cwd=SOURCE).startswith("# Defaults.")
    elif command.startswith("helm uninstall istio-cni"):
        shell(command)
        assert ("DELETE", "/api/v1/namespaces/istio-system/configmaps/istio-cni-config") in api.changes()
        assert not api.get("secrets", "istio-system", "sh.helm.release.v1.istio-cni.v1")
    else:
        # Named in a sentence: there is such a command, with such options.
        _, verb, *options = command.split()
        usage = helm(verb, "--help")
        assert f"helm {verb}" in usage and all(option in usage for option in options), command
