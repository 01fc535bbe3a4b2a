"""The chart, rendered by Helm's engine (charttool.sh)."""
import json
import os
import pathlib
import subprocess

import pytest

SOURCE = pathlib.Path(__file__).resolve().parent.parent.parent
CHART = SOURCE / "deploy/helm/ambient-cni"
BUILD = pathlib.Path(os.environ.get("AMBIENT_BUILD", SOURCE / "build"))


def run(*command, **options):
    """Standard output of a command that must succeed."""
    done = subprocess.run([str(word) for word in command], text=True, capture_output=True, **options)
    assert done.returncode == 0, f"{command[0]} failed with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    return done.stdout


class Rendered:
    """What came out of one set of values."""

    def __init__(self, result):
        self.error = result.get("error", "")
        self.strict = result["strict"] or []
        everything = result["objects"] or []
        self.hooks = [o for o in everything if "helm.sh/hook" in o["metadata"].get("annotations", {})]
        self.objects = [o for o in everything if o not in self.hooks]
        self.text = result["text"]
        self.notes = result["notes"]

    def __getitem__(self, kind):
        found = [o for o in self.objects if o["kind"] == kind]
        assert len(found) == 1, f"{len(found)} objects of kind {kind}"
        return found[0]

    def has(self, kind):
        return any(o["kind"] == kind for o in self.objects)

    @property
    def pod(self):
        return self["DaemonSet"]["spec"]["template"]

    @property
    def container(self):
        (container,) = self.pod["spec"]["containers"]
        return container

    @property
    def config_text(self):
        (found,) = [o for o in self.objects if o["kind"] == "ConfigMap" and "config.yaml" in o["data"]]
        return found["data"]["config.yaml"]

    @property
    def host_paths(self):
        return {v["name"]: v["hostPath"]["path"] for v in self.pod["spec"]["volumes"] if "hostPath" in v}


@pytest.fixture(scope="session")
def charttool():
    return run(SOURCE / "tests/deploy/charttool.sh").strip()


@pytest.fixture(scope="session")
def render_any(charttool):
    """render_any([{values...}, ...]) -> [Rendered, ...]: errors and all. A case may also be given as dict(values=..., set=...)."""

    def render_cases(*cases):
        asked = [{"chart": str(CHART), **case} for case in cases]
        return [Rendered(result) for result in json.loads(run(charttool, "render", input=json.dumps(asked)))]

    return render_cases


@pytest.fixture(scope="session")
def render(render_any):
    """The same for values that must be accepted, and whose objects Kubernetes' types must know to the last field."""

    def render_good(*cases):
        results = render_any(*cases)
        for case, result in zip(cases, results):
            assert not result.error, f"{case}: {result.error}"
            assert not result.strict, f"{case}: {result.strict}"
        return results

    return render_good
