"""What holds for all tests: coroutines run on asyncio, and skips can be forbidden.

Whenever a test asks for a remembered trust status, it is compared with a new one.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import hypothesis
import pytest

from kvevents.stream import WorkerStream
from kvevents.stream.report import trust_status_of

if TYPE_CHECKING:
    from collections.abc import Generator

    from indexer import TrustStatus


# A busy machine is no failure; what may take how long is asserted by counted steps.
hypothesis.settings.register_profile("kvatlas", deadline=None)
hypothesis.settings.load_profile("kvatlas")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Async tests and fixtures run on asyncio alone."""
    return "asyncio"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, None]:
    """With NO_SKIPS set a skip is a failure."""
    outcome = yield
    report = outcome.get_result()
    if report.skipped and os.environ.get("NO_SKIPS"):
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid} was skipped: {report.longrepr}"


@pytest.fixture(autouse=True)
def _remembered_trust_is_right(monkeypatch: pytest.MonkeyPatch) -> None:
    remembered = WorkerStream.trust_status

    def checked(stream: WorkerStream, now: float) -> TrustStatus:
        status = remembered(stream, now)
        stale_after = stream._environment.policy.stale_after
        assert status == trust_status_of(stream, now, stale_after)
        return status

    monkeypatch.setattr(WorkerStream, "trust_status", checked)
