"""Sources leave file descriptors for callers."""

from __future__ import annotations

import resource

import pytest

from kvevents.transport import descriptors


def allow(monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))


def test_a_source_is_refused_before_no_descriptor_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    for unlimited in (resource.RLIM_INFINITY, 10**6):
        allow(monkeypatch, unlimited)
        assert not descriptors.scarcity()
    allow(monkeypatch, 4)
    assert "of 4 file descriptors" in descriptors.scarcity()
