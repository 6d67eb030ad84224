"""What another replica wrote of a worker, as far as it can be believed here."""

from __future__ import annotations

import pytest

from indexer import TrustState, TrustStatus
from service.replication.worker_status import effective_status

EXACT = TrustStatus(TrustState.EXACT, "", None, 7)
PARTIAL = TrustStatus(TrustState.PARTIAL, "joined_late", None, 7)
UNKNOWN = TrustStatus(TrustState.UNKNOWN, "never_heard", None, None)


@pytest.mark.parametrize(
    ("written", "silent", "doubt", "expected"),
    [
        (EXACT, 0.0, "", ("exact", "")),
        (PARTIAL, 0.0, "", ("partial", "joined_late")),
        (EXACT, 61.0, "", ("stale", "silent")),
        (EXACT, 0.0, "copy_behind", ("stale", "copy_behind")),
        (EXACT, 0.0, "owner_lost", ("recovering", "owner_lost")),
        (EXACT, None, "owner_lost", ("recovering", "owner_lost")),
        (EXACT, 59.0, "owner_lost", ("recovering", "owner_lost")),
        (EXACT, 61.0, "owner_lost", ("stale", "silent")),
        (EXACT, 61.0, "copy_loading", ("recovering", "copy_loading")),
        (UNKNOWN, 61.0, "owner_lost", ("unknown", "never_heard")),
    ],
)
def test_what_an_owner_wrote_is_believed_as_far_as_it_is_heard_of(
    written: TrustStatus, silent: float | None, doubt: str, expected: tuple[str, str]
) -> None:
    status = effective_status(written, silent, doubt, stale_after=60.0)
    assert (status.state.value, status.reason) == expected
    assert (status.silent, status.as_of) == (silent, written.as_of)


def test_without_a_time_for_staleness_a_worker_without_owner_stays_recovering() -> None:
    status = effective_status(EXACT, 1e6, "owner_lost", stale_after=0.0)
    assert status.state is TrustState.RECOVERING
