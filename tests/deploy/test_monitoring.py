"""Alerts and dashboards name metrics and labels that a service really has, and alerts fire."""

from __future__ import annotations

import json
import re
from pathlib import Path
from runpy import run_path
from typing import Any

import pytest
import yaml
from support.deployed.manifests import DEPLOY, named, render, rendered, selects
from support.deployed.prometheus import named_in, promtool
from support.services.scraped import labels_by_sample, scrape_of_one, scrape_of_replica
from support.stores.servers import store_process

MONITORING = DEPLOY / "monitoring"
TARGET = {"job", "instance", "namespace", "replica"}
"""Labels that Prometheus adds: see service-monitor.yaml."""
FOREIGN = {
    "up": {"job", "instance"},
    "kube_pod_container_resource_limits": {"namespace", "pod", "container", "resource"},
}
"""Metrics of Prometheus itself and of kube-state-metrics."""
RULES = [
    rule
    for group in yaml.safe_load((MONITORING / "alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
DASHBOARD = json.loads((MONITORING / "kvatlas-dashboard.json").read_text())
PANELS = [each for each in DASHBOARD["panels"] if each["type"] != "row"]


def queries() -> list[tuple[str, str]]:
    """Where each query stands, and the query."""
    alerts = [(rule["alert"], rule["expr"]) for rule in RULES]
    shown = [
        (
            panel["title"],
            target["expr"].replace("$__rate_interval", "5m").replace("$job", "kvatlas"),
        )
        for panel in PANELS
        for target in panel["targets"]
    ]
    return [*alerts, *shown]


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
async def pages(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Scrapes of a replica alone, and of one with a store."""
    with store_process("valkey") as store:
        url = f"valkey://127.0.0.1:{store.port}"
        return [
            await scrape_of_one(tmp_path_factory.mktemp("one")),
            await scrape_of_replica(url, tmp_path_factory.mktemp("replica")),
        ]


async def test_every_query_names_metrics_and_labels_of_a_real_scrape(pages: list[str]) -> None:
    known = {**labels_by_sample(*pages), **FOREIGN}
    faults = []
    for place, query in queries():
        metrics, grouping = named_in(query)
        assert metrics, query
        unknown = metrics.keys() - known.keys()
        faults += [f"{place}: there is no {name}" for name in unknown]
        has = {name: known[name] | TARGET for name in metrics.keys() - unknown}
        for name, labels in has.items():
            faults += [f"{place}: {name} has no {each}" for each in metrics[name] - labels]
        rest = grouping - set().union(*has.values())
        faults += [f"{place}: none of its metrics has {each}" for each in rest]
    assert not faults


def test_the_reader_of_queries_sees_every_metric_and_label() -> None:
    metrics, grouping = named_in(
        'sum by (le, why) (rate(a_total{x="1", y=~"b{2}"}[5m])) / on (z) group_left () '
        'max(label_replace(b_bytes, "r", "$1", "pod", "(.*)")) > 0.9 and c_ratio == 1'
    )
    assert metrics == {"a_total": {"x", "y"}, "b_bytes": set(), "c_ratio": set()}
    assert grouping == {"le", "why", "z"}


def test_the_panels_show_what_an_operator_asks_for() -> None:
    text = " ".join(query for _, query in queries())
    for metric in (
        "kvatlas_pod_state",
        "kvatlas_pod_blocks",
        "kvatlas_matched_share",
        "kvatlas_rpc_duration_seconds",
        "kvatlas_event_lag_seconds",
        "kvatlas_events_skipped",
        "kvatlas_store_failures",
        "kvatlas_tokenization_queue_texts",
        "kvatlas_missing_tokens",
        "kvatlas_index_limit_bytes",
        "kvatlas_loop_lag_seconds",
    ):
        assert metric in text


def test_panels_do_not_overlap_and_have_numbers_of_their_own() -> None:
    cells = [
        (x, y)
        for panel in DASHBOARD["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_what_is_written_from_alerts_and_dashboard_is_fresh() -> None:
    written = run_path(str(MONITORING / "render.py"))
    for name, text in (
        ("prometheus-rule.yaml", written["prometheus_rule"]()),
        ("kvatlas-dashboard.json", written["dashboard"]()),
    ):
        assert (MONITORING / name).read_text() == text, "run `make monitoring`"


def test_the_operator_gets_the_same_rules() -> None:
    rule = named(render(MONITORING), "PrometheusRule", "kvatlas")
    assert rule["spec"] == yaml.safe_load((MONITORING / "alerts.yaml").read_text())


@pytest.mark.parametrize("rule", RULES, ids=[rule["alert"] for rule in RULES])
def test_an_alert_says_how_bad_it_is_and_what_to_do(rule: dict[str, Any]) -> None:
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert set(rule["annotations"]) == {"summary", "runbook"}
    assert re.match(r".{20,}[.?]$", rule["annotations"]["runbook"])
    tests = yaml.safe_load((MONITORING / "alerts_test.yaml").read_text())["tests"]
    assert rule["alert"] in {each["name"] for each in tests}, "make it fire in alerts_test.yaml"


def test_promtool_accepts_the_rules_and_each_fires_when_it_should() -> None:
    promtool(MONITORING, "check", "rules", "alerts.yaml")
    promtool(MONITORING, "test", "rules", "alerts_test.yaml")


def test_promtool_can_parse_the_dashboard_s_queries(tmp_path: Path) -> None:
    rules = [{"record": "shown", "expr": query} for _, query in queries()]
    (tmp_path / "rules.yaml").write_text(
        yaml.safe_dump({"groups": [{"name": "d", "rules": rules}]})
    )
    promtool(tmp_path, "check", "rules", "--lint=none", "rules.yaml")


async def test_promtool_can_read_the_scrapes(pages: list[str]) -> None:
    for page in pages:
        promtool(MONITORING, "check", "metrics", "--extended", given=page)


def test_the_monitor_scrapes_one_service_once() -> None:
    monitor = named(render(MONITORING), "ServiceMonitor", "kvatlas")["spec"]
    for overlay in ("standalone", "fleet"):
        services = [
            each
            for each in rendered(overlay)
            if each["kind"] == "Service"
            and selects(monitor["selector"], each["metadata"].get("labels", {}))
        ]
        (service,) = services
        (endpoint,) = monitor["endpoints"]
        assert endpoint["port"] in {port["name"] for port in service["spec"]["ports"]}


async def test_no_label_of_ours_is_one_that_prometheus_would_overwrite(pages: list[str]) -> None:
    monitor = named(render(MONITORING), "ServiceMonitor", "kvatlas")["spec"]
    dropped = {
        label
        for each in monitor["endpoints"][0]["relabelings"]
        if each.get("action") == "labeldrop"
        for label in each["regex"].split("|")
    }
    added = {"namespace", "pod", "service", "endpoint", "container", "job", "instance", "replica"}
    ours = set().union(*labels_by_sample(*pages).values())
    assert ours & added <= dropped
    assert ours & added == {"pod", "service"}
