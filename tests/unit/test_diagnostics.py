"""The log tells of a misconfiguration as it appears, and as it is gone."""

from __future__ import annotations

from array import array

from structlog.testing import capture_logs

from indexer import KeyScheme, MemoryIndex, Place, Worker
from service.diagnostics import Diagnostics, UnmatchedPrompts
from service.replication.worker_status import LocalWorkers


def test_a_misconfiguration_is_logged_once_and_so_is_its_end() -> None:
    index, worker = MemoryIndex(1024**2), Worker("a:1", 0)
    index.join(worker, "m")
    scheme = KeyScheme("m", 16, "")
    index.store(
        worker,
        Place("gpu", 0),
        array("Q", [1]),
        scheme.keys(scheme.root(""), array("Q", range(16)), None),
    )
    unmatched = UnmatchedPrompts()
    diagnostics = Diagnostics(index, LocalWorkers({}), unmatched)
    with capture_logs() as log:
        for _ in range(500):
            unmatched.record("m", matched=False)
        diagnostics.log_changes()
        diagnostics.log_changes()
        unmatched.record("m", matched=True)
        diagnostics.log_changes()
    assert [(line["event"], line["kind"]) for line in log] == [
        ("misconfigured", "scores_never_match"),
        ("no_longer_misconfigured", "scores_never_match"),
    ]
