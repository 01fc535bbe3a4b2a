"""Alerts and dashboard: valid, about metrics that exist, each alert fires when it should, stays silent when all is well, and says
what to do."""
import json
import re

import pytest

from .conftest import SOURCE, run

ALERTS = SOURCE / "deploy/observe/alerts.yaml"
DASHBOARD = SOURCE / "deploy/observe/dashboard.json"
OPERATE = SOURCE / "docs/operate.md"
NODE = 'instance="10.0.0.7:15014"'
AGENT = f'job="istio-system/istio-cni-node", {NODE}'

# A node on which all is well, for an hour.
HEALTHY = {
    f'up{{{AGENT}}}': "1x60",
    f'istio_cni_install_ready{{{AGENT}}}': "1x60",
    f'ambient_cni_ready{{{AGENT}}}': "0x3 1x57",  # while it starts
    f'ambient_cni_build_info{{{AGENT}, version="1"}}': "1x60",
    f'ambient_cni_tunnel_connections{{{AGENT}}}': "1x60",
    f'ambient_cni_pods{{{AGENT}, state="enabled"}}': "40x60",
    f'ambient_cni_pods{{{AGENT}, state="failed"}}': "0x60",
    f'ambient_cni_pods{{{AGENT}, state="pending"}}': "0x20 1 0x38",  # one moment
    f'ambient_cni_host_installs_total{{{AGENT}, file="configuration", result="written"}}': "1x60",
    f'ambient_cni_tunnel_requests_total{{{AGENT}, kind="add", result="accepted"}}': "0+3x60",
    f'ambient_cni_tunnel_requests_total{{{AGENT}, kind="add", result="refused"}}': "0x60",
    f'ambient_cni_tunnel_requests_total{{{AGENT}, kind="add", result="absent"}}': "0x10 9x49",
    f'ambient_cni_tunnel_ack_seconds_bucket{{{AGENT}, le="0.001"}}': "0+3x60",
    f'ambient_cni_tunnel_ack_seconds_bucket{{{AGENT}, le="+Inf"}}': "0+3x60",
    f'ambient_cni_plugin_requests_total{{{AGENT}, verb="ADD", result="enrolled"}}': "0+3x60",
    f'ambient_cni_plugin_requests_total{{{AGENT}, verb="ADD", result="refused"}}': "0x20 2x39",
    f'ambient_cni_plugin_request_seconds_bucket{{{AGENT}, phase="total", le="0.005"}}': "0+3x60",
    f'ambient_cni_plugin_request_seconds_bucket{{{AGENT}, phase="total", le="+Inf"}}': "0+3x60",
    f'ambient_cni_reconcile_errors_total{{{AGENT}, step="rules"}}': "0x20 3x39",
    f'ambient_cni_drift_repairs_total{{{AGENT}, cause="rules"}}': "0x20 2x39",
    f'ambient_cni_annotation_patches_total{{{AGENT}, result="failed"}}': "0x20 1x39",
    f'ambient_cni_watch_restarts_total{{{AGENT}}}': "0+1x10 10x49",
    f'process_resident_memory_bytes{{{AGENT}}}': f"{6 << 20}x60",
    'process_resident_memory_bytes{job="other", instance="10.0.0.9:1"}': f"{900 << 20}x60",
}

# What goes wrong, put over the healthy series, and the labels with which the alert fires.
TROUBLE = {
    "AmbientCNIAgentDown": ({f'up{{{AGENT}}}': "0x60"}, {}),
    "AmbientCNINotReady": ({f'ambient_cni_ready{{{AGENT}}}': "0x60"}, {}),
    "AmbientCNINotInstalled": ({f'istio_cni_install_ready{{{AGENT}}}': "0x60"}, {}),
    "AmbientCNIConfigurationFight": (
        {f'ambient_cni_host_installs_total{{{AGENT}, file="configuration", result="written"}}': "1+1x60"}, {}),
    "AmbientCNITunnelDisconnected": ({f'ambient_cni_tunnel_connections{{{AGENT}}}': "0x60"}, {}),
    "AmbientCNITunnelRefuses": (
        {f'ambient_cni_tunnel_requests_total{{{AGENT}, kind="add", result="refused"}}': "0+1x60"}, {"kind": "add"}),
    "AmbientCNITunnelSlow": (
        {f'ambient_cni_tunnel_ack_seconds_bucket{{{AGENT}, le="0.001"}}': "0x60",
         f'ambient_cni_tunnel_ack_seconds_bucket{{{AGENT}, le="10"}}': "0+3x60"}, {}),
    "AmbientCNIPodsFailed": ({f'ambient_cni_pods{{{AGENT}, state="failed"}}': "2x60"}, {"state": "failed"}),
    "AmbientCNIPodsPending": ({f'ambient_cni_pods{{{AGENT}, state="pending"}}': "2x60"}, {"state": "pending"}),
    "AmbientCNIPodStartsRefused": (
        {f'ambient_cni_plugin_requests_total{{{AGENT}, verb="ADD", result="refused"}}': "0+1x60"}, {}),
    "AmbientCNIPodStartsSlow": (
        {f'ambient_cni_plugin_request_seconds_bucket{{{AGENT}, phase="total", le="0.005"}}': "0x60",
         f'ambient_cni_plugin_request_seconds_bucket{{{AGENT}, phase="total", le="5"}}': "0+3x60"}, {}),
    "AmbientCNIReconcileErrors": ({f'ambient_cni_reconcile_errors_total{{{AGENT}, step="rules"}}': "0+2x60"}, {"step": "rules"}),
    "AmbientCNIDriftRepaired": ({f'ambient_cni_drift_repairs_total{{{AGENT}, cause="rules"}}': "0+1x60"}, {"cause": "rules"}),
    "AmbientCNIAnnotationPatchesFail": (
        {f'ambient_cni_annotation_patches_total{{{AGENT}, result="failed"}}': "0+1x60"}, {}),
    "AmbientCNIWatchRestarts": ({f'ambient_cni_watch_restarts_total{{{AGENT}}}': "0+2x60"}, {}),
    "AmbientCNIMemory": ({f'process_resident_memory_bytes{{{AGENT}}}': f"{100 << 20}x60"}, {}),
    "AmbientCNIVersions": (
        {'ambient_cni_build_info{job="istio-system/istio-cni-node", instance="10.0.0.8:15014", version="2"}': "1x70",
         f'ambient_cni_build_info{{{AGENT}, version="1"}}': "1x70"}, {}),
}


@pytest.fixture(scope="module")
def promtool():
    return run(SOURCE / "tests/deploy/promtool.sh").strip()


@pytest.fixture(scope="module")
def metrics():
    """The reference in docs/operate.md: name -> (type, labels)."""
    rows = re.findall(r"^\| `(\w+)(?:\{([\w,]+)\})?` \| (counter|gauge|histogram) \|", OPERATE.read_text(), re.M)
    assert len(rows) > 15
    return {name: (kind, set(labels.split(",")) - {""}) for name, labels, kind in rows}


def alert_names():
    return re.findall(r"- alert: (\w+)", ALERTS.read_text())


def test_rules_are_valid(promtool):
    assert f"{len(alert_names())} rules found" in run(promtool, "check", "rules", ALERTS)


def expressions(promql):
    """(metric, {label...}) of each selector, and every label that is aggregated by."""
    bare = re.sub(r'"[^"]*"', '""', re.sub(r"\[[^]]*\]", "", promql))
    selectors = re.findall(r"\b([a-z_]+_[a-z_]+|up)\b(?:\{([^}]*)\})?", bare)
    by = {label.strip() for group in re.findall(r"\bby \(([^)]*)\)", bare) for label in group.split(",")}
    functions = {"histogram_quantile", "label_values", "group_left"}
    found = []
    for name, matchers in selectors:
        if name not in functions:
            found.append((name, set(re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers))))
    return found, by


# Of Prometheus and of kube-state-metrics.
FOREIGN = {"up", "kube_daemonset_status_number_unavailable"}
TARGET_LABELS = {"instance", "job", "app", "daemonset", "le"}


def assert_known(promql, metrics):
    selectors, by = expressions(promql)
    labels = set()
    assert selectors or "label_values" in promql, promql
    for name, matched in selectors:
        if name in FOREIGN:
            continue
        base = name.removesuffix("_bucket")
        assert base in metrics, f"{promql}: there is no metric {name}"
        kind, own = metrics[base]
        assert (kind == "histogram") == name.endswith("_bucket"), promql
        assert matched <= own | TARGET_LABELS, f"{promql}: {name} has no label {matched - own}"
        labels |= own
        if kind in ("counter", "histogram"):
            assert re.search(rf"(?:rate|increase)\({name}\b", promql), f"{promql}: {name} is a counter"
    assert by <= labels | TARGET_LABELS, promql


def test_alerts_are_about_metrics_that_exist(charttool, render, metrics):
    (result,) = render({"values": {"prometheusRule": {"enabled": True}}})
    rules = [rule for group in result["PrometheusRule"]["spec"]["groups"] for rule in group["rules"]]
    assert [rule["alert"] for rule in rules] == alert_names()
    for rule in rules:
        assert_known(rule["expr"], metrics)
        assert rule["labels"]["severity"] in ("critical", "warning", "info")


def test_every_alert_has_a_runbook(render):
    text = OPERATE.read_text()
    for name in alert_names():
        assert f"docs/operate.md#{name.lower()}" in ALERTS.read_text(), name
        section = re.search(rf"^### {name}\n\n(.+?)(?=\n#|\Z)", text, re.M | re.S)
        assert section and len(section[1]) > 80, f"docs/operate.md says nothing of {name}"


def promtool_input(promtool_tests):
    return json.dumps({"rule_files": [str(ALERTS.resolve())], "evaluation_interval": "1m", "tests": promtool_tests})


def series(values):
    return [{"series": name, "values": numbers} for name, numbers in values.items()]


def test_no_alert_when_all_is_well(promtool, tmp_path):
    file = tmp_path / "healthy.yaml"
    file.write_text(promtool_input([{
        "interval": "1m", "input_series": series(HEALTHY),
        "alert_rule_test": [{"alertname": name, "eval_time": time} for name in alert_names() for time in ("15m", "25m", "59m")]}]))
    run(promtool, "test", "rules", file)


def test_each_alert_fires(promtool, tmp_path):
    """promtool wants whole annotations to compare with, so it is asked for the series ALERTS instead."""
    assert list(TROUBLE) == alert_names()
    asked = []
    for name, (trouble, labels) in TROUBLE.items():
        wanted = 'ALERTS{alertname="%s", alertstate="firing"}' % name
        time = "70m" if name == "AmbientCNIVersions" else "40m"
        asked.append({"interval": "1m", "input_series": series({**HEALTHY, **trouble}),
                      "promql_expr_test": [{"expr": f"count({wanted}) by ({', '.join(sorted(labels)) or 'alertname'})",
                                            "eval_time": time,
                                            "exp_samples": [{"labels": "{" + ", ".join(
                                                f'{k}="{v}"' for k, v in sorted((labels or {"alertname": name}).items())) + "}",
                                                "value": 1}]}]})
    file = tmp_path / "trouble.yaml"
    file.write_text(promtool_input(asked))
    run(promtool, "test", "rules", file)


def test_dashboard(metrics):
    dashboard = json.loads(DASHBOARD.read_text())
    panels = [panel for panel in dashboard["panels"] if panel["type"] != "row"]
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    for panel in panels:
        for target in panel["targets"]:
            assert_known(target["expr"], metrics)
    for one in dashboard["panels"]:
        for other in dashboard["panels"]:
            if one is not other:
                a, b = one["gridPos"], other["gridPos"]
                assert (a["x"] + a["w"] <= b["x"] or b["x"] + b["w"] <= a["x"] or a["y"] + a["h"] <= b["y"]
                        or b["y"] + b["h"] <= a["y"]), f"{one['title']} and {other['title']} overlap"


def test_dashboard_shows_every_metric_of_ours(metrics):
    text = DASHBOARD.read_text()
    for name in metrics:
        if name.startswith("ambient_cni_"):
            assert name in text, f"no panel shows {name}"


def test_dashboard_as_a_config_map(render):
    (result,) = render({"values": {"grafanaDashboard": {"enabled": True}}})
    (found,) = [o for o in result.objects if o["metadata"]["name"] == "istio-cni-node-dashboard"]
    assert json.loads(found["data"]["ambient-cni.json"]) == json.loads(DASHBOARD.read_text())
    assert found["metadata"]["labels"]["grafana_dashboard"] == "1"
