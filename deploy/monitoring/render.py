"""Writes what Grafana and the Prometheus operator take, from the files that people edit.

alerts.yaml     ->  prometheus-rule.yaml
dashboard.yaml  ->  kvatlas-dashboard.json
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
_JOB = 'job=~"$job"'
_SOURCE = {"type": "prometheus", "uid": "${source}"}
_WIDTH, _HEIGHT, _COLUMNS = 8, 8, 3


def prometheus_rule() -> str:
    """The alert rules as the operator's resource."""
    rules = yaml.safe_load((HERE / "alerts.yaml").read_text())
    resource = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "kvatlas"},
        "spec": rules,
    }
    head = "# Written by `make monitoring` from alerts.yaml: edit that.\n"
    return head + yaml.safe_dump(resource, sort_keys=False, width=1000, allow_unicode=True)


def dashboard() -> str:
    """The dashboard as Grafana imports it."""
    described = yaml.safe_load((HERE / "dashboard.yaml").read_text())
    made = {
        "title": described["title"],
        "uid": "kvatlas",
        "tags": ["kvatlas"],
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "graphTooltip": 1,  # one crosshair in all panels
        "templating": {"list": _variables()},
        "panels": _panels(described["rows"]),
    }
    return json.dumps(made, indent=1) + "\n"


def _variables() -> list[dict[str, Any]]:
    jobs = "label_values(kvatlas_index_bytes, job)"
    return [
        {"name": "source", "label": "data source", "type": "datasource", "query": "prometheus"},
        {
            "name": "job",
            "type": "query",
            "datasource": _SOURCE,
            "query": {"query": jobs, "refId": "job"},
            "definition": jobs,
            "refresh": 2,
            "includeAll": True,
            "multi": True,
        },
    ]


def _panels(rows: dict[str, dict[str, list[Any]]]) -> list[dict[str, Any]]:
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in rows.items():
        place = {"x": 0, "y": top, "w": _WIDTH * _COLUMNS, "h": 1}
        panels.append({"type": "row", "title": title, "id": len(panels) + 1, "gridPos": place})
        top += 1
        for number, (name, (unit, *queries)) in enumerate(row.items()):
            place = {
                "x": number % _COLUMNS * _WIDTH,
                "y": top + number // _COLUMNS * _HEIGHT,
                "w": _WIDTH,
                "h": _HEIGHT,
            }
            panels.append(_panel(len(panels) + 1, name, unit, queries, place))
        top += -(-len(row) // _COLUMNS) * _HEIGHT
    return panels


def _panel(
    number: int, title: str, unit: str, queries: list[dict[str, str]], place: dict[str, int]
) -> dict[str, Any]:
    targets = [
        {
            "refId": chr(ord("A") + index),
            "datasource": _SOURCE,
            "expr": query.replace("JOB", _JOB),
            "legendFormat": legend,
        }
        for index, each in enumerate(queries)
        for query, legend in each.items()
    ]
    return {
        "type": "timeseries",
        "id": number,
        "title": title,
        "datasource": _SOURCE,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": unit, "min": 0}, "overrides": []},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}},
        "targets": targets,
    }


if __name__ == "__main__":
    (HERE / "prometheus-rule.yaml").write_text(prometheus_rule())
    (HERE / "kvatlas-dashboard.json").write_text(dashboard())
