"""ambient-installer config, as a person calls it: output, origins, warnings, exit status."""
import json
import os
import pathlib
import subprocess

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = pathlib.Path(os.environ.get("AMBIENT_BUILD", REPOSITORY / "build")) / "ambient-installer"


def config(*arguments, **environment):
    return subprocess.run([PROGRAM, "config", *arguments], capture_output=True, text=True, env=environment, timeout=30)


def test_values_and_where_they_come_from(tmp_path):
    path = tmp_path / "agent.yaml"
    path.write_text("whenAway: closed\nhost:\n  chaned: true\n  binDir: /x\n")
    result = config("--config", path, "--set", "runDir=/run/a", "--set=log.level=debug", "-o", "json", NODE_NAME="n1")
    assert (result.returncode, result.stderr) == (0, "")
    answer = json.loads(result.stdout)
    assert answer["file"] == str(path)
    assert answer["settings"]["whenAway"] == {"value": "closed", "origin": "file", "line": 1}
    assert answer["settings"]["host.binDir"] == {"value": "/x", "origin": "file", "line": 4}
    assert answer["settings"]["runDir"] == {"value": "/run/a", "origin": "set"}
    assert answer["settings"]["log.level"] == {"value": "debug", "origin": "set"}
    assert answer["settings"]["nodeName"] == {"value": "n1", "origin": "environment", "variable": "NODE_NAME"}
    assert answer["settings"]["tunnelSocket"] == {"value": "/var/run/ztunnel/ztunnel.sock", "origin": "default"}
    assert answer["settings"]["host.binSource"] == {"value": str(PROGRAM.resolve().parent), "origin": "default"}
    assert answer["warnings"] == [f'{path}, line 3: the key "host.chaned" is not known and is passed over; '
                                  'did you mean "host.chained"?']


def test_the_text_is_a_configuration(tmp_path):
    first = config("--set", "excludeNamespaces=[\"a\"]", "--set", "redirect={\"exclude\":{\"outboundPorts\":[\"1-2\"]}}")
    assert (first.returncode, first.stderr) == (0, "")
    path = tmp_path / "printed.yaml"
    path.write_text(first.stdout)
    values = [json.loads(config(*arguments, "-o", "json").stdout)["settings"] for arguments in (
        ("--config", path),
        ("--set", "excludeNamespaces=[\"a\"]", "--set", "redirect.exclude.outboundPorts=[\"1-2\"]"))]
    assert {key: setting["value"] for key, setting in values[0].items()} == \
           {key: setting["value"] for key, setting in values[1].items()}


def test_warnings_do_not_stop_and_errors_do(tmp_path):
    path = tmp_path / "agent.yaml"
    path.write_text("newKeyOfNextYear: 1\n")
    result = config("--config", path)
    assert result.returncode == 0
    assert result.stderr == (f'ambient-installer config: {path}, line 1: the key "newKeyOfNextYear" is not known '
                             'and is passed over\n')
    path.write_text("host:\n  chained: maybe\n")
    result = config("--config", path)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (f'ambient-installer config: {path}, line 2: host.chained: expected true or false, '
                             'found "maybe"\n')


@pytest.mark.parametrize("arguments, message", [
    (["extra"], 'the argument "extra" is one too many'), (["--nothing"], "unrecognized option '--nothing'"),
    (["-o", "xml"], '--output: expected text or json, found "xml"'), (["--config"], "requires an argument"),
    (["--config", "a", "--config", "b"], "--config is given twice (a, b)")])
def test_wrong_lines(arguments, message):
    result = config(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr


@pytest.mark.parametrize("arguments, message", [
    (["explain"], "expected NAMESPACE/POD"), (["explain", "a/b", "c/d"], 'the argument "c/d" is one too many'),
    (["explain", "-o", "yaml", "a/b"], '--output: expected text or json, found "yaml"'),
    (["preview"], "expected NAMESPACE"), (["preview", "a/b"], "expected NAMESPACE"),
    (["pause", "a/b"], "expected NAMESPACE/POD and --for TIME"), (["verify", "a/b", "c/d"], "one too many"),
    (["render", "--stage", "half"], '--stage: expected full or guard, found "half"'), (["render", "x"], "one too many"),
    (["verify", "--redirect", "{}"], "--netns PATH is missing"), (["run", "now"], "one too many"),
    (["install", "--force"], "unrecognized option '--force'"),
    (["uninstall", "--timeout", "5"], "--timeout goes with --all-nodes"),
    (["uninstall", "--all-nodes", "--force"], "--all-nodes goes with neither --force nor -o json"),
    (["uninstall", "--all-nodes", "-o", "json"], "--all-nodes goes with neither --force nor -o json")])
def test_wrong_lines_of_other_commands(arguments, message):
    result = subprocess.run([PROGRAM, *arguments], capture_output=True, text=True, timeout=30)
    assert (result.returncode, result.stdout) == (2, "")
    assert message in result.stderr


def test_exit_status():
    assert config("--set", "host.chained").returncode == 1
    assert config("--help").returncode == 0


def test_the_reference_is_the_committed_one():
    assert config("--reference").stdout == (REPOSITORY / "docs/configuration.md").read_text()


def test_the_agents_own_configuration_in_its_container():
    """Without --config the commands that look at the agent read the file that the chart mounts; --config comes first."""
    script = ("mount -t tmpfs none /etc && mkdir /etc/ambient-cni && "
              "echo 'kubeconfig: /of/the/chart' >/etc/ambient-cni/config.yaml && exec \"$@\"")
    for more, path in (([], "/of/the/chart"), (["--set", "kubeconfig=/of/the/line"], "/of/the/line")):
        done = subprocess.run(["unshare", "--mount", "sh", "-c", script, "sh", PROGRAM, "preview", "shop", *more],
                              capture_output=True, text=True, timeout=30)
        assert (done.returncode, done.stdout) == (1, ""), done
        assert path in done.stderr
