"""What the chart makes: the names that others rely on, the permissions, the pod."""
import pytest

from .conftest import CHART


def test_names_that_others_rely_on(render):
    (result,) = render({})
    daemon_set = result["DaemonSet"]
    assert daemon_set["metadata"]["name"] == "istio-cni-node"
    for labels in (daemon_set["metadata"]["labels"], result.pod["metadata"]["labels"]):
        assert labels["k8s-app"] == labels["app"] == "istio-cni-node"
    assert daemon_set["spec"]["selector"] == {"matchLabels": {"k8s-app": "istio-cni-node"}}
    assert result.pod["metadata"]["labels"]["sidecar.istio.io/inject"] == "false"
    assert result.pod["metadata"]["labels"]["istio.io/dataplane-mode"] == "none"
    assert result.container["name"] == "install-cni"
    assert result["ServiceAccount"]["metadata"]["name"] == "istio-cni"


def test_labels_of_users_never_replace_ours(render):
    (result,) = render({"values": {"podLabels": {"k8s-app": "x", "istio.io/dataplane-mode": "ambient", "mine": "1"},
                                   "daemonSetLabels": {"k8s-app": "x", "mine": "1"}}})
    assert result.pod["metadata"]["labels"]["k8s-app"] == "istio-cni-node"
    assert result.pod["metadata"]["labels"]["istio.io/dataplane-mode"] == "none"
    assert result.pod["metadata"]["labels"]["mine"] == "1"
    assert result["DaemonSet"]["metadata"]["labels"]["mine"] == "1"


def rules(role):
    return {(group or "core", resource): sorted(rule["verbs"]) for rule in role["rules"]
            for group in rule["apiGroups"] for resource in rule["resources"]}


def test_permissions_are_these_and_no_more(render):
    result, taint, openshift = render({}, {"values": {"config": {"removeTaint": "cni.istio.io/not-ready"}}},
                                      {"values": {"platform": "openshift"}})
    expected = {
        ("core", "pods"): ["get", "list", "watch"],
        ("core", "namespaces"): ["get", "list", "watch"],
        ("core", "pods/status"): ["patch"],
        ("core", "nodes"): ["get"],
        ("core", "events"): ["create"],
    }
    assert rules(result["ClusterRole"]) == expected
    assert rules(taint["ClusterRole"]) == {**expected, ("core", "nodes"): ["get", "patch"]}
    assert rules(openshift["ClusterRole"]) == {**expected, ("security.openshift.io", "securitycontextconstraints"): ["use"]}
    (role,) = [o for o in result.objects if o["kind"] == "Role" and o["metadata"]["name"] == "istio-cni"]
    assert role["rules"] == [{"apiGroups": ["apps"], "resources": ["daemonsets"], "resourceNames": ["istio-cni-node"],
                              "verbs": ["get"]}]


def test_the_container_is_confined(render):
    (result,) = render({})
    context = result.container["securityContext"]
    assert context["readOnlyRootFilesystem"] is True and context["privileged"] is False
    assert context["capabilities"]["drop"] == ["ALL"]
    assert sorted(context["capabilities"]["add"]) == ["DAC_OVERRIDE", "NET_ADMIN", "SYS_ADMIN", "SYS_PTRACE"]
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert "hostNetwork" not in result.pod["spec"] and "hostPID" not in result.pod["spec"]
    read_only = {m["mountPath"] for m in result.container["volumeMounts"] if m.get("readOnly")}
    assert read_only == {"/etc/ambient-cni", "/host/proc", "/host/var/lib/cni"}


def test_apparmor_in_old_and_new_clusters(render):
    old, new = render({"kubeVersion": "v1.29.4"}, {"kubeVersion": "v1.30.0"})
    key = "container.apparmor.security.beta.kubernetes.io/install-cni"
    assert old.pod["metadata"]["annotations"][key] == "unconfined"
    assert "appArmorProfile" not in old.container["securityContext"]
    assert key not in new.pod["metadata"]["annotations"]
    assert new.container["securityContext"]["appArmorProfile"] == {"type": "Unconfined"}


def test_every_volume_is_mounted_and_every_mount_has_one(render):
    for result in render({}, {"values": {"platform": "openshift"}}, {"values": {"config": {"runDir": "/run/mesh"}}}):
        volumes = [v["name"] for v in result.pod["spec"]["volumes"]]
        mounts = [m["name"] for m in result.container["volumeMounts"]]
        assert sorted(volumes) == sorted(mounts) and len(set(volumes)) == len(volumes)
    assert result.host_paths["cni-run-dir"] == "/run/mesh"


def test_host_network(render):
    (result,) = render({"values": {"ambient": {"shareHostNetworkNamespace": True}}})
    assert result.pod["spec"]["hostNetwork"] is True
    assert 'networkNamespace: ""' in result.config_text
    (result,) = render({})
    assert "networkNamespace: /host/proc/1/ns/net" in result.config_text


PLATFORMS = {
    "kind": ("/opt/cni/bin", "/etc/cni/net.d", "/var/run/netns"),
    "rke2": ("/opt/cni/bin", "/etc/cni/net.d", "/var/run/netns"),
    "k3s": ("/var/lib/rancher/k3s/data/cni", "/var/lib/rancher/k3s/agent/etc/cni/net.d", "/var/run/netns"),
    "k3s-current": ("/var/lib/rancher/k3s/data/current/bin", "/var/lib/rancher/k3s/agent/etc/cni/net.d", "/var/run/netns"),
    "k3d": ("/var/lib/rancher/k3s/data/cni", "/var/lib/rancher/k3s/agent/etc/cni/net.d", "/var/run/netns"),
    "microk8s": ("/var/snap/microk8s/current/opt/cni/bin", "/var/snap/microk8s/current/args/cni-network", "/var/run/netns"),
    "gke": ("/home/kubernetes/bin", "/etc/cni/net.d", "/var/run/netns"),
    "openshift": ("/var/lib/cni/bin", "/etc/cni/multus/net.d", "/var/run/netns"),
    "minikube": ("/opt/cni/bin", "/etc/cni/net.d", "/var/run/docker/netns"),
}


def test_platforms(render):
    files = {p.stem.removeprefix("platform-") for p in (CHART / "files/profiles").glob("platform-*.yaml")}
    assert files == set(PLATFORMS)
    for name, paths in PLATFORMS.items():
        for result in render({"values": {"platform": name}}, {"values": {"profile": f"platform-{name}"}},
                             {"values": {"global": {"platform": name}}}):
            found = result.host_paths
            assert (found["cni-bin-dir"], found["cni-net-dir"], found["cni-netns-dir"]) == paths, name


def test_platforms_that_need_more(render):
    gke, found, openshift, by_profile, old_k3d = render(
        {"values": {"platform": "gke"}, "namespace": "kube-system"}, {"kubeVersion": "v1.31.2-gke.1000000"},
        {"values": {"platform": "openshift"}}, {"values": {"profile": "openshift-ambient"}},
        {"values": {"platform": "k3d"}, "kubeVersion": "v1.31.6+k3s1"})
    assert gke["ResourceQuota"]["spec"]["scopeSelector"]["matchExpressions"][0]["values"] == ["system-node-critical"]
    assert found.host_paths["cni-bin-dir"] == "/home/kubernetes/bin"
    assert openshift.container["securityContext"]["seLinuxOptions"] == {"type": "spc_t"}
    assert openshift["NetworkAttachmentDefinition"]["metadata"]["namespace"] == "default"
    assert "chained: false" in openshift.config_text
    assert by_profile.objects == openshift.objects
    assert old_k3d.host_paths["cni-bin-dir"] == "/bin"


def test_profiles_of_istio_are_accepted(render):
    base, *results = render({}, *[{"values": {"profile": name}} for name in
                                  ("default", "ambient", "demo", "minimal", "preview", "remote", "stable")])
    for result in results:
        assert result.objects == base.objects


def test_scopes_add_up(render):
    everything, cluster, namespace = render(*[{"values": {"global": {"resourceScope": scope}}}
                                              for scope in ("all", "cluster", "namespace")])

    def names(result):
        return sorted((o["kind"], o["metadata"]["name"]) for o in result.objects)

    assert names(everything) == sorted(names(cluster) + names(namespace))
    assert {o["kind"] for o in cluster.objects} == {"ClusterRole", "ClusterRoleBinding"}
    assert all(o["metadata"]["namespace"] for o in namespace.objects)


OPTIONAL = {
    "NetworkPolicy": {"networkPolicy": {"enabled": True}},
    "ResourceQuota": {"resourceQuotas": {"enabled": True}},
    "PodMonitor": {"podMonitor": {"enabled": True}},
    "PrometheusRule": {"prometheusRule": {"enabled": True, "labels": {"team": "net"}}},
    "NetworkAttachmentDefinition": {"provider": "multus"},
}


@pytest.mark.parametrize("kind", OPTIONAL)
def test_optional_objects(render, kind):
    without, with_it = render({}, {"values": OPTIONAL[kind]})
    assert not without.has(kind)
    assert with_it[kind]["metadata"]["name"].startswith("istio-cni")


def test_a_changed_configuration_restarts_the_agents(render):
    one, same, other = render({}, {"values": {"ownerName": ""}}, {"values": {"ambient": {"ipv6": False}}})
    checksum = [r.pod["metadata"]["annotations"]["ambient-cni.io/config-checksum"] for r in (one, same, other)]
    assert checksum[0] == checksum[1] != checksum[2]


def test_uninstall_hook(render):
    """It may delete our DaemonSet and nothing else, and only while it runs."""
    result, off = render({"values": {"uninstallHook": {"timeoutSeconds": 120}, "global": {"imagePullSecrets": ["key"]}}},
                         {"values": {"uninstallHook": {"enabled": False}}})
    assert not off.hooks
    hooks = {o["kind"]: o for o in result.hooks}
    assert sorted(hooks) == ["Job", "Role", "RoleBinding", "ServiceAccount"] and len(result.hooks) == 4
    for hook in result.hooks:
        assert hook["metadata"]["name"] == "istio-cni-uninstall"
        assert hook["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete"
        assert "hook-succeeded" in hook["metadata"]["annotations"]["helm.sh/hook-delete-policy"]
    assert rules(hooks["Role"]) == {("apps", "daemonsets"): ["delete", "get"], ("core", "pods"): ["list"]}
    assert hooks["Role"]["rules"][0]["resourceNames"] == ["istio-cni-node"]
    assert hooks["ServiceAccount"]["imagePullSecrets"] == [{"name": "key"}]
    job = hooks["Job"]["spec"]
    (container,) = job["template"]["spec"]["containers"]
    assert container["image"] == result.container["image"]
    assert container["args"] == ["uninstall", "--all-nodes", "--timeout", "120"]
    assert job["activeDeadlineSeconds"] > 2 * 120
    assert container["securityContext"]["runAsNonRoot"] and container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    # It is none of the agents, whose absence it waits for, and no pod of the mesh.
    assert "k8s-app" not in job["template"]["metadata"]["labels"]
    assert job["template"]["metadata"]["labels"]["app"] != "istio-cni-node"
    assert job["template"]["metadata"]["labels"]["istio.io/dataplane-mode"] == "none"


@pytest.mark.parametrize("version, accepted", [("v1.19.9", False), ("v1.20.0", True), ("v1.36.0", True)])
def test_versions_of_kubernetes(render_any, version, accepted):
    (result,) = render_any({"kubeVersion": version})
    assert (not result.error) is accepted, result.error
