"""How recent the pods of a cluster are, as metrics say it."""

from __future__ import annotations

import time

import pytest
from prometheus_client import CollectorRegistry, generate_latest

from service.discovery import KubernetesCollector
from service.discovery.kubernetes import KubernetesStatus
from service.discovery.kubernetes.status import CollectionStatus


def scraped(status: KubernetesStatus) -> dict[str, float]:
    registry = CollectorRegistry()
    registry.register(KubernetesCollector(status))
    lines = generate_latest(registry).decode().splitlines()
    values = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {name: float(value) for name, _, value in values}


def test_the_age_is_that_of_the_namespace_that_is_known_least() -> None:
    one, other = CollectionStatus(), CollectionStatus()
    status = KubernetesStatus({"a": one, "b": other})
    one.on_word()
    assert status.age_seconds() is None
    assert "kvatlas_kubernetes_age_seconds" not in scraped(status)
    other.heard_at = time.monotonic() - 100.0
    assert scraped(status)["kvatlas_kubernetes_age_seconds"] == pytest.approx(100.0, abs=60)
    other.on_word()
    assert scraped(status)["kvatlas_kubernetes_age_seconds"] < 60


def test_what_went_wrong_is_counted_by_reason() -> None:
    one = CollectionStatus(is_watched=True)
    status = KubernetesStatus({"a": one}, lists=3, relists=2)
    status.events.update(ADDED=5, BOOKMARK=1)
    status.failures["gone"] += 2
    status.skipped.add("port", "p", "has no TCP port named http")
    found = scraped(status)
    assert found['kvatlas_kubernetes_events_total{type="ADDED"}'] == 5
    assert found['kvatlas_kubernetes_failures_total{reason="gone"}'] == 2
    assert found['kvatlas_kubernetes_skipped_total{reason="port"}'] == 1
    assert found["kvatlas_kubernetes_lists_total"] == 3
    assert found["kvatlas_kubernetes_relists_total"] == 2
    assert found["kvatlas_kubernetes_watched"] == 1
