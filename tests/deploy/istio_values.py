"""The values of the istio-cni chart: each key that its versions 1.21 to 1.30 know, with a value that differs from the default.

HONOURED change what is rendered; the others are accepted, change nothing, and are named with the reason."""

HONOURED = {
    "pullPolicy": "Always",
    "logging.level": "default:info,cni:debug",
    "profile": "platform-gke",
    "platform": "microk8s",
    "cniBinDir": "/opt/other/bin",
    "cniConfDir": "/etc/other/net.d",
    "cniConfFileName": "10-calico.conflist",
    "cniNetnsDir": "/var/run/docker/netns",
    "istioOwnedCNIConfig": True,
    "istioOwnedCNIConfigFileName": "05-mesh.conflist",
    "excludeNamespaces": ["kube-system", "other"],
    "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "no-mesh", "operator": "DoesNotExist"}]}]}}},
    "daemonSetLabels": {"team": "net"},
    "podAnnotations": {"team": "net"},
    "podLabels": {"team": "net"},
    "chained": False,
    "provider": "multus",
    "ambient.enablementSelectors": [{"podSelector": {"matchLabels": {"mesh": "yes"}}}],
    "ambient.enablementSelector": [{"podSelector": {"matchLabels": {"mesh": "yes"}}}],
    "ambient.dnsCapture": False,
    "ambient.ipv6": False,
    "ambient.shareHostNetworkNamespace": True,
    "seccompProfile": {"type": "Unconfined"},
    "seLinuxOptions": {"type": "spc_t"},
    "resources": {"requests": {"cpu": "100m", "memory": "100Mi"}},
    "resourceQuotas.enabled": True,
    "tolerations": [{"key": "only-this", "operator": "Exists"}],
    "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 3}},
    "rollingMaxUnavailable": "10%",
    "revision": "canary",
    "ownerName": "somebody",
    "podMonitor.enabled": True,
    "networkPolicy.enabled": True,
    "global.platform": "openshift",
    "global.imagePullPolicy": "Always",
    "global.logging.level": "debug",
    "global.logAsJson": True,
    "global.imagePullSecrets": ["private-registry-key"],
    "global.resourceScope": "cluster",
    "global.networkPolicy.enabled": True,
}

# These count only together with another key.
HONOURED_WITH = {
    "hub": ("mirror.example/net", {"image": "ambient-cni"}),
    "tag": ("v7", {"image": "ambient-cni"}),
    "variant": ("debug", {"image": "ambient-cni"}),
    "image": ("mirror.example/net/ambient-cni:v7", {}),
    "global.hub": ("mirror.example/net", {"image": "ambient-cni"}),
    "global.tag": ("v7", {"image": "ambient-cni"}),
    "global.variant": ("debug", {"image": "ambient-cni"}),
    "global.defaultResources": ({"requests": {"cpu": "50m"}}, {"resources": None}),
    "resourceQuotas.pods": (77, {"resourceQuotas": {"enabled": True}}),
    "podMonitor.interval": ("7s", {"podMonitor": {"enabled": True}}),
    "ambient.enablementSelectors": ([{"podSelector": {}}], {"ambient": {"ipv6": False}}),
}

WITHOUT_EFFECT = {
    "hub": "gcr.io/istio-release",
    "tag": "1.27.1",
    "variant": "distroless",
    "image": "install-cni",
    "compatibilityVersion": "1.26",
    "logLevel": "debug",
    "psp_cluster_role": "some",
    "privileged": True,
    "includeNamespaces": ["one"],
    "ambient.enabled": True,
    "ambient.configDir": "/etc/ambient-config",
    "ambient.redirectMode": "iptables",
    "ambient.reconcileIptablesOnStartup": True,
    "repair.enabled": True,
    "repair.hub": "gcr.io/istio-release",
    "repair.tag": "1.27.1",
    "repair.labelPods": True,
    "repair.deletePods": True,
    "repair.repairPods": True,
    "repair.initContainerName": "istio-validation",
    "repair.brokenPodLabelKey": "cni.istio.io/uninitialized",
    "repair.brokenPodLabelValue": "true",
    "global.hub": "gcr.io/istio-release",
    "global.tag": "1.27.1",
    "global.variant": "distroless",
    "global.nativeNftables": True,
    "global.omitClusterResources": True,
}

# What the chart of 1.27 and later has as defaults, whole: people keep copies of it as their values.
DEFAULTS = {
    "hub": "", "tag": "", "variant": "", "image": "install-cni", "pullPolicy": "",
    "logging": {"level": ""},
    "cniBinDir": "/opt/cni/bin", "cniConfDir": "/etc/cni/net.d", "cniConfFileName": "", "cniNetnsDir": "/var/run/netns",
    "istioOwnedCNIConfigFileName": "", "istioOwnedCNIConfig": False,
    "excludeNamespaces": ["kube-system"],
    "affinity": {}, "daemonSetLabels": {}, "podAnnotations": {}, "podLabels": {},
    "chained": True, "provider": "default",
    "ambient": {
        "enabled": False,
        "enablementSelectors": [
            {"podSelector": {"matchLabels": {"istio.io/dataplane-mode": "ambient"}}},
            {"podSelector": {"matchExpressions": [{"key": "istio.io/dataplane-mode", "operator": "NotIn", "values": ["none"]}]},
             "namespaceSelector": {"matchLabels": {"istio.io/dataplane-mode": "ambient"}}}],
        "configDir": "", "dnsCapture": True, "ipv6": True, "reconcileIptablesOnStartup": False,
        "shareHostNetworkNamespace": False},
    "repair": {"enabled": True, "hub": "", "tag": "", "labelPods": False, "deletePods": False, "repairPods": True,
               "initContainerName": "istio-validation", "brokenPodLabelKey": "cni.istio.io/uninitialized",
               "brokenPodLabelValue": "true"},
    "seccompProfile": {}, "seLinuxOptions": {},
    "resources": {"requests": {"cpu": "100m", "memory": "100Mi"}},
    "resourceQuotas": {"enabled": False, "pods": 5000},
    "tolerations": [{"effect": "NoSchedule", "operator": "Exists"}, {"key": "CriticalAddonsOnly", "operator": "Exists"},
                    {"effect": "NoExecute", "operator": "Exists"}],
    "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}},
    "revision": "", "ownerName": "",
    "podMonitor": {"enabled": False},
    "global": {"hub": "gcr.io/istio-testing", "tag": "latest", "variant": "", "imagePullPolicy": "",
               "logging": {"level": "info"}, "logAsJson": False, "imagePullSecrets": [],
               "defaultResources": {"requests": {"cpu": "100m", "memory": "100Mi"}}, "nativeNftables": False,
               "resourceScope": "all", "networkPolicy": {"enabled": False}},
    "env": {},
}


def leaves(values, prefix=""):
    """All keys of nested values, dotted; lists and empty maps are leaves."""
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key


def nested(key, value, into=None):
    """{"a": {"b": value}} for "a.b", on top of `into`."""
    result = {k: dict(v) if isinstance(v, dict) else v for k, v in (into or {}).items()}
    place = result
    *path, last = key.split(".")
    for part in path:
        place[part] = dict(place.get(part, {}))
        place = place[part]
    place[last] = value
    return result
