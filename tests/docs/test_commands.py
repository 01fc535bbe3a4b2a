"""Every command of the documents is run by a test: by this folder, by tests that take the commands from the documents themselves, or by
the test that the table below names. A command that none of them covers fails here."""
import re

from .commands import in_text, newcomer, of_all, of_block
from .documents import REPOSITORY, find_test

MAKEFILE = (REPOSITORY / "Makefile").read_text()

# Who takes the commands of a program out of the documents: it finds new ones by itself.
TAKEN = {
    "kubectl": ("tests/package/test_kubectl.py::documented", ['of_program("kubectl")']),
    "helm": ("tests/package/test_helm.py::documented", ['of_program("helm")']),
}

# (pattern of commands, the test, words of the command that the test's text holds)
COVERED = [
    # The README's laptop, and a node by hand: typed as they stand there.
    (r"unshare --net --mount bash|mkdir -p /tmp/podnet.*|ip netns .*|export NETCONFPATH.*|\$\(tests/cnitool\.sh\) .*",
     "tests/docs/test_by_hand.py::test_one_pod_by_hand", ["newcomer()"]),
    (r"ambient-installer (install|uninstall) --set .*|grep -l (ambient|istio)-cni /etc/cni/net\.d/\*|nft list tables( \| grep ambient-cni)?",
     "tests/docs/test_by_hand.py::test_a_node_by_hand", ["of_document(NODE)", "ambient-installer install", "ambient-installer uninstall",
                                                         "grep -l", "nft list tables"]),
    (r"nsenter --net=PATH .*|for i in iptables-legacy ip6tables-legacy.*", "tests/docs/test_by_hand.py::test_legacy_rules_go",
     ["of_document(NODE)", "iptables-legacy"]),
    (r"for object in serviceaccount/istio-cni .*", "tests/package/test_kubectl.py::test_handing_objects_over", ["for object in"]),
    (r"curl --unix-socket .*", "tests/docs/test_by_hand.py::test_the_manual_pages_curl", ["curl", "log-level"]),
    (r"man ambient-installer", "tests/docs/test_manual_pages.py::test_man_shows_it", ["man", "ambient-installer"]),
    # The command line.
    (r"ambient-installer status", "tests/observe/test_cli.py::test_status", ["status"]),
    (r"ambient-installer explain NS/(POD|NAME)", "tests/observe/test_cli.py::test_explain_a_pod_that_is_well", ["explain"]),
    (r"ambient-installer verify NS/(POD|NAME)", "tests/observe/test_cli.py::test_verify", ["verify"]),
    (r"ambient-installer pause NS/POD --for 10m", "tests/observe/test_cli.py::test_a_difference_is_shown_and_a_pause_is_told",
     ["pause", "--for", "10m"]),
    (r"ambient-installer preview NAME", "tests/observe/test_policies.py::test_which_pods_enter", ["preview"]),
    (r"ambient-installer doctor", "tests/observe/test_doctor.py::test_text_for_people", ['"doctor"']),
    (r"ambient-installer uninstall", "tests/host/test_command.py::test_uninstall_takes_everything_away", ["uninstall"]),
    (r"ambient-installer config( --reference)?", "tests/cli/test_config_command.py::test_the_reference_is_the_committed_one",
     ["--reference"]),
    (r"ambient-installer render", "tests/netns/test_command_line.py::test_render", ["render"]),
    # Rules.
    (r"nft list table inet ambient-cni", "tests/docs/test_how_it_works.py::listing", ["nft", "list", "table", "inet"]),
    (r"nft list table inet ambient-cni-host", "tests/docs/test_how_it_works.py::test_the_hosts_rules_are_those_that_the_agent_installs",
     ["ambient-cni-host"]),
    (r"nft flush ruleset", "tests/agent/test_drift.py::test_the_hosts_set_is_repaired", ['["flush", "ruleset"]']),
    # The image.
    (r"make image( ARCHITECTURE=arm64)?", "tests/package/test_image.py::test_make_image", ["make", "image", "ARCHITECTURE="]),
    (r"skopeo copy oci-archive:.* docker://REGISTRY/.*", "tests/package/test_image.py::test_pushed_to_a_registry", ["skopeo", "copy"]),
]

# Named, and not for typing here: each with the reason.
NAMED = {
    "istioctl install": "Istio's own",
    "istioctl install --set profile=ambient": "Istio's own; what follows from it is tests/node's, where nothing else serves pods",
    "istioctl upgrade": "Istio's own",
    "istioctl bug-report": "Istio's own",
    "strace -r": "how a figure was found",
    "perf trace": "how a figure was found",
    "kubectl --kubeconfig=/etc/kubernetes/admin.conf": "the beginning of a command",
}

MAKE = re.compile(r"make ([a-z-]+)((?: [A-Z_]+=(?:\"[^\"]*\"|\S+))*)")


COMMANDS = of_all()


def cover_of(command):
    program = command.split()[0]
    if command in NAMED:
        return "named"
    if program in TAKEN:
        return TAKEN[program]
    found = next(((test, words) for pattern, test, words in COVERED if re.fullmatch(pattern, command, re.S)), None)
    return found or ("make" if MAKE.fullmatch(command) else None)


def what_is_missing(command):
    """A sentence, or an empty text."""
    cover = cover_of(command)
    if cover is None:
        return f"no test runs: {command}"
    if cover == "make":
        # Targets are what runs tests; those that are no tests have rows above.
        target, variables = MAKE.fullmatch(command).groups()
        known = re.search(rf"^{target}:", MAKEFILE, re.M) and all(name in MAKEFILE for name in re.findall(r"([A-Z_]+)=", variables))
        return "" if known else f"the Makefile does not know: {command}"
    if cover == "named":
        return ""
    test, words = cover
    text = find_test(test)
    return "".join(f"{test}, which runs {command}, does not hold {word!r}" for word in words if word not in text)


def test_each_command_is_run_by_a_test():
    missing = [(document.name, said) for document, command in COMMANDS if (said := what_is_missing(command))]
    assert not missing, "\n".join(f"{name}: {said}" for name, said in missing)
    assert len(COMMANDS) > 100


def test_nothing_in_the_tables_is_out_of_date():
    said = [command for _, command in COMMANDS]
    for pattern, test, _ in COVERED:
        assert any(re.fullmatch(pattern, command, re.S) for command in said), (pattern, test)
    assert set(NAMED) <= set(said)


def test_a_new_command_is_noticed():
    for text in ("ambient-installer frobnicate", "crictl info", "nft delete table inet x", "istioctl uninstall"):
        assert cover_of(text) is None
        assert list(in_text(f"Then run `{text}`.")) == [text]
    block = "# remark\nnft delete table \\\n  inet x   # why\nfor i in a b; do\n  rm $i\ndone\ncat <<'END'\n# no remark\nEND\n"
    assert of_block(block) == ["nft delete table inet x", "for i in a b; do\n  rm $i\ndone", "cat <<'END'\n# no remark\nEND"]


def test_what_a_newcomer_types():
    typed = newcomer()
    assert typed[0] == "make demo" and "unshare --net --mount bash" in typed and typed[-1] == "ip netns delete pod"
    assert not [command for command in typed if command.split()[0] in ("helm", "kubectl")]
