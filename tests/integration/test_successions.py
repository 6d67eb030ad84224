"""Workers change hands behind somebody's back."""

from __future__ import annotations

import asyncio
from array import array
from typing import TYPE_CHECKING

import pytest
from naive_index import CHAIN, MODELS, WORKERS
from servers import binary, store_process
from shared_index import PATIENCE, SharedSubject

from indexer import Place

if TYPE_CHECKING:
    from collections.abc import Iterator

WORKER = WORKERS[0]


@pytest.fixture
def subject() -> Iterator[SharedSubject]:
    if binary("redis") is None:
        pytest.skip("there is no redis-server on this machine")
    with store_process("redis") as process:
        subject = SharedSubject(process.url, "successions", count_copies=True)
        yield subject
        subject.close()


def test_entries_that_were_passed_over_are_made_good(subject: SharedSubject) -> None:
    """One is taken for dead, reads of its own succession, and then gives up what it never lost."""
    one, two = subject.replicas
    subject.join(WORKER, MODELS[WORKER.pod])
    one.index.store(WORKER, Place("gpu"), array("Q", [1]), array("Q", CHAIN[:1]))
    subject.settle()

    async def main() -> None:
        await two.take(WORKER, ["two"])
        two.index.store(WORKER, Place("gpu"), array("Q", [2]), array("Q", CHAIN[1:2]))
        await two.write_all()
        async with asyncio.timeout(PATIENCE):
            for _ in range(2):  # the second began after the entries were written
                await one.copy.moved()
            assert WORKER in one.writer.owned
            assert await one.succession.give_up(WORKER, lambda: None)
            while not one.is_as(two):
                await one.copy.refresh()

    subject.run(main())
    for match in subject.ask(MODELS[WORKER.pod], array("Q", CHAIN[:2])):
        best = match.best_of(WORKER.pod)
        assert best is not None
        assert best.matched_blocks == 2
