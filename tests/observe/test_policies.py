"""preview, and the part of explain that a person's kubeconfig answers: waypoints and policies, against the API server's double."""
import json
import os
import subprocess
import sys

import pytest

from tests.agent.node import INSTALLER, REPOSITORY, Node
from tests.netns.namespace import Namespace

sys.path.insert(0, str(REPOSITORY / "tests" / "peers"))
from api_server import ApiServer  # noqa: E402

SECURITY = "/apis/security.istio.io/v1/namespaces"
NETWORK = "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies"
GATEWAY = "/apis/gateway.networking.k8s.io/v1/namespaces"


def pod(name, labels=None, annotations=None, probe=False, **spec):
    container = {"name": "main", "image": "x", **({"readinessProbe": {"httpGet": {"port": 80}}} if probe else {})}
    return {"apiVersion": "v1", "kind": "Pod", "spec": {"serviceAccountName": "default", "containers": [container], **spec},
            "metadata": {"name": name, "namespace": "shop", "uid": f"uid-{name}", "labels": labels or {}, "annotations": annotations or {}},
            "status": {"phase": "Running", "podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}]}}


def policy(name, namespace="shop", **spec):
    return {"metadata": {"name": name, "namespace": namespace}, "spec": spec}


class Cluster:
    def __init__(self, folder, inside):
        self.inside = inside
        with inside:
            self.api = ApiServer(folder / "api")
        self.answers = self.api.for_people = {}
        self.kubeconfig = str(self.api.write_kubeconfig(folder / "kubeconfig"))
        self.namespace()
        self.pods(pod("cart", {"app": "cart"}))

    def namespace(self, labels=None):
        self.answers["/api/v1/namespaces/shop"] = {"apiVersion": "v1", "kind": "Namespace",
                                                   "metadata": {"name": "shop", "uid": "uid-shop", "labels": labels or {}}}

    def pods(self, *pods):
        self.answers["/api/v1/namespaces/shop/pods"] = {"items": list(pods)}
        for one in pods:
            self.answers[f"/api/v1/namespaces/shop/pods/{one['metadata']['name']}"] = one

    def list(self, path, *items):
        self.answers[path] = {"items": list(items)}

    def run(self, *arguments, status=0, text=False):
        command = [str(INSTALLER), *arguments, "--kubeconfig", self.kubeconfig, *([] if text else ["-o", "json"])]
        kept = {key: value for key, value in os.environ.items() if key != "KUBECONFIG"}
        with self.inside:
            done = subprocess.run(command, capture_output=True, text=True, timeout=30, env=kept)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr if text else json.loads(done.stdout)

    def preview(self, status=0):
        return self.run("preview", "shop", status=status)

    def only_finding(self, kind, status):
        (finding,) = self.preview(status)["findings"]
        assert finding["kind"] == kind and finding["blocked"] is (status == 3)
        return finding["finding"]


@pytest.fixture
def cluster(tmp_path):
    inside = Namespace()
    inside.ip("link set lo up\n")
    cluster = Cluster(tmp_path, inside)
    with cluster.api:
        yield cluster
        cluster.api.check()


def test_which_pods_enter(cluster):
    cluster.pods(pod("cart"), pod("old", annotations={"sidecar.istio.io/status": "{}"}), pod("node", hostNetwork=True),
                 pod("no", {"istio.io/dataplane-mode": "none"}),
                 pod("here", annotations={"ambient.istio.io/redirection": "enabled"}))
    pods = {one["name"]: one for one in cluster.preview()["pods"]}
    assert {name for name, one in pods.items() if one["enters"]} == {"cart", "here"} and pods["here"]["isIn"]
    assert "sidecar" in pods["old"]["reason"] and "host's network" in pods["node"]["reason"]
    text = cluster.run("preview", "shop", text=True)
    assert "2 of 5 pods are in the mesh" in text and "stays out" in text and "enters     cart" in text
    assert "To do it: kubectl label namespace shop istio.io/dataplane-mode=ambient" in text
    assert not [request for request in cluster.api.requests if request[0] != "GET"]


def test_no_such_namespace_and_no_rights(cluster):
    assert "namespace other" in cluster.run("preview", "other", status=1, text=True)
    cluster.api.forbidden = ["networkpolicies"]
    assert "NetworkPolicies" in cluster.preview()["unread"]
    assert "Not looked at, since it may not be read: NetworkPolicies" in cluster.run("preview", "shop", text=True)


@pytest.mark.parametrize("port, is_open", [
    ({}, True), ({"ports": [{"port": 15008}]}, True), ({"ports": [{"port": 15000, "endPort": 15010}]}, True),
    ({"ports": [{"port": 80}]}, False), ({"ports": [{"port": 15008, "protocol": "UDP"}]}, False), ({"ports": [{"port": "http"}]}, False)])
def test_network_policies_and_the_tunnels_port(cluster, port, is_open):
    cluster.list(NETWORK, policy("p", podSelector={"matchLabels": {"app": "cart"}}, ingress=[port]))
    text = cluster.only_finding("NetworkPolicy", 0 if is_open else 3)
    assert ("lets TCP 15008 in" if is_open else "lets no TCP 15008 in") in text


def test_network_policies_add_up(cluster):
    closed = policy("closed", podSelector={}, policyTypes=["Ingress"])
    cluster.list(NETWORK, closed, policy("open", podSelector={}, ingress=[{"ports": [{"port": 15008}]}]))
    assert "closed, open let TCP 15008 in" in cluster.only_finding("NetworkPolicy", 0)
    cluster.list(NETWORK, closed, policy("some", podSelector={}, ingress=[{"from": [{"podSelector": {}}]}]))
    assert "for some peers only" in cluster.only_finding("NetworkPolicy", 0)
    cluster.list(NETWORK, policy("other", podSelector={"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["cart"]}]}))
    assert cluster.preview()["findings"] == []
    cluster.list(NETWORK, policy("out", podSelector={}, policyTypes=["Egress"], egress=[{"ports": [{"port": 443}]}]))
    assert "out lets no TCP 15008 out" in cluster.only_finding("NetworkPolicy", 3)


@pytest.mark.parametrize("own, probe, inside, outside", [
    ("10.0.0.1", "169.254.7.127/32", ("169.254.7.127/32", "169.254.0.0/16", "0.0.0.0/0"),
     ("10.0.0.0/8", "169.254.7.126/32", "::/0", "169.254.7.127", "169.254.7.127/33")),
    ("fd91::1", "fd16:9254:7127:1337:ffff:ffff:ffff:ffff/128", ("fd16:9254:7127:1337:ffff:ffff:ffff:ffff/128", "fd16::/16", "::/0", "fd16:9254:7127:1300::/57"),
     ("169.254.7.127/32", "0.0.0.0/0", "fd91::/16", "fd16:9254:7127:1380::/57"))])
def test_network_policies_and_probes(cluster, own, probe, inside, outside):
    """Of the family in which the kubelet probes: the pod's first address."""
    probed = pod("cart", probe=True)
    probed["status"].update(podIP=own, podIPs=[{"ip": own}, {"ip": "10.0.0.9"}])
    cluster.pods(probed)
    selected = {"ports": [{"port": 15008}], "from": [{"podSelector": {}}]}
    cluster.list(NETWORK, policy("p", podSelector={}, ingress=[selected]))
    (finding,) = [one for one in cluster.preview(3)["findings"] if one["blocked"]]
    assert f"p lets nothing in to port 80 from {probe.split('/')[0]}" in finding["finding"] and finding["pods"] == ["cart"]
    assert f"allow ipBlock {probe}" in finding["finding"]
    for cidr in (*inside, *outside):
        cluster.list(NETWORK, policy("p", podSelector={}, ingress=[selected, {"from": [{"ipBlock": {"cidr": cidr}}]}]))
        cluster.preview(0 if cidr in inside else 3)
    cluster.list(NETWORK, policy("p", podSelector={}, ingress=[selected, {"from": [{"ipBlock": {"cidr": inside[-1], "except": [inside[0]]}}]}]))
    cluster.preview(3)
    for port, is_open in ((80, True), (81, False), ("http", False)):
        cluster.list(NETWORK, policy("p", podSelector={}, ingress=[selected, {"ports": [{"port": port}]}]))
        cluster.preview(0 if is_open else 3)
    container = probed["spec"]["containers"][0]
    container.update(ports=[{"name": "http", "containerPort": 80}], readinessProbe={"httpGet": {"port": "http"}})
    for port in ("http", 80):
        cluster.list(NETWORK, policy("p", podSelector={}, ingress=[selected, {"ports": [{"port": port}]}]))
        cluster.preview()
    container["readinessProbe"] = {"exec": {"command": ["true"]}}
    cluster.list(NETWORK, policy("p", podSelector={}, ingress=[selected]))
    cluster.preview()


def test_authorization_policies(cluster):
    path = f"{SECURITY}/shop/authorizationpolicies"
    cluster.list(path, policy("allow", rules=[{"from": [{"source": {"principals": ["a"]}}]}]))
    assert "shop/allow (ALLOW): connections that no rule of it allows" in cluster.only_finding("AuthorizationPolicy", 0)
    cluster.list(path, policy("http", rules=[{"to": [{"operation": {"methods": ["GET"]}}]}]))
    assert "ztunnel does not see" in cluster.only_finding("AuthorizationPolicy", 3)
    cluster.list(path, policy("nothing"))
    assert "allows nothing" in cluster.only_finding("AuthorizationPolicy", 3)
    cluster.list(path, policy("deny", action="DENY", rules=[{"when": [{"key": "request.headers[x]", "values": ["1"]}]}]))
    assert "refuses more than it says" in cluster.only_finding("AuthorizationPolicy", 3)
    cluster.list(path, policy("other", selector={"matchLabels": {"app": "other"}}), policy("gate", targetRefs=[{"name": "w"}]))
    assert cluster.preview()["findings"] == []
    cluster.list(f"{SECURITY}/istio-system/authorizationpolicies", policy("all", "istio-system", action="DENY", rules=[{}]))
    assert "istio-system/all (DENY)" in cluster.only_finding("AuthorizationPolicy", 0)


def test_peer_authentication_the_nearest_counts(cluster):
    cluster.list(f"{SECURITY}/istio-system/peerauthentications", policy("mesh", "istio-system", mtls={"mode": "STRICT"}))
    assert "istio-system/mesh is STRICT" in cluster.only_finding("PeerAuthentication", 0)
    cluster.list(f"{SECURITY}/shop/peerauthentications", policy("here", mtls={"mode": "PERMISSIVE"}))
    assert cluster.preview()["findings"] == []
    cluster.list(f"{SECURITY}/shop/peerauthentications", policy("here", mtls={"mode": "PERMISSIVE"}),
                 policy("cart", selector={"matchLabels": {"app": "cart"}}, mtls={"mode": "STRICT"}))
    assert "shop/cart is STRICT" in cluster.only_finding("PeerAuthentication", 0)


def gateway(programmed="True", **labels):
    return {"metadata": {"labels": {f"istio.io/{key.replace('_', '-')}": value for key, value in labels.items()}},
            "spec": {"gatewayClassName": "istio-waypoint", "listeners": [{"name": "mesh", "port": 15008, "protocol": "HBONE"}]},
            "status": {"conditions": [{"type": "Programmed", "status": programmed}]}}


def service(name, selector=None, **labels):
    return {"metadata": {"name": name, "labels": labels}, "spec": {"selector": selector or {"app": "cart"}}}


USE = "istio.io/use-waypoint"


def test_a_namespaces_waypoint(cluster):
    labels = {USE: "w"}
    cluster.namespace(labels)
    assert "Gateway shop/w, which is not there" in cluster.only_finding("waypoint", 3)
    found = cluster.answers[f"{GATEWAY}/shop/gateways/w"] = gateway("False")
    assert "there and not programmed" in cluster.only_finding("waypoint", 3)
    found["status"]["conditions"][0]["status"] = "True"
    assert "Gateway shop/w (istio-waypoint, for services) is there and programmed, by label istio.io/use-waypoint of the namespace" in \
        cluster.only_finding("waypoint", 0)
    labels["istio.io/use-waypoint-namespace"] = "infra"
    assert "Gateway infra/w, which is not there" in cluster.only_finding("waypoint", 3)
    labels[USE] = "none"
    assert cluster.preview()["findings"] == []


@pytest.mark.parametrize("routes, is_open", [
    ({}, False), ({"from": "Same"}, False), ({"from": "None"}, False), ({"from": "All"}, True),
    ({"from": "Selector", "selector": {"matchLabels": {"team": "a"}}}, True),
    ({"from": "Selector", "selector": {"matchLabels": {"team": "b"}}}, False)])
def test_a_waypoint_of_another_namespace_must_take_ours(cluster, routes, is_open):
    cluster.namespace({USE: "w", "istio.io/use-waypoint-namespace": "infra", "team": "a"})
    found = cluster.answers[f"{GATEWAY}/infra/gateways/w"] = gateway()
    found["spec"]["listeners"][0]["allowedRoutes"] = {"namespaces": routes}
    text = cluster.only_finding("waypoint", 0 if is_open else 3)
    assert ("there and programmed" if is_open else "Gateway infra/w, which takes nothing from namespace shop") in text


def test_a_services_own_label_goes_before_the_namespaces(cluster):
    cluster.namespace({USE: "w"})
    cluster.answers[f"{GATEWAY}/shop/gateways/w"] = gateway()
    services = "/api/v1/namespaces/shop/services"
    cluster.list(services, service("cart"), service("other", {"app": "other"}, **{USE: "gone"}), service("headless", {"app": ""}))
    assert "of the namespace" in cluster.only_finding("waypoint", 0)
    cluster.list(services, service("cart", **{USE: "gone"}))
    findings = [one["finding"] for one in cluster.preview(3)["findings"]]
    assert "of the namespace" in findings[0] and "of Service cart names Gateway shop/gone, which is not there" in findings[1]
    cluster.list(services, service("cart", **{USE: "none"}))
    findings = [one["finding"] for one in cluster.preview()["findings"]]
    assert "Service cart has none: its label istio.io/use-waypoint is none" in findings[1]
    cluster.list(services, service("cart", **{USE: "pods"}))
    cluster.answers[f"{GATEWAY}/shop/gateways/pods"] = gateway(waypoint_for="workload")
    assert "label istio.io/waypoint-for is workload: it stands before no service" in cluster.preview(3)["findings"][1]["finding"]
    cluster.api.forbidden = ["/services"]
    assert "Services" in cluster.preview()["unread"]


def test_a_pods_own_label_is_for_its_own_address(cluster):
    def pod_uses(name):
        cluster.pods(pod("cart", {"app": "cart", USE: name}))
    cluster.namespace({USE: "w"})
    cluster.answers[f"{GATEWAY}/shop/gateways/w"] = gateway(waypoint_for="all")
    pod_uses("p")
    assert "of the pod names Gateway shop/p, which is not there" in cluster.preview(3)["findings"][1]["finding"]
    cluster.answers[f"{GATEWAY}/shop/gateways/p"] = gateway()
    assert "label istio.io/waypoint-for is service: it stands before no workload" in cluster.preview(3)["findings"][1]["finding"]
    cluster.answers[f"{GATEWAY}/shop/gateways/p"] = gateway(waypoint_for="workload")
    assert "Gateway shop/p (istio-waypoint, for pods)" in cluster.preview()["findings"][1]["finding"]
    pod_uses("none")
    assert "the pod's own address has none" in cluster.preview()["findings"][1]["finding"]
    # A waypoint's own pod has none before it, whatever its labels say.
    cluster.pods(pod("w-1", {USE: "gone", "gateway.istio.io/managed": "istio.io-mesh-controller"}))
    assert len(cluster.preview()["findings"]) == 1


def test_a_waypoint_that_may_not_be_read(cluster):
    cluster.namespace({USE: "w"})
    cluster.api.forbidden = ["gateways"]
    preview = cluster.preview()
    assert preview["findings"] == [] and preview["unread"].count("the waypoint") == 1


def test_a_policy_that_is_bound_to_a_service_needs_its_waypoint(cluster):
    cluster.list("/api/v1/namespaces/shop/services", service("cart"))
    cluster.list(f"{SECURITY}/shop/authorizationpolicies",
                 policy("get-only", targetRefs=[{"kind": "Service", "name": "cart"}]),
                 policy("not-ours", targetRefs=[{"kind": "Service", "name": "other"}]))
    assert "shop/get-only is bound to Service cart, before which no waypoint stands" in cluster.only_finding("AuthorizationPolicy", 3)
    cluster.namespace({USE: "w"})
    cluster.answers[f"{GATEWAY}/shop/gateways/w"] = gateway()
    assert "shop/get-only is bound to Service cart: its waypoint enforces it" in cluster.preview()["findings"][1]["finding"]


def test_explain_names_what_stands_in_the_way(tmp_path):
    node = Node(tmp_path, listeners=True, drain=0)
    node.host.ip("link set lo up\n")
    node.join()
    one = node.pod()
    node.wait_for("enabled")
    (tmp_path / "cluster").mkdir()
    cluster = Cluster(tmp_path / "cluster", node.host)
    arguments = ["explain", one.key, "--set", f"runDir={node.run_dir}"]
    try:
        cluster.pods(pod(one.name, {"app": "cart"}))
        assert "none selects it, and no waypoint is named" in cluster.run(*arguments, text=True)
        cluster.list(NETWORK, policy("closed", podSelector={}))
        text = cluster.run(*arguments, status=3, text=True)
        assert "policy      NetworkPolicy closed lets no TCP 15008 in" in text
        assert "nothing is wrong with it on this node, and the cluster stands in its way: closed lets no TCP 15008 in" in text
        assert cluster.run(*arguments, status=3)["policies"][0]["kind"] == "NetworkPolicy"
        cluster.api.forbidden = ["GET"]
        assert "not read    waypoint and policies: " in cluster.run(*arguments, text=True)
        cluster.api.check()
    finally:
        cluster.api.stop()
        node.close()
