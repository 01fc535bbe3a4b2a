"""Bad input: the right code and a sentence that names what is wrong, and nothing but that on standard output."""
import json
import os
import subprocess

import pytest

from .conftest import PROGRAM

GOOD = {"cniVersion": "1.0.0", "name": "podnet", "type": "ambient-cni", "enrollment": "always"}


@pytest.mark.parametrize("text, words", [
    ("", "empty"),
    ("   \n", "empty"),
    ("{", "JSON"),
    (json.dumps(GOOD)[:-5], "line 1"),
    (json.dumps(GOOD) + "}", "follows"),
    ("[]", "object"),
    ('"text"', "object"),
    ("null", "object"),
    (b"\xff\xfe\x00", "standard input"),
    ('{"a":' * 100 + "1" + "}" * 100, "nested"),
    ('{"name":"' + "x" * (1 << 20) + '"}', "larger"),
    ('{"name":"' + "x" * (5 << 20) + '"}', "larger"),
], ids=["nothing", "space", "brace", "truncated", "two", "list", "string", "null", "binary", "deep", "large", "huge"])
def test_undecodable(plugin, pod, text, words):
    answer = plugin.call("ADD", pod, text=text)
    assert answer.code == 6 and words in answer.message, answer
    assert not pod.is_redirected()


@pytest.mark.parametrize("version", ["0.1.0", "0.2.0", "0.3.2", "1.2.0", "2.0.0", "1.0", "v1.0.0", "", ...])
@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK", "GC", "STATUS"])
def test_unknown_version(plugin, pod, verb, version):
    answer = plugin.call(verb, pod, config={"cniVersion": version})
    assert answer.code == 1 and "cniVersion" in answer.message and "1.1.0" in answer.message, answer


@pytest.mark.parametrize("version, verbs", [("0.3.0", ["CHECK", "GC", "STATUS"]), ("0.3.1", ["CHECK", "GC", "STATUS"]),
                                            ("0.4.0", ["GC", "STATUS"]), ("1.0.0", ["GC", "STATUS"])])
def test_verb_of_a_later_version(plugin, pod, version, verbs):
    for verb in verbs:
        answer = plugin.call(verb, pod, config={"cniVersion": version})
        assert answer.code == 1 and verb in answer.message and version in answer.message, answer
        assert answer.json["cniVersion"] == version


# Key, a wrong value, what the message says was expected and found.
WRONG = [
    ("cniVersion", 1, "a string", "a number"),
    ("name", 5, "a string", "a number"),
    ("name", "", "name", "nothing"),
    ("name", ..., "name", "nothing"),
    ("name", "pod net", "letters", "pod net"),
    ("name", "../x", "letters", "../x"),
    ("type", {}, "a string", "an object"),
    ("enrollment", True, "a string", "true"),
    ("enrollment", "sometimes", '"always"', "sometimes"),
    ("runDir", ["/run"], "a string", "a list"),
    ("runDir", "run", "an absolute path", "run"),
    ("systemNamespace", 1, "a string", "a number"),
    ("installerNamespace", 1, "a string", "a number"),
    ("installerPodPrefix", False, "a string", "false"),
    ("excludeNamespaces", "kube-system", "a list", "a string"),
    ("excludeNamespaces", ["a", 2], "excludeNamespaces[1]", "a number"),
    ("timeoutSeconds", "5", "an integer", "a string"),
    ("timeoutSeconds", 0, "an integer", "0"),
    ("timeoutSeconds", -1, "an integer", "-1"),
    ("timeoutSeconds", 1.5, "an integer", "1.5"),
    ("timeoutSeconds", 1e300, "an integer", "1"),
    ("whenAway", 0, "a string", "a number"),
    ("whenAway", "open", '"closed"', "open"),
    ("logLevel", 3, "a string", "a number"),
    ("logLevel", "loud", "logLevel", "loud"),
    ("logFile", 1, "a string", "a number"),
    ("logFile", "plugin.log", "an absolute path", "plugin.log"),
    ("redirect", [], "an object", "a list"),
    ("redirect", {"ipv6": "yes"}, "true or false", "a string"),
    ("redirect", {"dnsCapture": 1}, "true or false", "a number"),
    ("redirect", {"bypassInbound": "no"}, "true or false", "a string"),
    ("redirect", {"virtualInterfaces": "eth1"}, "redirect.virtualInterfaces", "a string"),
    ("redirect", {"existingConnections": "cut"}, "redirect.existingConnections", "cut"),
    ("redirect", {"hostProbe": {"ipv4": "fe80::1"}}, "redirect.hostProbe.ipv4", "fe80::1"),
    ("redirect", {"exclude": {"outboundPorts": [0]}}, "redirect.exclude.outboundPorts[0]", "0"),
    ("redirect", {"exclude": {"outboundRanges": ["10.0.0.0/33"]}}, "redirect.exclude.outboundRanges[0]", "10.0.0.0/33"),
    ("cni.dev/valid-attachments", {}, "a list", "an object"),
    ("cni.dev/valid-attachments", [{"containerID": "x"}], "valid-attachments[0]", ""),
]


@pytest.mark.parametrize("key, value, expected, found", WRONG)
def test_wrong_key(plugin, pod, key, value, expected, found):
    answer = plugin.call("ADD", pod, config={key: value})
    assert answer.code == 7, answer
    assert key.split("/")[-1] in answer.message and expected in answer.message and found in answer.message, answer
    assert not pod.is_redirected() and plugin.attachments() == []


def test_null_is_absent(plugin, pod):
    plugin.add(pod, config={"whenAway": None, "redirect": None, "prevResult": None, "excludeNamespaces": None})
    assert pod.is_redirected()


def test_keys_of_others(plugin, pod):
    plugin.add(pod, config={"ipam": 5, "dns": [], "args": "x", "capabilities": 0, "runtimeConfig": {"portMappings": []},
                            "somethingElse": None})
    assert pod.is_redirected()


@pytest.mark.parametrize("verb, variable", [(verb, variable) for verb in ("ADD", "CHECK")
                                            for variable in ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS")] +
                         [("DEL", "CNI_CONTAINERID"), ("DEL", "CNI_IFNAME")])
@pytest.mark.parametrize("value", [None, ""], ids=["unset", "empty"])
def test_missing_environment(plugin, pod, verb, variable, value):
    answer = plugin.call(verb, pod, changes={variable: value})
    assert answer.code == 4 and variable in answer.message, answer
    assert not pod.is_redirected()


def test_everything_missing_is_said_at_once(plugin):
    answer = plugin.call("ADD", changes={"CNI_CONTAINERID": None, "CNI_IFNAME": None})
    assert answer.code == 4, answer
    for variable in ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_NETNS"):
        assert variable in answer.message, answer


def test_cni_path_may_be_missing(plugin, pod):
    plugin.add(pod, changes={"CNI_PATH": None})


@pytest.mark.parametrize("variable, value", [
    ("CNI_CONTAINERID", "../../etc/passwd"), ("CNI_CONTAINERID", ".hidden"), ("CNI_CONTAINERID", "a b"), ("CNI_CONTAINERID", "a/b"),
    ("CNI_CONTAINERID", "x" * 5000), ("CNI_IFNAME", "eth0/1"), ("CNI_IFNAME", ".."), ("CNI_IFNAME", "a:b"),
    ("CNI_IFNAME", "eth 0"), ("CNI_IFNAME", "x" * 16), ("CNI_COMMAND", "add"), ("CNI_COMMAND", "FROBNICATE"),
    ("CNI_COMMAND", ""), ("CNI_COMMAND", None),
    ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAME=" + "x" * 300),
])
def test_bad_environment(plugin, pod, variable, value):
    answer = plugin.call("ADD", pod, changes={variable: value})
    assert answer.code == 4 and variable in answer.message, answer
    assert len(answer.message) < 400 and not pod.is_redirected()


@pytest.mark.parametrize("verb", ["ADD", "CHECK"])
def test_namespace_is_a_regular_file(plugin, tmp_path, verb):
    path = tmp_path / "netns"
    path.write_text("no namespace")
    answer = plugin.call(verb, str(path))
    assert answer.code == 4 and str(path) in answer.message and "not a network namespace" in answer.message, answer
    assert path.read_text() == "no namespace" and plugin.attachments() == []


@pytest.mark.parametrize("path, words", [("/proc/self/ns/mnt", "not a network namespace"), ("/tmp", "not a network namespace"),
                                         ("/dev/null", "not a network namespace"), ("/nowhere/ns", "No such file")])
def test_namespace_is_something_else(plugin, path, words):
    answer = plugin.call("ADD", path)
    assert answer.code == 4 and "CNI_NETNS" in answer.message and words in answer.message, answer


def test_namespace_is_a_fifo(plugin, tmp_path):
    path = tmp_path / "netns"
    os.mkfifo(path)
    assert plugin.call("ADD", str(path)).code == 4


def test_namespace_is_the_hosts(plugin, new_namespace):
    """The plugin runs in a namespace that stands for the host's, so that a plugin that fails here harms nobody."""
    host = new_namespace()
    before = host.state()
    inside = ("ip", "netns", "exec", host.name)
    for verb in ("ADD", "CHECK"):
        answer = plugin.call(verb, "/proc/self/ns/net", wrapper=inside)
        assert answer.code == 8 and "host's" in answer.message, answer
    assert plugin.call("DEL", "/proc/self/ns/net", wrapper=inside).status == 0
    assert host.state() == before and plugin.attachments() == []


def test_no_permission(plugin, pod):
    before = pod.state()
    for caps in ("-all", "-sys_admin", "-net_admin"):
        answer = plugin.call("ADD", pod, wrapper=("setpriv", "--bounding-set", caps, "--inh-caps", caps))
        assert answer.code == 100 and "not permitted" in answer.message, answer
        assert pod.state() == before and plugin.attachments() == []


def test_no_permission_for_run_dir(plugin, pod):
    """As another user: neither the folder nor the namespace."""
    before = pod.state()
    plugin.run_dir.parent.chmod(0o755)
    answer = plugin.call("ADD", pod, wrapper=("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"))
    assert answer.code == 5 and "Permission denied" in answer.message and "runDir" in answer.message, answer
    assert pod.state() == before


@pytest.mark.parametrize("result, words", [
    ("garbage", "prevResult: expected an object, found a string"),
    ([], "prevResult: expected an object, found a list"),
    ({"cniVersion": 1}, "prevResult.cniVersion"),
    ({"cniVersion": "7.0.0"}, "7.0.0"),
    ({"ips": "10.0.0.1/8"}, "prevResult.ips"),
    ({"ips": [5]}, "prevResult.ips[0]"),
    ({"ips": [{}]}, "prevResult.ips[0].address"),
    ({"ips": [{"address": 5}]}, "prevResult.ips[0].address"),
    ({"ips": [{"address": "10.0.0.1/24"}, {"address": "10.0.0.300/24"}]}, "10.0.0.300/24"),
    ({"ips": [{"address": "10.0.0.1/33"}]}, "10.0.0.1/33"),
    ({"ips": [{"address": "::1/129"}]}, "::1/129"),
    ({"ips": [{"address": "::1/"}]}, "::1/"),
    ({"ips": [{"address": f"10.0.0.{i}/8"} for i in range(65)]}, "at most 64"),
    ({"interfaces": {}}, "prevResult.interfaces"),
    ({"routes": [None]}, "prevResult.routes[0]"),
])
def test_garbage_in_previous_result(plugin, pod, result, words):
    answer = plugin.call("ADD", pod, config={"prevResult": result})
    assert answer.code == 6 and words in answer.message, answer
    assert not pod.is_redirected() and plugin.attachments() == []
    # It is no concern of the other verbs.
    assert plugin.call("DEL", pod, config={"prevResult": result}).status == 0
    plugin.add(pod)
    assert plugin.call("CHECK", pod, config={"prevResult": result}).status == 0


def test_an_error_is_the_only_thing_on_stdout(plugin, pod):
    answer = plugin.call("ADD", pod, config={"enrollment": 5, "logLevel": "debug"})
    assert answer.code == 7 and answer.stdout.count('"code"') == 1, answer


def test_log_file(plugin, pod, tmp_path):
    path = tmp_path / "log"
    plugin.add(pod, config={"logFile": str(path), "logLevel": "debug"})
    assert "sandbox1" in path.read_text() and path.stat().st_mode & 0o777 == 0o600
    # What can't be opened is no reason to fail, and a FIFO without a reader none to wait.
    os.mkfifo(tmp_path / "fifo")
    for bad in (tmp_path / "fifo", tmp_path / "no/where", tmp_path):
        answer = plugin.add(pod, config={"logFile": str(bad)})
        assert "logFile" in answer.stderr


def test_closed_stdin(plugin):
    """A runtime that gives no standard input at all."""
    completed = subprocess.run(["sh", "-c", 'exec "$0" <&-', str(PROGRAM)], capture_output=True, text=True, timeout=10,
                               env=plugin.environment("ADD", "/nowhere"))
    assert completed.returncode == 1 and json.loads(completed.stdout)["code"] == 5
