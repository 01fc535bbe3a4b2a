"""Renders deploy/manifests/ambient-cni.yaml from the chart's defaults, for people without Helm: manifests.py CHARTTOOL [--check]."""
import json
import pathlib
import subprocess
import sys

DEPLOY = pathlib.Path(__file__).resolve().parent
FILE = DEPLOY / "manifests/ambient-cni.yaml"
HEADER = """\
# ambient-cni without Helm, for Kubernetes 1.30 and newer: the chart's defaults, rendered by `make manifests`; do not edit. Your own
# image, namespace and configuration go on top of it by kustomize (kustomization.yaml beside this file is a base).
#
#   kubectl apply -f deploy/manifests/ambient-cni.yaml
#
# To remove it, delete the DaemonSet first, and the rest when its pods are gone: docs/operate.md.
"""
# What only Helm would say.
HELMS = ("helm.sh/chart:", "app.kubernetes.io/managed-by: Helm", "app.kubernetes.io/instance:", "release:")


def rendered(charttool):
    case = {"chart": str(DEPLOY / "helm/ambient-cni"), "kubeVersion": "v1.30.0", "namespace": "istio-system"}
    (result,) = json.loads(subprocess.run([charttool, "render"], input=json.dumps([case]), text=True, check=True,
                                          stdout=subprocess.PIPE).stdout)
    if result.get("error") or result["strict"]:
        sys.exit(f"manifests: {result.get('error') or result['strict']}")
    lines = [line for line in result["text"].splitlines() if not line.strip().startswith(HELMS)]
    return HEADER + "\n".join(lines) + "\n"


def main():
    text = rendered(sys.argv[1])
    if "--check" not in sys.argv:
        FILE.write_text(text)
    elif FILE.read_text() != text:
        sys.exit(f"{FILE} is not what the chart renders: run `make manifests`")


if __name__ == "__main__":
    main()
