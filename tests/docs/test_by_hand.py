"""The commands that are typed on a machine without a cluster, or on a node: taken from the documents and typed into a shell, in
namespaces of its own, with empty folders where they write."""
import os
import pathlib
import re
import subprocess

from netns.namespace import Namespace
from tests.agent.node import Node

from .commands import newcomer, of_document, typed
from .documents import REPOSITORY

BUILD = pathlib.Path(os.environ.get("AMBIENT_BUILD", REPOSITORY / "build"))
NODE = REPOSITORY / "docs/node.md"

# The machine's own /run, /etc, /opt, /tmp, /var/lib and /usr/local stay as they are.
PLACE = """set -e
exec 9<"$1/ambient-cni" 8<"$1/ambient-installer" 7<"$CNITOOL"
for folder in /run /opt /usr/local /var/lib /tmp; do mount -t tmpfs -o mode=1777 tmpfs $folder; done
cp -a /etc /tmp/etc
mount --bind /tmp/etc /etc
rm -rf /etc/cni
mkdir -p /usr/local/libexec/cni /usr/local/sbin /opt/cni/bin /etc/cni/net.d /run/netns
cat <&9 >/usr/local/libexec/cni/ambient-cni; cat <&8 >/usr/local/sbin/ambient-installer; cat <&7 >/usr/local/sbin/cnitool
chmod 755 /usr/local/libexec/cni/ambient-cni /usr/local/sbin/*
exec 9<&- 8<&- 7<&-
export CNITOOL=/usr/local/sbin/cnitool
set +e
"""


def type_in(lines):
    """Standard output of a shell into which the lines are typed, one after the other."""
    cnitool = subprocess.run([str(REPOSITORY / "tests/cnitool.sh")], capture_output=True, text=True, check=True).stdout.strip()
    done = subprocess.run(["unshare", "--mount", "--net", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-s", str(BUILD)],
                          input=PLACE + lines, capture_output=True, text=True, check=False, timeout=120, cwd=REPOSITORY,
                          env={**os.environ, "PATH": "/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "CNITOOL": cnitool})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_one_pod_by_hand():
    commands = [command for command in newcomer() if not command.startswith("make ")]
    # What is built may lie elsewhere.
    commands = [command.replace("$PWD/build", "/usr/local/libexec/cni") for command in commands]
    said = type_in(typed(commands) + "ls /run/ambient-cni/attachments /run/netns\n")
    listed = said.partition("+ ip netns exec pod nft list table inet ambient-cni\n")[2]
    assert 'redirect to :15001 comment "outbound"' in listed and '"10.88.0.2/16"' in said
    # Nothing is left of the pod.
    assert said.endswith("/run/ambient-cni/attachments:\n\n/run/netns:\n")


PRIMARY = """cat >/etc/cni/net.d/10-podnet.conflist <<'END'
{ "cniVersion": "1.0.0", "name": "podnet", "plugins": [ { "type": "bridge", "ipam": { "type": "host-local", "subnet": "10.88.0.0/16" } } ] }
END
ip link set lo up
ip netns add pod
"""


def test_a_node_by_hand():
    """Installed, looked at, and taken off again; what the document says that is printed is printed."""
    commands = [command for command, _ in of_document(NODE)]
    (install,) = [command for command in commands if command.startswith("ambient-installer install --set")]
    (uninstall,) = [command for command in commands if command.startswith("ambient-installer uninstall --set")]
    looks = [command for command in commands if command.startswith(("grep -l", "nft list tables"))]
    assert len(looks) == 5
    chain = "CNI_PATH=/opt/cni/bin:/usr/lib/cni NETCONFPATH=/etc/cni/net.d cnitool"
    said = type_in(PRIMARY + typed([install]) + "grep -l ambient-cni /etc/cni/net.d/*\n"
                   + "ip netns exec pod ambient-installer render | ip netns exec pod nft -f - || exit 1\n"
                   + "ip netns exec pod nft list tables\necho uninstalls\n" + typed([uninstall]) + "ip netns exec pod nft list tables\n"
                   + "echo looks\n" + "".join(f"{look}\n" for look in looks)
                   # Pods of the primary network come and go.
                   + f"{chain} add podnet /run/netns/pod >/dev/null || exit 1\n{chain} del podnet /run/netns/pod\n")
    block = re.search(r"```sh\n(ambient-installer install .*?)```", NODE.read_text(), re.S).group(1)
    printed = re.findall(r"^# (.*)$", block, re.M)
    installed, _, after = said.partition("uninstalls\n")
    assert len(printed) == 3 and installed.splitlines()[1:4] == printed
    assert installed.splitlines()[4:] == ["/etc/cni/net.d/10-podnet.conflist", "table inet ambient-cni"]
    assert after.rpartition("looks\n")[2] == "" and "table inet" not in after


def test_legacy_rules_go():
    """istio-cni's rules of iptables-legacy: from a pod, whose namespace the command enters, and from the host."""
    pod_rules, host_rules = [command for command, _ in of_document(NODE) if "iptables-legacy" in command]
    with_rules = ("iptables-legacy -w -t nat -N {chain}; iptables-legacy -w -t nat -A {hook} -j {chain}; "
                  "iptables-legacy -w -t nat -A {chain} -j RETURN; iptables-legacy -w -t nat -A OUTPUT -d 192.0.2.1 -j RETURN")
    pod, host = Namespace(), Namespace()
    try:
        pod.run("sh", "-c", with_rules.format(chain="ISTIO_OUTPUT", hook="OUTPUT"))
        subprocess.run(["sh", "-c", pod_rules.replace("PATH", pod.path)], check=True, capture_output=True)
        # Of IPv6 too, where istio-cni had them.
        for family in ("iptables", "ip6tables"):
            host.run("sh", "-c", with_rules.format(chain="ISTIO_POSTRT", hook="POSTROUTING").replace("iptables", family).replace(
                "192.0.2.1", "2001:db8::1" if family == "ip6tables" else "192.0.2.1"))
        host.run("sh", "-c", host_rules)
        for namespace in (pod, host):
            saved = namespace.run("iptables-legacy-save") + namespace.run("ip6tables-legacy-save")
            assert "ISTIO_" not in saved and "-A OUTPUT -d 192.0.2.1/32 -j RETURN" in saved
    finally:
        pod.close()
        host.close()


def test_the_manual_pages_curl(tmp_path):
    """It asks the agent's own socket to log more, as the page says."""
    page = (REPOSITORY / "docs/man/ambient-installer.8").read_text()
    (command,) = re.findall(r"^\.Dl (curl .*)$", page, re.M)
    node = Node(tmp_path, tunnel=False, settings=["log.level=info"])
    try:
        assert node.get("/status")["logLevel"] == "info"
        command = command.replace("/var/run/ambient-cni", str(node.run_dir))
        assert "log-level?level=debug" in command
        done = subprocess.run(["sh", "-ec", command.replace("curl ", "curl -sS --fail ")], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert node.get("/status")["logLevel"] == "debug"
    finally:
        node.close()
