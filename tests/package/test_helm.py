"""Helm's and kustomize's own commands on the chart: what tests/deploy renders with Helm's engine is what people get."""
import json
import re
import shlex

import pytest

from .conftest import CHART, SOURCE, run
from deploy.istio_values import DEFAULTS, HONOURED, nested


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


def documented_commands():
    """The commands `helm install` and `helm upgrade` of the guides, with our chart."""
    for document in ("docs/install.md", "docs/migrate.md"):
        text = (SOURCE / document).read_text().replace("\\\n", " ")
        for line in re.findall(r"^helm (?:install|upgrade) (istio-cni deploy/helm/ambient-cni .*)$", text, re.M):
            yield line


@pytest.mark.parametrize("command", documented_commands())
def test_commands_of_the_guides(helm, command, tmp_path):
    """`helm template` takes the same arguments, but for those that are about what stands in the cluster."""
    (tmp_path / "values.yaml").write_text(json.dumps(DEFAULTS))
    words = [word for word in shlex.split(command) if word != "--take-ownership"]
    words = [str(tmp_path / word) if word == "values.yaml" else word for word in words]
    printed = helm("template", *words, cwd=SOURCE)
    assert "kind: DaemonSet" in printed
    if "REGISTRY" in command:
        assert 'image: "REGISTRY/ambient-cni:0.1.0"' in printed
    if "outboundRanges" in command:
        assert "- 169.254.169.254/32" in printed and "releaseDrainSeconds: 60" in printed
