"""The plain manifest is what the chart renders, and says nothing of Helm."""
import re

from .conftest import SOURCE, run

MANIFEST = SOURCE / "deploy/manifests/ambient-cni.yaml"


def test_up_to_date(charttool):
    run("/usr/bin/python3", SOURCE / "deploy/manifests.py", charttool, "--check")


def test_content():
    text = MANIFEST.read_text()
    kinds = re.findall(r"^kind: (\w+)", text, re.M)
    assert sorted(kinds) == ["ClusterRole", "ClusterRoleBinding", "ConfigMap", "DaemonSet", "Role", "RoleBinding", "ServiceAccount"]
    assert not re.search(r"helm(?!.*kustomize)", re.sub(r"^#.*", "", text, flags=re.M), re.I)
    assert "  - ambient-cni.yaml" in (MANIFEST.parent / "kustomization.yaml").read_text()
