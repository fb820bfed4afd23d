"""The alert rules and the dashboard: Prometheus takes them, they fire when they should."""

from __future__ import annotations

import json
import re
import subprocess

import pytest

from tests.harness import CHECKOUT

RULES = CHECKOUT / "config" / "prometheus-rules.yml"
DASHBOARD = CHECKOUT / "config" / "grafana.json"
# A metric of wantd with the labels that it may have.
METRICS = {
    "wantd_downloaded_bytes_total": {"source"},
    "wantd_refetched_bytes_total": {"reason"},
    "wantd_models_published_total": {"source"},
    "wantd_errors_total": {"code"},
    "wantd_evictions_total": {"reason"},
    "wantd_http_requests_total": {"host", "status"},
    "wantd_build_info": {"version"},
    "wantd_wants": {"state"},
    "wantd_waiting": {"for"},
    "wantd_store_bytes": {"kind"},
    "wantd_store_free_bytes": set(),
    "wantd_store_reserved_bytes": set(),
    "wantd_connections": set(),
    "wantd_ratelimit_remaining": {"host", "bucket"},
    "wantd_last_scan_timestamp_seconds": set(),
    "wantd_want_ready_seconds_bucket": {"le"},
}


def promtool(*arguments: str) -> None:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_rules() -> None:
    promtool("check", "rules", "--lint=all", "--lint-fatal", str(RULES))


def test_each_alert_fires_when_it_should() -> None:
    promtool("test", "rules", str(CHECKOUT / "tests" / "monitoring" / "rules_test.yml"))


def expressions() -> list[str]:
    dashboard = json.loads(DASHBOARD.read_text())
    shown = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", [])]
    alerts = re.findall(r"expr: (?:\|\n)?(.*?)(?=\n +(?:for|labels): ?|\n\n|\n +labels:)", RULES.read_text(), re.DOTALL)
    assert len(shown) > 20
    assert len(alerts) == RULES.read_text().count("expr:")
    return [*shown, *alerts]


@pytest.mark.parametrize("expression", expressions())
def test_rules_and_dashboard_ask_for_metrics_and_labels_that_there_are(expression: str) -> None:
    names = re.findall(r"(?<![:\w])wantd_\w+", expression)
    assert names or "instance:wantd_" in expression
    assert set(names) <= set(METRICS)
    labels = set(re.findall(r"(\w+)=~?\"", expression)) - {"instance"}
    for by in re.findall(r"(?:by|without) \(([^)]*)\)", expression):
        labels |= {label.strip() for label in by.split(",")} - {"instance", "le"}
    assert labels <= set().union(*(METRICS[name] for name in names))


def test_the_dashboard_takes_any_prometheus_and_any_host() -> None:
    dashboard = json.loads(DASHBOARD.read_text())
    assert [one["name"] for one in dashboard["templating"]["list"]] == ["datasource", "instance"]
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            assert target["datasource"]["uid"] == "${datasource}"
            assert 'instance=~"$instance"' in target["expr"]
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))
